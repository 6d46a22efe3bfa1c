"""predictions.csv -> arrays: the same tiles, in the same order, for every head."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.errors import BadInput
from pipeline.evaluation.arrays import FloatArray, IntArray, as_probabilities
from pipeline.heads.names import FLOORS
from pipeline.storage import predictions as stored
from pipeline.storage import records

TILE_COLUMNS = ["tile_id", "group", "split", "label", *stored.PART_COLUMNS]


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What every head says about every tile."""

    classes: list[str]
    """K class names in the order of their codes."""

    heads: list[str]
    """Names of the heads in the order of the file."""

    tiles: pd.DataFrame
    """One row per tile: tile_id, group ("" = not known), split, label, seed, fold; index 0..N-1.

    Of a plan with several seeds, one row per tile and seed; of a single split, seed and fold are 0.
    """

    y: IntArray
    """(N,) true class."""

    p: Mapping[str, FloatArray]
    """Head -> (N, K) calibrated probabilities."""

    predicted: Mapping[str, IntArray]
    """Head -> (N,) predicted class."""

    record: Mapping[str, Any]
    """The record of predictions.csv."""

    @property
    def main_heads(self) -> list[str]:
        """The heads that the comparison is about."""
        return [head for head in self.heads if head not in FLOORS]

    @property
    def floors(self) -> list[str]:
        """The floors under them."""
        return [head for head in self.heads if head in FLOORS]

    @property
    def details(self) -> Mapping[str, Any]:
        """Facts from the record: dataset, protocol, credit, calibrated_on, n_skipped."""
        return self.record["details"]

    @property
    def protocol(self) -> str:
        """How the tiles were split: random, grouped or given."""
        return str(self.details.get("protocol", "given"))

    @property
    def groups_known(self) -> bool:
        """Whether every tile names its group."""
        return bool((self.tiles["group"] != "").all())

    def rows(self, split: str) -> IntArray:
        """Return the indices of a split's tiles."""
        return np.flatnonzero(self.tiles["split"] == split)

    def n_groups(self, split: str) -> int | None:
        """Return the number of groups in a split, or None where they are not known."""
        if not self.groups_known:
            return None
        return int(self.tiles.loc[self.tiles["split"] == split, "group"].nunique())


def read_predictions(path: Path, *, force: bool = False) -> Predictions:
    """Read predictions.csv after checking it against its record and its inputs.

    Args:
        path: predictions.csv of a run.
        force: use it although an input of it has changed since.

    Raises:
        BadArtifact: missing, damaged, or not what the schema says.
        StaleInput: it, or something it was made from, was made from files that have changed since.
        BadInput: the heads disagree about a tile's group, split or label, or there are no test rows.
    """
    record = records.check_artifact(path, schema=stored.SCHEMA)
    if not force:
        records.check_fresh(path, record)
    table = stored.read_predictions(path)
    classes = stored.classes_of(table)
    if not (table["split"] == "test").any():
        raise BadInput(f"{path}: no test rows, so there is nothing to compare on: make the split again (prepare)")
    codes = {name: code for code, name in enumerate(classes)}
    heads = list(dict.fromkeys(table["head"]))
    tiles = table.loc[table["head"] == heads[0], TILE_COLUMNS].reset_index(drop=True)
    p: dict[str, FloatArray] = {}
    predicted: dict[str, IntArray] = {}
    for head in heads:
        rows = table[table["head"] == head]
        if not rows[TILE_COLUMNS].reset_index(drop=True).equals(tiles):
            raise BadInput(f"{path}: group, split or label of a tile differ between the heads: run fit_heads again")
        p[head] = as_probabilities(rows[[f"p_{name}" for name in classes]].to_numpy(dtype=np.float64))
        predicted[head] = rows["predicted"].map(codes).to_numpy(dtype=np.int64)
    return Predictions(
        classes=classes,
        heads=heads,
        tiles=tiles,
        y=tiles["label"].map(codes).to_numpy(dtype=np.int64),
        p=p,
        predicted=predicted,
        record=record,
    )
