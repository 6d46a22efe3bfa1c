"""Write and read predictions.csv: every head and tile; the only source of the figures in a report.

A table of more than `LARGE_LINES` lines is predictions.parquet instead: `written` writes either of these,
`records.standing` finds it.

Of one split it holds all rows. Of a plan it holds the test rows of all parts, each predicted by the networks that were
trained without its fold, with the columns seed and fold behind `predicted`: a tile has one row per seed and head.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from pipeline.errors import BadArtifact
from pipeline.names import SPLITS
from pipeline.storage import atomic, records
from pipeline.storage.csv_files import read_table
from pipeline.storage.embeddings.reader import OK, Embeddings
from pipeline.storage.predictions.columns import BLOCK_ROWS, COLUMNS, PART_COLUMNS, SUM_TOLERANCE
from pipeline.storage.predictions.parquet_table import ParquetTable
from pipeline.storage.predictions.parquet_writer import parquet_lines

SCHEMA = "predictions/1.0"

LARGE_LINES = 1_000_000
"""A table of more lines (rows times heads) is a Parquet file. A CSV file of so many has some 170 MB: more than a
spreadsheet takes, and no longer read whole in passing."""


class HeadOutput(NamedTuple):
    """The answers of one head for N tiles."""

    predicted: np.ndarray
    """(N,) class codes that the head's own scores decide for; a calibration by class (sigmoid, isotonic) may put
    another class on top, but does not change a decision."""

    p: np.ndarray
    """(N, K) calibrated probabilities."""


def usable_rows(embeddings: Embeddings) -> np.ndarray:
    """Return which rows (N,) bool of an embeddings file have features, a label and a split."""
    return (embeddings.status == OK) & (embeddings.split < len(SPLITS)) & (embeddings.label >= 0)


def table_for(path: Path, n_lines: int) -> Path:
    """Return the path of a table of so many lines (rows times heads): predictions.csv, or .parquet in its place."""
    return path.with_suffix(".parquet") if n_lines > LARGE_LINES else path


@contextlib.contextmanager
def written(path: Path) -> Iterator[Callable[[pd.DataFrame], None]]:
    """Yield a function that adds lines of one head to a new table; the table of the other format is then removed.

    It is removed just before the new one takes its place, so that two never exist. A kill between leaves none, and the
    same command makes it.

    Args:
        path: predictions.csv or predictions.parquet (`table_for`); complete or not there.
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


def write_predictions(path: Path, embeddings: Embeddings, answers: Iterable[tuple[str, HeadOutput]]) -> None:
    """Write the table: for each head one line per usable row, in the order of the embeddings file.

    Args:
        path: predictions.csv or predictions.parquet (`table_for`).
        embeddings: the file's content.
        answers: head and its output for the M usable rows; one is held at a time.
    """
    usable = np.flatnonzero(usable_rows(embeddings))
    classes = np.array(embeddings.classes, dtype=object)
    splits = np.array(SPLITS, dtype=object)
    with written(path) as add:
        for head, answer in answers:
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
                        "predicted": classes[answer.predicted[part]],
                    }
                )
                add(with_probabilities(lines, answer.p[part], embeddings.classes))


def with_probabilities(table: pd.DataFrame, p: np.ndarray, classes: Sequence[str]) -> pd.DataFrame:
    """Return a table of N rows with the columns `p_<class>`, added at once: one by one, hundreds are slow.

    Args:
        table: of N rows.
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
    """Read predictions.csv, or a Parquet table that fits into memory as one, and check it against its schema.

    The record is the caller's to check. `open_parquet` reads a Parquet table head by head.

    Returns:
        The file's columns, with seed and fold in any case.

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
        raise refuse("a seed or fold is no whole number")
    if not pooled:
        for name in reversed(PART_COLUMNS):
            table.insert(len(COLUMNS), name, 0)
    rows = pd.Series(list(zip(table["tile_id"], table["seed"], strict=True)), index=table.index)
    heads = rows.groupby(table["head"], sort=False).agg(list)
    if any(ids != heads.iloc[0] for ids in heads) or len(set(heads.iloc[0])) != len(heads.iloc[0]):
        raise refuse("the heads are not on the same rows")
    return table


def check_predictions(path: Path) -> set[str]:
    """Check all lines of a table of either form and return the names of its tiles.

    Raises:
        BadArtifact: names the rule that the file breaks.
    """
    if path.suffix != ".parquet":
        return set(read_predictions(path)["tile_id"])
    return set(open_parquet(path).check()["tile_id"])


def check_probabilities(table: pd.DataFrame, names: Sequence[str], refuse: Callable[[str], BadArtifact]) -> None:
    """Check the columns `p_<class>` of a table.

    Raises:
        BadArtifact: what `refuse` makes: they are no probabilities.
    """
    p = table[list(names)].to_numpy(np.float64) if all(table[name].dtype.kind in "fi" for name in names) else None
    if p is None or not np.isfinite(p).all() or (p < 0).any() or (abs(p.sum(axis=1) - 1) > SUM_TOLERANCE).any():
        raise refuse("a row's probabilities are no numbers from 0 up that sum to 1")


def classes_of(table: pd.DataFrame) -> list[str]:
    """Return the class names of a table from `read_predictions`, in the order of their codes."""
    return [name[2:] for name in table.columns[len(COLUMNS) + len(PART_COLUMNS) :]]
