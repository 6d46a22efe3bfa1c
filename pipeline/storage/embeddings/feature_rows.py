"""Read features that do not fit into memory from their HDF5 file, block by block.

The features are /features of embeddings.h5, or a feature set of baselines.h5.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import BadArtifact
from pipeline.storage.hdf5 import DatasetSpec, open_dataset, opened

SPAN = 1024
"""Rows of the file that are read at once: 8 MB of 2048 features."""

DENSE = 8
"""A span is read whole if at least one of this many rows is requested; else row by row."""

FEATURES = DatasetSpec(2, ("<f4", "<f2"))
"""Rank and types of a data set of features."""


@dataclasses.dataclass(frozen=True)
class StoredFeatures:
    """M rows of a data set (N, D); like an array it has a shape and can be indexed by rows."""

    path: Path
    """The HDF5 file."""

    schema: str
    dataset: str
    rows: np.ndarray
    """(M,) int64: row numbers in the file, in any order."""

    width: int
    """D."""

    @property
    def shape(self) -> tuple[int, int]:
        """(M, D)."""
        return len(self.rows), self.width

    def __len__(self) -> int:
        """Return M."""
        return len(self.rows)

    def __getitem__(self, chosen: np.ndarray | slice) -> "StoredFeatures":
        """Return the rows of an index, mask or slice; nothing is read."""
        return dataclasses.replace(self, rows=self.rows[chosen])

    def read(self) -> np.ndarray:
        """Return all rows, (M, D) float32.

        Raises:
            BadArtifact: the file breaks its schema, or a row is not finite.
        """
        return next(self.blocks(max(1, len(self))), np.empty((0, self.width), np.float32))

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        """Yield the rows in order, in blocks (size, D) float32.

        Raises:
            BadArtifact: the file breaks its schema, or a row is not finite.
        """
        with opened(self.path, self.schema, self._refusal) as (file, _):
            data = open_dataset(file, self.dataset, FEATURES, self._refusal)
            if data.shape[1] != self.width or len(data) <= max(self.rows, default=-1):
                raise self._refusal(f"/{self.dataset} has shape {data.shape}, a larger one is needed")
            for start in range(0, len(self), size):
                block = _taken(data, self.rows[start : start + size])
                if not np.isfinite(block).all():
                    raise self._refusal(f"a row of /{self.dataset} is not finite")
                yield block

    def _refusal(self, rule: str) -> BadArtifact:
        return BadArtifact(f"{self.path}: {rule}: make it again")


@dataclasses.dataclass(frozen=True)
class JoinedFeatures:
    """The same M rows of several data sets side by side; used like `StoredFeatures`."""

    parts: tuple[Any, ...]
    """`StoredFeatures`, or what is used like these."""

    @property
    def width(self) -> int:
        """D of all parts together."""
        return sum(part.width for part in self.parts)

    @property
    def shape(self) -> tuple[int, int]:
        """(M, D)."""
        return len(self), self.width

    def __len__(self) -> int:
        """Return M."""
        return len(self.parts[0])

    def __getitem__(self, chosen: np.ndarray | slice) -> "JoinedFeatures":
        """Return the rows that an index, mask or slice chooses; nothing is read."""
        return JoinedFeatures(tuple(part[chosen] for part in self.parts))

    def read(self) -> np.ndarray:
        """Return all of them, (M, D) float32."""
        return np.hstack([part.read() for part in self.parts])

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        """Yield them in order, `size` rows (size, D) float32 at once."""
        for blocks in zip(*(part.blocks(size) for part in self.parts), strict=True):
            yield np.hstack(blocks)


def width_of(path: Path, schema: str, dataset: str) -> int:
    """Return the number of columns of a data set of features.

    Raises:
        BadArtifact: the file breaks its schema.
    """

    def refuse(rule: str) -> BadArtifact:
        return BadArtifact(f"{path}: {rule}: make it again")

    with opened(path, schema, refuse) as (file, _):
        return int(open_dataset(file, dataset, FEATURES, refuse).shape[1])


def _taken(data: Any, rows: np.ndarray) -> np.ndarray:
    """Return rows (M,) of a data set as (M, D) float32, reading the file from the first row to the last."""
    order = np.argsort(rows, kind="stable")
    increasing = rows[order]
    found = np.empty((len(rows), data.shape[1]), np.float32)
    at = 0
    while at < len(increasing):
        end = int(np.searchsorted(increasing, increasing[at] + SPAN))
        own = increasing[at:end]
        if DENSE * len(own) > own[-1] - own[0]:
            found[order[at:end]] = data[own[0] : own[-1] + 1][own - own[0]]
        else:
            for place, row in zip(order[at:end].tolist(), own.tolist(), strict=True):
                found[place] = data[row : row + 1]
        at = end
    return found
