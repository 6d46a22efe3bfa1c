"""Read the CSV files of a run; text columns stay text.

A spreadsheet takes a cell that begins with = + - @ for a formula. Tables that only people read get an apostrophe before
such a text (OWASP, "CSV Injection"); tables that the program reads again keep every name unchanged.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from pipeline.errors import BadArtifact

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters of a cell that a spreadsheet may compute."""


def no_formula(text: str) -> str:
    """Return a text for a cell of a table that only people read: with an apostrophe before a formula."""
    return f"'{text}" if text.startswith(FORMULA) else text


def read_table(path: Path, *, texts: Sequence[str], refuse: Callable[[str], BadArtifact]) -> pd.DataFrame:
    """Return the table; columns in `texts` as str, the types of the others are inferred.

    Args:
        path: the file.
        texts: the columns that come first.
        refuse: makes the error from the rule that the file breaks.

    Raises:
        BadArtifact: not a CSV file, no rows, or other first columns than `texts`.
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
