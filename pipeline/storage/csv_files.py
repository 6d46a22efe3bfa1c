"""Write small CSV tables, and read the CSV files of a run; text columns stay text.

A spreadsheet takes a cell that begins with = + - @ for a formula. Tables that only people read get an apostrophe before
such a text (OWASP, "CSV Injection"); tables that the program reads again keep every name unchanged.
"""

import csv
import io
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pandas as pd

from pipeline.errors import BadArtifact

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters of a cell that a spreadsheet may compute."""


def csv_text(columns: Iterable[str], rows: Iterable[Iterable[object]], *, digits: int = 10) -> str:
    """Return a table as CSV; None and NaN are empty cells, floats have some significant digits."""

    def cell(value: object) -> object:
        if isinstance(value, float):  # float64 of numpy, too
            return "" if math.isnan(value) else f"{value:.{digits}g}"
        return value  # the writer leaves the cell of None empty

    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(map(cell, row) for row in rows)
    return out.getvalue()


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
