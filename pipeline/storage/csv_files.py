"""Read the CSV files of a run as they were written: text stays text, and only the schema's texts may be anything.

A spreadsheet takes a cell for a formula that begins with = + - @. Tables that only people read get an apostrophe before
such a text (OWASP, "CSV Injection"); tables that are read again hold every name as it is.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from pipeline.errors import BadArtifact

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet may compute."""


def no_formula(text: str) -> str:
    """Return a text for a cell of a table that only people read: an apostrophe before what would be a formula."""
    return f"'{text}" if text.startswith(FORMULA) else text


def read_table(path: Path, *, texts: Sequence[str], refuse: Callable[[str], BadArtifact]) -> pd.DataFrame:
    """Return the table; columns in `texts` as str, the others as what they look like.

    Args:
        path: the file.
        texts: the columns that come first.
        refuse: the rule that the file breaks -> the error.

    Raises:
        BadArtifact: not a CSV file, without rows, or other columns first than `texts`.
    """
    try:
        table = pd.read_csv(path, dtype=dict.fromkeys(texts, str), keep_default_na=False, na_values={})
    except (ValueError, OSError) as error:
        raise refuse(f"not a readable CSV file ({' '.join(str(error).split())[:120]})") from None
    if list(table.columns[: len(texts)]) != list(texts):
        raise refuse(f"its first columns are not {', '.join(texts)}")
    if table.empty:
        raise refuse("no rows")
    return table
