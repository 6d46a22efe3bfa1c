"""Read rows that do not fit into memory: block by block, or a sample at once.

Standardisation, the final fit and its scores use the blocks. Searches, neighbours and the borders of bins use a
stratified sample.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from pipeline.heads.base import Head, Rows, Softmax, subsample
from pipeline.storage.embeddings.feature_rows import JoinedFeatures, StoredFeatures
from pipeline.storage.embeddings.relative_features import RelativeFeatures


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamedRows(Rows):
    """Rows whose features stay in their file. Labels, logits and groups are in memory."""

    features: StoredFeatures | JoinedFeatures | RelativeFeatures  # type: ignore[assignment]
    block_rows: int
    """Rows of a block."""

    sample_rows: int
    """Most rows of a sample."""

    cache: Path
    """Folder for intermediate results that do not fit into memory; it is removed at the end of the command."""

    def blocks(self) -> Iterator[tuple[slice, Rows]]:
        """Yield all rows in order, `block_rows` at once, each block with its slice."""
        start = 0
        for features in self.features.blocks(self.block_rows):
            place = slice(start, start + len(features))
            own = self.logits[place], self.y[place], self.groups[place]
            yield place, Rows(features, *own, widths=self.widths, n_classes=self.n_classes)
            start = place.stop

    def read(self) -> Rows:
        """Return the rows with their features in memory."""
        return Rows(self.features.read(), self.logits, self.y, self.groups, self.widths, self.n_classes)

    def sample(self, *, seed: int) -> Rows:
        """Return a stratified sample in memory; all rows if they are not more."""
        return self.take(subsample(self.y, self.sample_rows, seed=seed)).read()


def sampled(rows: Mapping[str, Rows], *, seed: int) -> dict[str, Rows]:
    """Return the train and val rows as they are, or a sample of streamed rows."""
    return {
        name: own.sample(seed=seed) if isinstance(own, StreamedRows) else own
        for name, own in rows.items()
        if name in ("train", "val")
    }


def in_memory(rows: Rows) -> Rows:
    """Return rows with their features in memory."""
    return rows.read() if isinstance(rows, StreamedRows) else rows


def scores_of(head: Head, rows: Rows) -> np.ndarray:
    """Return the scores (N, K) of a head, for rows in memory or streamed."""
    if not isinstance(rows, StreamedRows) or isinstance(head, Softmax):
        return head.scores(rows)
    scores = np.empty((len(rows.y), rows.n_classes))
    for place, block in rows.blocks():
        scores[place] = head.scores(block)
    return scores
