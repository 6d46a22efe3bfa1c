"""Predict tiles with saved heads: the network embeds batch by batch, the heads predict block by block."""

from collections.abc import Callable

import numpy as np

from pipeline.errors import BadInput
from pipeline.heads.base import Rows
from pipeline.heads.saved import SavedHeads
from pipeline.inference.embeddings import joined
from pipeline.network.batches import TileSource
from pipeline.network.engines import Engine
from pipeline.network.extraction.forward import embed_batches
from pipeline.runtime.signals import StopRequest
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
    stop: StopRequest,
    lost: str,
    advance: Callable[[int], object],
) -> tuple[dict[str, HeadOutput], dict[int, str]]:
    """Return each head's output for N tiles, and row -> problem of unreadable tiles, whose output has no meaning.

    Args:
        saved: the heads.
        engine: the network that the heads were fitted on, ready to run.
        tiles: N tiles.
        workers: decoding processes.
        max_bad: largest share of tiles that cannot be read.
        stop: checked after every batch.
        lost: what a stop loses, for the message.
        advance: called with the number of tiles of each batch.

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
        blocks.append(saved.predict(Rows(np.concatenate(features), np.concatenate(logits), np.full(n, -1))))
        features.clear()
        logits.clear()

    for batch, batch_features, batch_logits in embed_batches(engine, tiles, first=0, workers=workers):
        features.append(
            batch_features.astype(saved.dtype).astype(np.float32)
        )  # the precision that heads were fitted on
        logits.append(batch_logits)
        skipped |= {row: text for row, text in zip(batch.rows, batch.problems, strict=True) if text}
        advance(len(batch.rows))
        if len(skipped) > max_bad * len(tiles):
            raise BadInput(
                f"{tiles.place}: {len(skipped)} of {len(tiles)} tiles or more cannot be used, above --max-bad "
                f"{max_bad:g}; the first: {skipped[min(skipped)]}"
            )
        if stop.signum:
            raise stop.interrupted(lost)
        if sum(map(len, logits)) >= BLOCK_ROWS:
            predict_block()
    if logits:
        predict_block()
    return joined(blocks, saved), skipped
