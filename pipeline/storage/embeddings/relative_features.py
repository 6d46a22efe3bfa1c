"""Add to each feature its difference from the mean over the tiles of the same group (slide, patient, source).

The mean needs no labels, but the other tiles of the group: predictions are transductive. A group of n tiles is shrunk
to the training mean with the weight n / (n + 5), so that a single tile keeps most of its difference from the training
tiles. A group that holds one class only loses the difference between that class and others.
"""

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np
from scipy import sparse

from pipeline.storage.embeddings.feature_rows import StoredFeatures

SHRINK = 5
"""Tiles at which a group's own mean and the training mean have the same weight."""


def sums_of(blocks: Iterable[np.ndarray], code: np.ndarray, n_groups: int) -> np.ndarray:
    """Return the sums (G, D) float64 of features over the rows of each group.

    Args:
        blocks: of (n, D) rows, M in all.
        code: (M,) number of each row's group.
        n_groups: G.
    """
    sums, start = np.zeros((n_groups, 0)), 0
    for block in blocks:
        sums = sums if sums.shape[1] else np.zeros((n_groups, block.shape[1]))
        own = code[start : start + len(block)]
        members = sparse.csr_matrix((np.ones(len(own)), (own, np.arange(len(own)))), (n_groups, len(own)))
        sums += members @ block.astype(np.float64)
        start += len(block)
    return sums


def centres(sums: np.ndarray, counts: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return the mean of each group (G, D) float32, shrunk to the training mean.

    Args:
        sums: (G, D) of the features of each group.
        counts: (G,) tiles of each group.
        mean: (D,) over the training tiles.
    """
    found: np.ndarray = (sums + SHRINK * mean) / (counts + SHRINK)[:, None]
    return found.astype(np.float32)


def relative(features: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Return features (N, D) next to their differences from a centre (D,) or (N, D): (N, 2 D) float32."""
    return np.hstack([features, features - centre]).astype(np.float32, copy=False)


def group_codes(groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of each row's group (M,), and the rows of each group (G,)."""
    _, code, counts = np.unique(groups, return_inverse=True, return_counts=True)
    return code, counts


@dataclasses.dataclass(frozen=True)
class RelativeFeatures:
    """Stored rows next to their differences from the centres of their groups; used like `StoredFeatures`."""

    stored: StoredFeatures
    centres: np.ndarray
    """(G, D) float32."""

    code: np.ndarray
    """(M,) number of each row's group."""

    @property
    def width(self) -> int:
        """2 D."""
        return 2 * self.stored.width

    @property
    def shape(self) -> tuple[int, int]:
        """(M, 2 D)."""
        return len(self), self.width

    def __len__(self) -> int:
        """Return M."""
        return len(self.code)

    def __getitem__(self, chosen: np.ndarray | slice) -> "RelativeFeatures":
        """Return the rows that an index, mask or slice chooses; nothing is read."""
        return RelativeFeatures(self.stored[chosen], self.centres, self.code[chosen])

    def read(self) -> np.ndarray:
        """Return all of them, (M, 2 D) float32."""
        return relative(self.stored.read(), self.centres[self.code])

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        """Yield them in order, `size` rows (size, 2 D) float32 at once."""
        start = 0
        for block in self.stored.blocks(size):
            yield relative(block, self.centres[self.code[start : start + len(block)]])
            start += len(block)
