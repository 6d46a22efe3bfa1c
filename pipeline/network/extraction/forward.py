"""Run an engine over tiles, batch by batch, from any row on."""

import collections
from collections.abc import Iterator

import numpy as np
import torch

from pipeline.errors import PipelineError
from pipeline.network.batches import Batch, load_batches
from pipeline.network.engines import Engine
from pipeline.network.tile_files import TileSource


def embed_batches(
    engine: Engine, tiles: TileSource, *, first: int, workers: int
) -> Iterator[tuple[Batch, np.ndarray, np.ndarray]]:
    """Yield (tiles, features (B, D) float32, logits (B, K) float32) in row order, from row `first` on.

    Rows of tiles that could not be read are zero.

    Args:
        engine: the network, ready to run.
        tiles: all tiles of the run.
        first: first row, a multiple of the engine's batch.
        workers: decoding processes.

    Raises:
        PipelineError: the network gives a number that is not finite; names the tile.
    """
    rows = range(first, len(tiles))
    batches = [rows[start : start + engine.batch] for start in range(0, len(rows), engine.batch)]
    started: collections.deque[Batch] = collections.deque()

    def pixels() -> Iterator[torch.Tensor]:
        for loaded in load_batches(tiles, batches, workers=workers):
            started.append(loaded)  # an engine may take the next batch before it returns the rows of this one
            yield loaded.pixels

    for features, logits in engine.run(pixels()):
        loaded = started.popleft()
        bad = np.array([problem != "" for problem in loaded.problems])
        features[bad], logits[bad] = 0, 0
        broken = ~(np.isfinite(features).all(axis=1) & np.isfinite(logits).all(axis=1))
        if broken.any():
            row = loaded.rows[int(broken.argmax())]
            raise PipelineError(
                f"{tiles.name(row)}: its embedding is not finite: the model is broken (train it again) or "
                "the precision too low (--embed-precision fp32)"
            )
        yield loaded, features, logits
