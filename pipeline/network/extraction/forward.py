"""One pass of an engine over tiles: features and logits, batch by batch, resumable."""

import collections
from collections.abc import Iterator

import numpy as np
import torch

from pipeline.errors import PipelineError
from pipeline.network.batches import Batch, TileSource, load_batches
from pipeline.network.engines import Engine


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
    under_way: collections.deque[Batch] = collections.deque()

    def pixels() -> Iterator[torch.Tensor]:
        for loaded in load_batches(tiles, batches, workers=workers):
            under_way.append(loaded)  # an engine may take the next batch before it gives this one's rows
            yield loaded.pixels

    for f, z in engine.run(pixels()):
        loaded = under_way.popleft()
        bad = np.array([problem != "" for problem in loaded.problems])
        f[bad], z[bad] = 0, 0
        broken = ~(np.isfinite(f).all(axis=1) & np.isfinite(z).all(axis=1))
        if broken.any():
            row = loaded.rows[int(broken.argmax())]
            raise PipelineError(
                f"{tiles.name(row)}: its embedding is not finite: the model is broken (train it anew) or "
                "the precision too low (--embed-precision fp32)"
            )
        yield loaded, f, z
