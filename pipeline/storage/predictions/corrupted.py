"""Read, write and pool robustness.csv: predictions for test tiles, unchanged and under each corruption.

The file of a single split has a row per tile, head and corruption, with the probabilities of all classes. The file of
a plan has the rows of all parts, with the columns seed and fold instead of the probabilities.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.errors import BadArtifact
from pipeline.names import HEADS, RunFile
from pipeline.storage.csv_files import read_table
from pipeline.storage.predictions.columns import PART_COLUMNS
from pipeline.storage.predictions.csv_table import HeadOutput, with_probabilities
from pipeline.storage.predictions.inner_networks import mean_offsets, mean_predictions
from pipeline.storage.records import SCHEMAS

SCHEMA = SCHEMAS[RunFile.ROBUSTNESS]
COLUMNS = ("tile_id", "group", "label", "head", "corruption", "predicted")
"""Columns before the probabilities `p_<class>`, or before seed and fold."""

NONE = "none"
"""Name of "no corruption"; its rows come first."""

TILE = ["tile_id", "group", "label", *PART_COLUMNS]
"""Columns that are the same for every head and corruption."""


def to_csv(tiles: pd.DataFrame, outputs: Mapping[str, Mapping[str, HeadOutput]], classes: Sequence[str]) -> str:
    """Return the table of a single split, sorted by corruption, then by head.

    Args:
        tiles: N rows with tile_id, group and label.
        outputs: corruption -> head -> its output; `NONE` first.
        classes: K names.
    """
    names = np.array(classes, dtype=object)
    parts = []
    for corruption, heads in outputs.items():
        for head, output in heads.items():
            table = tiles[["tile_id", "group", "label"]].assign(head=head, corruption=corruption)
            table["predicted"] = names[output.predicted]
            parts.append(with_probabilities(table, output.p, classes))
    return pd.concat(parts).to_csv(index=False, float_format="%.9g", lineterminator="\n")


def blocks(table: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield (corruption, head, rows with a new index) in the order of the file."""
    for (corruption, head), rows in table.groupby(["corruption", "head"], sort=False):
        yield str(corruption), str(head), rows.reset_index(drop=True)


def read_robustness(path: Path) -> pd.DataFrame:
    """Read robustness.csv and check it against its schema; the caller checks its record.

    Returns:
        The file's columns, always with seed and fold.

    Raises:
        BadArtifact: names the rule that the file breaks.
    """

    def refuse(rule: str) -> BadArtifact:
        return BadArtifact(f"{path}: {rule}: run `python -m pipeline.robustness --restart`")

    table = read_table(path, texts=COLUMNS, refuse=refuse)
    rest = tuple(table.columns[len(COLUMNS) :])
    pooled = rest == PART_COLUMNS
    names = [] if pooled else list(rest)
    if not (pooled or (rest and all(n[:2] == "p_" for n in rest))):
        raise refuse(f"its columns are not {', '.join(COLUMNS)}, then p_<class>, ... or {', '.join(PART_COLUMNS)}")
    if any(table[name].dtype.kind not in "fi" or not np.isfinite(table[name]).all() for name in names):
        raise refuse("a probability is not a number")
    if not pooled:
        parts = pd.DataFrame(0, index=table.index, columns=list(PART_COLUMNS))
        table = pd.concat([table, parts], axis=1)
    if any(table[name].dtype.kind != "i" for name in PART_COLUMNS):
        raise refuse("a seed or fold is not a whole number")
    if unknown := sorted(set(table["head"]) - set(HEADS)):
        raise refuse(f"head '{unknown[0]}' is unknown")
    if table["corruption"].iloc[0] != NONE:
        raise refuse(f"its first rows are not those without corruption ('{NONE}')")
    if fault := _fault(table):
        raise refuse(fault)
    return table


def _fault(table: pd.DataFrame) -> str:
    """Return which head and corruption has other tiles than the first, or ""."""
    wanted = {(corruption, head) for corruption in set(table["corruption"]) for head in set(table["head"])}
    first: pd.DataFrame | None = None
    for corruption, head, rows in blocks(table):
        wanted.discard((corruption, head))
        tiles = rows[TILE]
        if first is None:
            first = tiles
            if tiles.duplicated(["tile_id", "seed"]).any():
                return "a tile occurs twice under one seed"
        if not tiles.equals(first):
            return f"{head} under '{corruption}' has other tiles than the first rows"
    return f"{min(wanted)[1]} has no rows under '{min(wanted)[0]}'" if wanted else ""


def pool(parts: Sequence[tuple[int, int, Path]]) -> str:
    """Return the rows of a plan's parts as one table, with the columns seed and fold.

    Parts of one seed and fold are its inner networks: the predicted class is decided by their mean probabilities, as
    in the pooled predictions.csv.

    Args:
        parts: seed, fold and robustness.csv of each part; the caller checks the records.

    Raises:
        BadArtifact: a file that breaks the schema, parts with other heads, corruptions or classes, inner networks on
            other tiles, or a tile in two folds of one seed.
    """
    by_fold: dict[tuple[int, int], list[pd.DataFrame]] = {}
    folders: dict[tuple[int, int], list[Path]] = {}
    first: tuple[list[str], list[tuple[str, str]]] | None = None
    for seed, fold, path in parts:
        table = read_robustness(path).assign(seed=seed, fold=fold)
        found = list(table.columns), [(corruption, head) for corruption, head, _ in blocks(table)]
        first = first or found
        if found != first:
            raise BadArtifact(
                f"{path}: other heads, corruptions or classes than {parts[0][2]}: run `python -m pipeline.robustness` "
                "with the same options for all parts"
            )
        folders.setdefault((seed, fold), []).append(path.parent)
        same = by_fold.setdefault((seed, fold), [])
        same.append(table)
        if not table[[*TILE, "head", "corruption"]].equals(same[0][[*TILE, "head", "corruption"]]):
            raise BadArtifact(f"{path}: other test tiles than the other part of seed {seed}, fold {fold}: run prepare")
    pooled = pd.concat(
        tables[0] if len(tables) == 1 else mean_predictions(tables, mean_offsets(folders[key]))
        for key, tables in by_fold.items()
    )
    doubled = pooled.duplicated(["tile_id", "seed", "head", "corruption"]).to_numpy()
    if doubled.any():
        name = pooled.loc[doubled, "tile_id"].iloc[0]
        raise BadArtifact(f"{parts[0][2]}: tile '{name}' is in two folds of one seed: use the parts of one plan")
    ordered = pd.concat([rows for _, _, rows in blocks(pooled)])
    return ordered[[*COLUMNS, *PART_COLUMNS]].to_csv(index=False, lineterminator="\n")
