"""Predict tiles with saved heads: the network embeds batch by batch, the heads predict block by block."""

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.errors import BadInput
from pipeline.heads.base import Rows
from pipeline.heads.saved import SavedHeads
from pipeline.inference.embeddings import joined
from pipeline.network.engines import Engine
from pipeline.network.extraction.forward import embed_batches
from pipeline.network.tile_files import TileSource
from pipeline.runtime.progress import progress
from pipeline.runtime.signals import StopRequest
from pipeline.storage.embeddings.relative_features import group_codes, sums_of
from pipeline.storage.predictions.csv_table import HeadOutput

BLOCK_ROWS = 1024
"""Tiles whose features are in memory at once."""


def predict_tiles(
    saved: SavedHeads,
    engine: Engine,
    tiles: TileSource,
    *,
    workers: int,
    max_bad: float,
    label: str,
    groups: Sequence[str] | None = None,
) -> tuple[dict[str, HeadOutput], dict[int, str]]:
    """Return each head's output for N tiles, and row -> problem of unreadable tiles, whose output has no meaning.

    Where features are relative to groups, all embeddings are kept until the last tile is embedded.

    Args:
        saved: the heads.
        engine: the network that the heads were fitted on, ready to run.
        tiles: N tiles.
        workers: decoding processes.
        max_bad: largest share of tiles that cannot be read.
        label: of the progress bar.
        groups: of each tile, where features are relative to groups; None: all tiles are one group.

    Raises:
        BadInput: too many tiles cannot be read; names the first.
        Interrupted: SIGINT or SIGTERM; nothing is kept.
    """
    blocks: list[dict[str, HeadOutput]] = []
    skipped: dict[int, str] = {}
    features: list[np.ndarray] = []
    logits: list[np.ndarray] = []

    def predict_block() -> None:
        n = sum(map(len, logits))
        rows = Rows(np.concatenate(features), np.concatenate(logits), np.full(n, -1), n_classes=len(saved.classes))
        blocks.append(saved.predict(rows, _centre_of_groups(saved, rows.features, groups, skipped)))
        features.clear()
        logits.clear()

    with StopRequest() as stop, progress(len(tiles), unit="tile", label=label) as bar:
        for batch, batch_features, batch_logits in embed_batches(engine, tiles, first=0, workers=workers):
            # the precision that heads were fitted on
            features.append(batch_features.astype(saved.dtype).astype(np.float32))
            logits.append(batch_logits)
            skipped |= {row: text for row, text in zip(batch.rows, batch.problems, strict=True) if text}
            if len(skipped) > max_bad * len(tiles):
                raise BadInput(
                    f"{tiles.place}: {len(skipped)} of {len(tiles)} tiles or more cannot be used, above --max-bad "
                    f"{max_bad:g}; the first: {skipped[min(skipped)]}"
                )
            bar.update(len(batch.rows))
            if stop.signum:
                raise stop.interrupted("nothing was written")
            if saved.mean is None and sum(map(len, logits)) >= BLOCK_ROWS:
                predict_block()
    if logits:
        predict_block()
    return joined(blocks, saved), skipped


def _centre_of_groups(
    saved: SavedHeads, features: np.ndarray, groups: Sequence[str] | None, skipped: Mapping[int, str]
) -> np.ndarray | None:
    """Return the centre (N, D) of each tile's group, without tiles that cannot be read; None: heads do not use it."""
    if saved.mean is None:
        return None
    readable = np.ones(len(features))
    readable[list(skipped)] = 0
    code, _ = group_codes(np.array(groups if groups is not None else [""] * len(features)))
    counts = np.bincount(code, weights=readable)
    found = saved.centre_of(sums_of([features * readable[:, None]], code, len(counts)), counts)
    return None if found is None else found[code]
