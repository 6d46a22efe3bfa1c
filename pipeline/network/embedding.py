"""One pass of a trained network over tiles: features and logits, batch by batch, resumable."""

from collections.abc import Iterator

import numpy as np
import torch

from pipeline.errors import PipelineError
from pipeline.network.batches import Batch, TileFiles, load_batches, normalise
from pipeline.network.precision import Precision, autocast
from pipeline.network.resnet import features, logits
from pipeline.storage.models import Model


def embed_batches(
    model: Model, tiles: TileFiles, *, first: int, batch: int, precision: Precision, workers: int
) -> Iterator[tuple[Batch, np.ndarray, np.ndarray]]:
    """Yield (tiles, features (B, D) float32, logits (B, K) float32) in row order, from row `first` on.

    Rows of tiles that could not be read are zero. The network sees every batch at its full size, and the last one
    filled up with empty tiles: a row does not depend on how many tiles come with it beyond `batch`.

    Args:
        model: its network on the device to use.
        tiles: all tiles of the run.
        first: first row, a multiple of `batch`.
        batch: tiles per forward pass.
        precision: fp32 or bf16.
        workers: decoding processes.

    Raises:
        PipelineError: the network gives a number that is not finite; names the tile.
    """
    network, preprocess = model.network, model.preprocess
    device = next(network.parameters()).device
    rows = range(first, len(tiles))
    batches = [rows[start : start + batch] for start in range(0, len(rows), batch)]
    for loaded in load_batches(tiles, batches, workers=workers):
        n = len(loaded.rows)
        pixels = loaded.pixels
        if n < batch:
            filled = torch.zeros(batch, *pixels.shape[1:], dtype=pixels.dtype)
            filled[:n] = pixels
            pixels = filled.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), autocast(device, precision):
            x = normalise(pixels.to(device), mean=preprocess.mean, std=preprocess.std)
            embedded = features(network, x.contiguous(memory_format=torch.channels_last))
            scores = logits(network, embedded)
        f, z = embedded[:n].float().cpu().numpy(), scores[:n].float().cpu().numpy()
        bad = np.array([problem != "" for problem in loaded.problems])
        f[bad], z[bad] = 0, 0
        broken = ~(np.isfinite(f).all(axis=1) & np.isfinite(z).all(axis=1))
        if broken.any():
            row = loaded.rows[int(broken.argmax())]
            raise PipelineError(
                f"{tiles.root / tiles.paths[row]}: its embedding is not finite: the model is broken (train it anew) or "
                "the precision too low (--embed-precision fp32)"
            )
        yield loaded, f, z
