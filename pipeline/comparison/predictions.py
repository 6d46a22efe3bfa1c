"""predictions.csv -> arrays: the same tiles, in the same order, for every head.

Columns: tile_id, group, split, label, head, predicted and one `p_<class>` for each class, in class order.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.errors import BadArtifact, BadInput
from pipeline.evaluation.arrays import FloatArray, IntArray, as_probabilities
from pipeline.storage import artifacts
from pipeline.tiles.split import SPLITS

SCHEMA = "predictions/1.0"
COLUMNS = ("tile_id", "group", "split", "label", "head", "predicted")
TILE_COLUMNS = ["tile_id", "group", "split", "label"]


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What every head says about every tile."""

    classes: list[str]
    """K class names in the order of their codes."""

    heads: list[str]
    """Names of the heads in the order of the file."""

    tiles: pd.DataFrame
    """One row per tile: tile_id, group ("" = not known), split, label; index 0..N-1."""

    y: IntArray
    """(N,) true class."""

    p: Mapping[str, FloatArray]
    """Head -> (N, K) calibrated probabilities."""

    predicted: Mapping[str, IntArray]
    """Head -> (N,) predicted class."""

    record: Mapping[str, Any]
    """The record of predictions.csv."""

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
        BadArtifact: missing, damaged, or columns that the schema does not know.
        StaleInput: it, or something it was made from, was made from files that have changed since.
        BadInput: its rows contradict each other, or none is a test row.
    """
    record = artifacts.check_artifact(path, schema=SCHEMA)
    if not force:
        _check_chain(path, record)
    text_columns = dict.fromkeys(COLUMNS, str)
    table = pd.read_csv(path, dtype=text_columns, keep_default_na=False)
    classes = [name[2:] for name in table.columns[len(COLUMNS) :]]
    expected = [*COLUMNS, *(f"p_{name}" for name in classes)]
    if list(table.columns) != expected or not classes:
        raise BadArtifact(f"{path}: columns {list(table.columns)}, expected {expected}: run fit_heads again")
    for column, known in (("split", SPLITS), ("label", classes), ("predicted", classes)):
        strange = table.loc[~table[column].isin(known), column]
        if len(strange):
            raise BadInput(f"{path}: {column} '{strange.iloc[0]}' is not one of {', '.join(known)}")
    heads = list(dict.fromkeys(table["head"]))
    if not (table["split"] == "test").any():
        raise BadInput(f"{path}: no test rows, so there is nothing to compare on: make the split again (prepare)")
    by_head = {head: rows.set_index("tile_id", drop=False) for head, rows in table.groupby("head", sort=False)}
    tiles = by_head[heads[0]][TILE_COLUMNS]
    codes = {name: code for code, name in enumerate(classes)}
    p: dict[str, FloatArray] = {}
    predicted: dict[str, IntArray] = {}
    for head in heads:
        rows = by_head[head]
        if rows.index.has_duplicates or len(rows) != len(tiles) or not rows.index.isin(tiles.index).all():
            raise BadInput(f"{path}: head '{head}' does not stand once for each tile of '{heads[0]}'")
        rows = rows.loc[tiles.index]
        if not rows[TILE_COLUMNS].equals(tiles):
            raise BadInput(f"{path}: group, split or label of a tile differ between '{heads[0]}' and '{head}'")
        try:
            p[head] = as_probabilities(rows[expected[len(COLUMNS) :]].to_numpy(dtype=np.float64))
        except ValueError as error:
            raise BadInput(f"{path}: head '{head}': {error}") from None
        predicted[head] = rows["predicted"].map(codes).to_numpy(dtype=np.int64)
    return Predictions(
        classes=classes,
        heads=heads,
        tiles=tiles.reset_index(drop=True),
        y=tiles["label"].map(codes).to_numpy(dtype=np.int64),
        p=p,
        predicted=predicted,
        record=record,
    )


def _check_chain(artifact: Path, record: Mapping[str, Any]) -> None:
    """Check an artefact against its inputs, and these against theirs, as far as they still stand there.

    A model trained anew leaves embeddings.h5, and so predictions.csv, as they were: only the whole chain shows it.
    """
    artifacts.check_fresh(artifact, record, stage=str(record["stage"]))
    for name in record["inputs"]:
        path = artifact.parent / name
        if path.is_file() and artifacts.record_path(path).is_file():
            _check_chain(path, artifacts.read_record(path))
