"""Tiles -> what heads say of them: the network embeds batch by batch, the heads answer block by block."""

from collections.abc import Callable

import numpy as np

from pipeline.errors import BadInput
from pipeline.heads.base import Rows
from pipeline.heads.saved import SavedHeads
from pipeline.network.batches import TileSource
from pipeline.network.engines import Engine
from pipeline.network.extraction.forward import embed_batches
from pipeline.runtime.signals import StopRequest
from pipeline.storage.predictions.csv_table import HeadOutput

BLOCK_ROWS = 1024
"""Tiles whose features are held at once."""


def answer_tiles(
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
    """Return what each head says of N tiles, and row -> problem of unreadable ones: their answers say nothing.

    Args:
        saved: the heads.
        engine: the network they were fitted behind, ready to run.
        tiles: N tiles.
        workers: decoding processes.
        max_bad: largest share of tiles that cannot be read.
        stop: asked after every batch.
        lost: what to say of the work if it is stopped.
        advance: called with the number of tiles of each batch.

    Raises:
        BadInput: too many tiles cannot be read; names the first.
        Interrupted: SIGINT or SIGTERM; nothing is kept.
    """
    answers: list[dict[str, HeadOutput]] = []
    skipped: dict[int, str] = {}
    features: list[np.ndarray] = []
    logits: list[np.ndarray] = []

    def answer() -> None:
        n = sum(map(len, logits))
        rows = Rows(np.concatenate(features), np.concatenate(logits), np.full(n, -1))
        answers.append(saved.predict(rows))
        features.clear()
        logits.clear()

    for batch, f, z in embed_batches(engine, tiles, first=0, workers=workers):
        # as stored: heads were fitted on features of that precision
        features.append(f.astype(saved.dtype).astype(np.float32))
        logits.append(z)
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
            answer()
    if logits:
        answer()
    merged = {
        head: HeadOutput(
            np.concatenate([block[head].predicted for block in answers]),
            np.concatenate([block[head].p for block in answers]),
        )
        for head in saved.heads
    }
    return merged, skipped
