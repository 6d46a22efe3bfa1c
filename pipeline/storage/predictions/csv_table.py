"""Write and read predictions.csv: every head and tile; the only source of the figures in a report.

A table of more than `LARGE_LINES` lines is predictions.parquet instead: `written` writes both formats, and
`records.existing_table` finds the file.

The table of a single split has all rows. The table of a plan has the test rows of all parts, with the columns seed and
fold after `predicted`: a tile has one row per seed and head, predicted by networks trained without its fold.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from pipeline.errors import BadArtifact
from pipeline.names import SPLITS, RunFile
from pipeline.storage import atomic, records
from pipeline.storage.csv_files import read_table
from pipeline.storage.embeddings.reader import OK, Embeddings
from pipeline.storage.predictions.columns import BLOCK_ROWS, COLUMNS, PART_COLUMNS, SUM_TOLERANCE
from pipeline.storage.predictions.parquet_table import ParquetTable
from pipeline.storage.predictions.parquet_writer import parquet_lines

SCHEMA = records.SCHEMAS[RunFile.PREDICTIONS]

LARGE_LINES = 1_000_000
"""Most lines (rows times heads) of a CSV file, about 170 MB; a longer table is a Parquet file."""


class HeadOutput(NamedTuple):
    """The predictions of one head for N tiles."""

    predicted: np.ndarray
    """(N,) class codes with the largest score of the head; a calibration by class (sigmoid, isotonic) may give
    another class the largest probability, but does not change the prediction."""

    p: np.ndarray
    """(N, K) calibrated probabilities."""

    offsets: np.ndarray | None = None
    """(K,) what `evaluation.decision.decided` subtracts from log-probabilities; None: the largest score decides."""


def usable_rows(embeddings: Embeddings) -> np.ndarray:
    """Return a mask (N,) of the rows of an embeddings file with features, a label and a split."""
    return (embeddings.status == OK) & (embeddings.split < len(SPLITS)) & (embeddings.label >= 0)


def table_for(path: Path, n_lines: int) -> Path:
    """Return the path of a table of `n_lines` lines (rows times heads): predictions.csv or predictions.parquet."""
    return path.with_suffix(".parquet") if n_lines > LARGE_LINES else path


@contextlib.contextmanager
def written(path: Path) -> Iterator[Callable[[pd.DataFrame], None]]:
    """Yield a function that adds lines of one head to a new table; a table of the other format is removed.

    It is removed just before the new table gets its name, so that two never exist. After a kill in between there is no
    table, and the same command writes it again.

    Args:
        path: predictions.csv or predictions.parquet (`table_for`).
    """
    other = path.with_suffix(".csv" if path.suffix == ".parquet" else ".parquet")
    with atomic.atomic(path) as temporary:
        with _csv_lines(temporary) if path.suffix == ".csv" else parquet_lines(temporary) as add:
            yield add
        for old in (other, records.record_path(other)):  # two tables would contradict each other
            old.unlink(missing_ok=True)


@contextlib.contextmanager
def _csv_lines(path: Path) -> Iterator[Callable[[pd.DataFrame], None]]:
    with path.open("w", encoding="utf-8", newline="") as file:

        def add(lines: pd.DataFrame) -> None:
            lines.to_csv(file, index=False, header=file.tell() == 0, float_format="%.9g", lineterminator="\n")

        yield add


def write_predictions(path: Path, embeddings: Embeddings, outputs: Iterable[tuple[str, HeadOutput]]) -> None:
    """Write the table: for each head one line per usable row, in the order of the embeddings file.

    Args:
        path: predictions.csv or predictions.parquet (`table_for`).
        embeddings: the file's content.
        outputs: head and its output for the M usable rows; memory holds one at a time.
    """
    usable = np.flatnonzero(usable_rows(embeddings))
    classes = np.array(embeddings.classes, dtype=object)
    splits = np.array(SPLITS, dtype=object)
    with written(path) as add:
        for head, output in outputs:
            for start in range(0, len(usable), BLOCK_ROWS):
                part = slice(start, start + BLOCK_ROWS)
                rows = usable[part]
                lines = pd.DataFrame(
                    {
                        "tile_id": np.array([embeddings.tile_id[row] for row in rows], dtype=object),
                        "group": np.array([embeddings.group[row] for row in rows], dtype=object),
                        "split": splits[embeddings.split[rows]],
                        "label": classes[embeddings.label[rows]],
                        "head": head,
                        "predicted": classes[output.predicted[part]],
                    }
                )
                add(with_probabilities(lines, output.p[part], embeddings.classes))


def with_probabilities(table: pd.DataFrame, p: np.ndarray, classes: Sequence[str]) -> pd.DataFrame:
    """Return a table of N rows with the columns `p_<class>`, added at once: one by one, hundreds are slow.

    Args:
        table: table of N rows.
        p: (N, K) probabilities.
        classes: K names.
    """
    columns = pd.DataFrame(p, columns=[f"p_{name}" for name in classes], index=table.index)
    return pd.concat([table, columns], axis=1)


def _refusal(path: Path) -> Callable[[str], BadArtifact]:
    return lambda rule: BadArtifact(f"{path}: {rule}: run `python -m pipeline.fit_heads --restart`")


def open_parquet(path: Path) -> ParquetTable:
    """Return a predictions.parquet for reading head by head; its lines are checked by `check`, or as they are read.

    Raises:
        BadArtifact: names the rule that the file breaks.
        PipelineError: pyarrow is not installed.
    """
    return ParquetTable(path, _refusal(path))


def read_predictions(path: Path) -> pd.DataFrame:
    """Read predictions.csv or a whole predictions.parquet, and check it against its schema.

    The caller checks the record. `open_parquet` reads a Parquet table head by head.

    Returns:
        The file's columns, always with seed and fold.

    Raises:
        BadArtifact: names the rule that the file breaks.
    """
    refuse = _refusal(path)
    if path.suffix == ".parquet":
        open_parquet(path).check()
        table = pd.read_parquet(path)
    else:
        table = read_table(path, texts=COLUMNS, refuse=refuse)
    pooled = tuple(table.columns[len(COLUMNS) :][:2]) == PART_COLUMNS
    rest = list(table.columns[len(COLUMNS) + (2 if pooled else 0) :])
    if len(rest) < 2 or any(name[:2] != "p_" for name in rest):
        raise refuse(f"its columns are not {', '.join(COLUMNS)}, p_<class>, ...")
    check_probabilities(table, rest, refuse)
    classes = {name[2:] for name in rest}
    if not set(table["label"]) | set(table["predicted"]) <= classes or not set(table["split"]) <= set(SPLITS):
        raise refuse("a label or split is unknown")
    if pooled and any(table[name].dtype.kind != "i" for name in PART_COLUMNS):
        raise refuse("a seed or fold is not a whole number")
    if not pooled:
        parts = pd.DataFrame(0, index=table.index, columns=list(PART_COLUMNS))
        table = pd.concat([table[list(COLUMNS)], parts, table[rest]], axis=1)
    rows = pd.Series(list(zip(table["tile_id"], table["seed"], strict=True)), index=table.index)
    heads = rows.groupby(table["head"], sort=False).agg(list)
    if any(ids != heads.iloc[0] for ids in heads) or len(set(heads.iloc[0])) != len(heads.iloc[0]):
        raise refuse("the heads have different rows")
    return table


def check_predictions(path: Path) -> set[str]:
    """Check all lines of a table of either format and return the names of its tiles.

    Raises:
        BadArtifact: names the rule that the file breaks.
    """
    if path.suffix != ".parquet":
        return set(read_predictions(path)["tile_id"])
    return set(open_parquet(path).check()["tile_id"])


def check_probabilities(table: pd.DataFrame, names: Sequence[str], refuse: Callable[[str], BadArtifact]) -> None:
    """Check the columns `p_<class>` of a table.

    Raises:
        BadArtifact: made by `refuse`; a row has no probabilities.
    """
    p = table[list(names)].to_numpy(np.float64) if all(table[name].dtype.kind in "fi" for name in names) else None
    if p is None or not np.isfinite(p).all() or (p < 0).any() or (abs(p.sum(axis=1) - 1) > SUM_TOLERANCE).any():
        raise refuse("a row's probabilities are no numbers from 0 up that sum to 1")


def classes_of(table: pd.DataFrame) -> list[str]:
    """Return the class names of a table from `read_predictions`, in the order of their codes."""
    return [name[2:] for name in table.columns[len(COLUMNS) + len(PART_COLUMNS) :]]
