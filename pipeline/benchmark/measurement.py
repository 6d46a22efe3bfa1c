"""Hold measurements: values of each round, and their ratios; write them as CSV."""

import dataclasses
import statistics
from collections.abc import Sequence

from pipeline.storage.csv_files import csv_text

PLAIN = "plain"
"""Name of the plain script that this package is compared with."""

OURS = "ours"
"""Name of this package, if it has one way only."""

COLUMNS = ("part", "what", "precision", "batch", "unit", "median", "low", "high", "n", "ratio", "share", "note")


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One row of the table."""

    part: str
    """limits, embed, train, svm or xgboost."""

    what: str
    """The engine, or the way of working."""

    unit: str
    """Unit of the values: tiles/s, GFLOP/s, s, ..."""

    values: tuple[float, ...]
    """One per round (or per seed), at least one."""

    precision: str = ""
    """fp32, bf16 or int8, where a network is run."""

    batch: int | None = None
    """Tiles per step, where a network is run."""

    ratio: float | None = None
    """Times as fast as the plain way."""

    share: float | None = None
    """Share of the machine's limit."""

    note: str = ""
    """Text for the reader of this row."""

    @property
    def median(self) -> float:
        """The middle of the values."""
        return statistics.median(self.values)


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median over rounds of ours / theirs: a slow round is slow for both.

    Args:
        ours: one value per round.
        theirs: one value per round, of the same rounds.

    Raises:
        ValueError: the numbers of values differ, or there are none.
    """
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def find(table: Sequence[Measurement], part: str, what: str, unit: str = "") -> Measurement | None:
    """Return the first row of a part with this name (and unit), None if it was not measured."""
    rows = (row for row in table if row.part == part and row.what == what and unit in ("", row.unit))
    return next(rows, None)


def to_csv(table: Sequence[Measurement]) -> str:
    """Return the table as CSV with the columns `COLUMNS`; cells that do not apply are empty."""
    rows = []
    for row in table:
        spread = row.median, min(row.values), max(row.values), len(row.values)
        rows.append([row.part, row.what, row.precision, row.batch, row.unit, *spread, row.ratio, row.share, row.note])
    return csv_text(COLUMNS, rows, digits=6)
