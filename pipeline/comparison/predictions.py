"""Hold predictions as arrays: the same tiles, in the same order, for every head."""

import dataclasses
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.evaluation import metrics
from pipeline.evaluation.selective import SelectiveCurve, selective_curve
from pipeline.evaluation.validate import FloatArray, IntArray, ProbabilityArray
from pipeline.names import BASELINES, MEANS
from pipeline.storage.predictions.columns import hash_names

MANY_ROWS = 100_000
"""With more rows, the tile bootstrap draws blocks of tiles, and sections about single tiles use so large a sample."""

BLOCKS = 10_000
"""Blocks that the tiles are then dealt into. The variance between M blocks is that between tiles with a relative error
of sqrt(2 / M): intervals have their width to 0.7 %, and 2000 draws leave 3 % open."""


class Sample(NamedTuple):
    """Rows for sections about single tiles."""

    rows: IntArray
    note: str
    """What a caption adds: how they were chosen; empty if they are all rows."""


@dataclasses.dataclass(frozen=True)
class Predictions:
    """The predictions of every head for every tile."""

    classes: list[str]
    """K class names in the order of their codes."""

    heads: list[str]
    """Names of the heads in the order of the file."""

    tiles: pd.DataFrame
    """One row per tile: tile_id, group ("" = not known), split, label, seed, fold; index 0..N-1.

    A plan with several seeds has one row per tile and seed; in a single split, seed and fold are 0.
    """

    y: IntArray
    """(N,) true class."""

    p: Mapping[str, ProbabilityArray]
    """Head -> (N, K) calibrated probabilities; those of a Parquet file are read when they are used, head by head."""

    predicted: Mapping[str, IntArray]
    """Head -> (N,) predicted class."""

    record: Mapping[str, Any]
    """The record of predictions.csv."""

    @cached_property
    def group_code(self) -> tuple[IntArray, list[str]]:
        """(N,) number of each tile's group, and the names of the groups in their order."""
        groups = pd.Categorical(self.tiles["group"])
        return groups.codes, groups.categories.tolist()

    @cached_property
    def tile_code(self) -> IntArray:
        """(N,) number of each row's tile: equal for the rows of a tile under several seeds."""
        names = self.name_hash if self.has_many_rows else self.tiles["tile_id"].to_numpy(dtype=str)
        return np.unique(names, return_inverse=True)[1]

    @cached_property
    def name_hash(self) -> npt.NDArray[np.uint64]:
        """(N,) hash of each tile's name, by which rows of two tables are matched."""
        return hash_names(self.tiles["tile_id"])

    @cached_property
    def row_key(self) -> npt.NDArray[np.uint64]:
        """(N,) key of each row: its tile's name and its seed."""
        return row_keys(self.name_hash, self.tiles["seed"].to_numpy())

    def places(self, keys: npt.NDArray[np.uint64]) -> IntArray:
        """Return the row (M,) of each key, -1 for an unknown one."""
        order = np.argsort(self.row_key, kind="stable")
        at = np.searchsorted(self.row_key, keys, sorter=order)
        found = order[np.minimum(at, len(order) - 1)]
        return np.where(self.row_key[found] == keys, found, -1)

    @property
    def has_many_rows(self) -> bool:
        """Whether there are more than `MANY_ROWS` rows."""
        return len(self.y) > MANY_ROWS

    @property
    def tile_unit(self) -> Literal["tile", "block"]:
        """What the bootstrap draws where it does not draw groups."""
        return "block" if self.has_many_rows else "tile"

    @property
    def tile_units(self) -> IntArray:
        """(N,) number of what the bootstrap draws where it does not draw groups: of the tile, or of its block."""
        return (self.name_hash % np.uint64(BLOCKS)).astype(np.int16) if self.has_many_rows else self.tile_code

    def n_tiles(self, rows: IntArray) -> int:
        """Return the number of tiles of some rows."""
        return len(np.unique(self.tile_code[rows]))

    def probabilities(self, head: str, rows: IntArray) -> FloatArray:
        """Return (M, K) probabilities of a head for some rows."""
        return self.p[head][rows].astype(np.float64)

    def is_fitted_on(self, head: str, split: str) -> bool:
        """Return whether a head was fitted on the rows of a split of held-out tiles: its scores there mean nothing."""
        return split == "val" and head != "softmax" and self.details.get("fit_on") == "heldout"

    def named_probability(self, head: str, rows: IntArray) -> FloatArray:
        """Return (M,) the probability of the class that a head predicts."""
        return self.p[head][rows, self.predicted[head][rows]].astype(np.float64)

    def reliability(self, head: str, split: str) -> dict[str, FloatArray]:
        """Return the reliability bins of a head on the rows of a split."""
        rows = self.rows(split)
        return metrics.reliability_bins(self.y[rows], self.p[head][rows])

    def selective(self, head: str) -> SelectiveCurve:
        """Return the test accuracy of a head against the share of tiles that are not referred."""
        rows = self.rows("test")
        return selective_curve(self.y[rows], self.p[head][rows], self.predicted[head][rows])

    def sample(self, split: str) -> Sample:
        """Return the rows of a split for sections about single tiles: all rows, or about `MANY_ROWS`.

        A hash of a tile's name decides, so that all rows of a tile are taken or none.
        """
        rows = self.rows(split)
        n_blocks = -(-BLOCKS * MANY_ROWS // max(len(rows), 1))
        if n_blocks >= BLOCKS:
            return Sample(rows, "")
        chosen = rows[self.tile_units[rows] < n_blocks]
        note = f"The table is large: here a sample of {len(chosen)} of the {len(rows)} {split} rows, by a hash of the "
        return Sample(chosen, note + "tiles' names. ")

    @property
    def main_heads(self) -> list[str]:
        """The heads that the comparison is about."""
        return [head for head in self.heads if head not in BASELINES]

    @property
    def single_heads(self) -> list[str]:
        """The main heads that are no mean of others."""
        return [head for head in self.main_heads if head not in MEANS]

    @property
    def baselines(self) -> list[str]:
        """The baselines under them."""
        return [head for head in self.heads if head in BASELINES]

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
        return len(np.unique(self.group_code[0][self.rows(split)]))


def row_keys(name_hash: npt.NDArray[np.uint64], seed: IntArray) -> npt.NDArray[np.uint64]:
    """Return (N,) keys of rows: a hash of the tile's name, shifted by the seed."""
    return name_hash + seed.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
