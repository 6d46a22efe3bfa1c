"""predictions.parquet -> what the report asks of it, without holding a row's probabilities or a name as an object.

Held of each row: codes of its class, group, split, seed and fold, a hash and the text of its name, and a code for each
head's answer; 100 bytes, whatever the number of classes. Probabilities are read block by block, head by head:
`evaluation.tally` keeps what they add up to. What looks at single rows looks at whole tiles of a sample.
"""

import dataclasses
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.comparison.predictions import Predictions
from pipeline.errors import BadInput
from pipeline.evaluation.selective import SelectiveCurve
from pipeline.evaluation.streaming_metrics import Tally
from pipeline.evaluation.validate import FloatArray, IntArray
from pipeline.names import SPLITS
from pipeline.storage.predictions.csv_table import open_large
from pipeline.storage.predictions.parquet_table import PART_COLUMNS, LargePredictions

BLOCKS = 10_000
"""What tiles are dealt into where the bootstrap would draw single ones. The variance between M blocks is that between
tiles with a relative error of sqrt(2 / M), so that intervals have their width to 0.7 %; 2000 draws leave 3 % open."""

SAMPLE_ROWS = 100_000
"""Rows of a split that are looked at one by one."""


@dataclasses.dataclass(frozen=True)
class Large(Predictions):
    """What every head says about every tile of a large table; `p` is empty, see `probabilities`."""

    file: LargePredictions
    hashes: npt.NDArray[np.uint64]
    """(N,) of the tiles' names."""

    groups: tuple[IntArray, list[str]]
    """(N,) number of each tile's group, and the names in their order."""

    tallies: dict[str, dict[str, Tally]] = dataclasses.field(default_factory=dict)
    """Head -> split -> what its rows add up to; filled when first asked for."""

    tile_unit = "block"
    is_large = True

    @cached_property
    def group_code(self) -> tuple[IntArray, list[str]]:
        """(N,) number of each tile's group, and the names of the groups in their order."""
        return self.groups

    @cached_property
    def name_hash(self) -> npt.NDArray[np.uint64]:
        """(N,) hash of each tile's name, by which rows of two tables are matched."""
        return self.hashes

    @cached_property
    def tile_code(self) -> IntArray:
        """(N,) number of each row's tile: equal for the rows of a tile under several seeds."""
        if not self.tiles["seed"].to_numpy().any():
            return np.arange(len(self.y))
        return np.unique(self.hashes, return_inverse=True)[1]

    @cached_property
    def tile_units(self) -> IntArray:
        """(N,) number of the block that each tile is dealt into."""
        return (self.hashes % np.uint64(BLOCKS)).astype(np.int16)

    def probabilities(self, head: str, rows: IntArray) -> FloatArray:
        """Return (M, K) what a head says of some rows; the parts of the file that hold them are read."""
        return self.file.probabilities_of(head, rows)

    def named_probability(self, head: str, rows: IntArray) -> FloatArray:
        """Return (M,) the probability of the class that a head names."""
        found = np.empty(len(self.y), np.float32)
        for start, p in self.file.probabilities(head):
            named = self.predicted[head][start : start + len(p)]
            found[start : start + len(p)] = p[np.arange(len(p)), named]
        return found[rows].astype(np.float64)

    def scored(
        self, head: str, split: str, *, units: IntArray, n_draws: int, seed: int, level: float
    ) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
        """Return the metrics of a head on the rows of a split, and their intervals; see `Predictions.scored`.

        The units must be those of `choose_resampling`.
        """
        tally = self._tallied(head, units)[split]
        return tally.scalar_metrics(), tally.intervals(n_draws=n_draws, seed=seed, level=level)

    def _tallied(self, head: str, units: IntArray | None = None) -> dict[str, Tally]:
        """Return the tallies of a head by split, made in one pass over its lines."""
        if head not in self.tallies:
            unit = np.zeros(len(self.y), np.int8) if units is None else units
            n_units, codes = int(unit.max()) + 1, self.tiles["split"].cat.codes.to_numpy()
            found = {name: Tally(n_classes=len(self.classes), n_units=n_units) for name in SPLITS}
            for start, p in self.file.probabilities(head):
                part = slice(start, start + len(p))
                for code, name in enumerate(SPLITS):
                    own = np.flatnonzero(codes[part] == code)
                    if len(own):
                        rows = start + own
                        found[name].add(self.y[rows], p[own], self.predicted[head][rows], unit=unit[rows])
            self.tallies[head] = found
        return self.tallies[head]

    def reliability(self, head: str, split: str) -> dict[str, FloatArray]:
        """Return the reliability bins of a head on the rows of a split."""
        return self._tallied(head)[split].reliability_bins()

    def selective(self, head: str) -> SelectiveCurve:
        """Return the test accuracy of a head against the share of tiles that it answers."""
        return self._tallied(head)["test"].selective_curve()

    def sample(self, split: str) -> IntArray:
        """Return about `SAMPLE_ROWS` rows of a split: all rows of the tiles in the first blocks."""
        rows = self.rows(split)
        n_blocks = -(-BLOCKS * SAMPLE_ROWS // max(len(rows), 1))
        return rows[self.tile_units[rows] < n_blocks]

    @property
    def sampled(self) -> str:
        """Said in the caption of what rests on `sample`; empty where that is all rows."""
        n, n_all = len(self.sample("test")), len(self.rows("test"))
        if n == n_all:
            return ""
        return f"The table is large: here a sample of {n} of the {n_all} test rows, by a hash of the tiles' names. "

    @property
    def approximated(self) -> str:
        """Said in the caption of the main table: how large tables are scored."""
        error = max(self._tallied(head)["test"].auroc_error for head in self.main_heads or self.heads)
        return (
            " The table is large: AUROC is computed in 8192 steps of log odds, and is that of single rows to within "
            f"{max(error, 1e-6):.1g}; so are the curves of referral. All other values are exact."
        )


def read_large(path: Path, record: Mapping[str, Any]) -> Large:
    """Read predictions.parquet after checking all its lines; its record is the caller's to check.

    Raises:
        BadArtifact: not what the schema says.
        BadInput: there are no test rows.
        PipelineError: pyarrow is not installed.
    """
    file = open_large(path)
    file.check()
    first, classes = file.heads[0], {name: code for code, name in enumerate(file.classes)}
    split = file.codes(first, "split", {name: code for code, name in enumerate(SPLITS)})[0]
    if not (split == SPLITS.index("test")).any():
        raise BadInput(f"{path}: no test rows, so there is nothing to compare on: make the split again (prepare)")
    names, hashes = file.names()
    y = file.codes(first, "label", classes)[0]
    group, group_names = file.codes(first, "group")
    tiles = pd.DataFrame(
        {
            "tile_id": pd.Series(pd.arrays.ArrowExtensionArray(names)),
            "group": pd.Categorical.from_codes(group, pd.Index(group_names)),
            "split": pd.Categorical.from_codes(split, pd.Index(SPLITS)),
            "label": pd.Categorical.from_codes(y, pd.Index(file.classes)),
            **{name: file.numbers(first, name) for name in PART_COLUMNS},
        }
    )
    return Large(
        classes=file.classes,
        heads=file.heads,
        tiles=tiles,
        y=y,
        p={},
        predicted={head: file.codes(head, "predicted", classes)[0] for head in file.heads},
        record=record,
        file=file,
        hashes=hashes,
        groups=(group, group_names),
    )
