"""Estimate the statistics of a network's norms on training tiles before it is validated and saved.

During training the statistics are a running mean over steps, of weights that have changed since. For a mean of weights
they are of other weights altogether. Wu and Johnson 2021, "Rethinking 'Batch' in BatchNorm", section 3 ("precise"
batch normalisation); Izmailov et al. 2018, "Averaging weights leads to wider optima", section 3.2.
"""

import numpy as np
import torch
from torch import nn

from pipeline.network.batches import to_device
from pipeline.network.training.pixel_cache import CachedTiles, StreamedTiles, in_step
from pipeline.network.training.step import EVAL_BATCH, TrainStep

DRAW = 2**32 - 1
"""Number, next to the seed, of the draw of tiles; no epoch has it, whose order is drawn in the same way."""


def drawn_batches(n_tiles: int, n_drawn: int, *, seed: int) -> list[np.ndarray]:
    """Return the row numbers of each batch: `n_drawn` tiles or all, the same ones for a seed.

    Batches are of nearly equal size, so that none has a single tile, which has no spread.
    """
    rows = np.random.default_rng([seed, DRAW]).permutation(n_tiles)[:n_drawn]
    return np.array_split(rows, -(-len(rows) // EVAL_BATCH))


@torch.no_grad()
def estimate_norms(train_step: TrainStep, pixels: CachedTiles | StreamedTiles, n_tiles: int) -> None:
    """Set the statistics of the validated network's norms to their mean over batches of training tiles.

    The tiles are not augmented and have their full side, as in validation. Processes share each batch.

    Args:
        train_step: network, recipe (number of tiles), seed and processes.
        pixels: source of the training tiles.
        n_tiles: number of training tiles.

    Raises:
        WorkerLost: a process lost a worker; the statistics are to be estimated again.
    """
    network, ranks = train_step.eval_network, train_step.ranks
    batches = drawn_batches(n_tiles, train_step.recipe.norm_tiles, seed=train_step.seed)
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d | nn.SyncBatchNorm)]
    former = [(layer.momentum, layer.get_buffer("num_batches_tracked").clone()) for layer in norms]
    shares = [rows[ranks.share(len(rows)).start : ranks.share(len(rows)).stop] for rows in batches]
    network.train()
    try:
        for k, batch in enumerate(in_step(pixels.batches(shares), ranks.raise_lost)):
            for layer in norms:
                layer.momentum = 1 / (k + 1)  # the plain mean over the batches, whatever was before
            train_step.scores(to_device(batch, train_step.device), network)
    finally:
        for layer, (momentum, count) in zip(norms, former, strict=True):
            layer.momentum = momentum
            layer.get_buffer("num_batches_tracked").copy_(count)  # a repetition after a stop leaves the same state
