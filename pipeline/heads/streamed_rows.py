"""Rows that do not fit into memory: their features are read block by block, or a sample of them at once.

Whatever looks at every row (a standardisation, a fit, the scores of a finished head) goes through the blocks; whatever
needs rows side by side (a search, neighbours, the bins of a histogram) takes a stratified sample.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import numpy as np

from pipeline.heads.base import Head, Rows, Softmax, subsample
from pipeline.storage.embeddings.feature_rows import StoredFeatures


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredRows(Rows):
    """Rows whose features stay in their file. Labels, logits and groups are held."""

    features: StoredFeatures  # type: ignore[assignment]
    block_rows: int
    """Rows that are held at once while all are read."""

    sample_rows: int
    """Rows of a sample at most."""

    cache: Path
    """Folder for what is too large for memory and not to be computed twice; it goes with its run."""

    def take(self, chosen: np.ndarray) -> "StoredRows":
        """Return the rows that an index or mask chooses; nothing is read."""
        return cast("StoredRows", super().take(chosen))

    def blocks(self) -> Iterator[tuple[slice, Rows]]:
        """Yield all rows in order, `block_rows` at once, each block with its place."""
        start = 0
        for features in self.features.blocks(self.block_rows):
            place = slice(start, start + len(features))
            yield place, Rows(features, self.logits[place], self.y[place], self.groups[place])
            start = place.stop

    def held(self) -> Rows:
        """Return the rows with their features in memory."""
        return Rows(self.features.read(), self.logits, self.y, self.groups)

    def sample(self, *, seed: int) -> Rows:
        """Return a stratified sample in memory; all rows if they are not more."""
        return self.take(subsample(self.y, self.sample_rows, seed=seed)).held()


def sampled(rows: Mapping[str, Rows], *, seed: int) -> dict[str, Rows]:
    """Return the train and val rows as they are, or a sample of those that do not fit into memory."""
    return {
        name: own.sample(seed=seed) if isinstance(own, StoredRows) else own
        for name, own in rows.items()
        if name in ("train", "val")
    }


def in_memory(rows: Rows) -> Rows:
    """Return rows with their features in memory, wherever they were."""
    return rows.held() if isinstance(rows, StoredRows) else rows


def scores_of(head: Head, rows: Rows) -> np.ndarray:
    """Return the scores (N, K) of a head, wherever the features are."""
    if not isinstance(rows, StoredRows) or isinstance(head, Softmax):
        return head.scores(rows)
    scores = np.empty(rows.logits.shape)
    for place, block in rows.blocks():
        scores[place] = head.scores(block)
    return scores
