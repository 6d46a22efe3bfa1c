"""Lose a worker in the second of two processes of torchrun, while norms are estimated and while tiles are validated.

Each process writes the errors that it gets to <folder>/<rank>.txt, and whether it can still exchange texts.
"""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from pipeline.errors import WorkerLost
from pipeline.network.distributed import Ranks, process_group
from pipeline.network.preprocess import Preprocess
from pipeline.network.resnet import build_network
from pipeline.network.training.pixel_cache import CachedTiles
from pipeline.network.training.precise_norms import estimate_norms
from pipeline.network.training.recipe import RECIPES
from pipeline.network.training.step import TrainStep, validate

SIDE, N_TRAIN, N_VAL = 32, 150, 129
"""The second process has 65 of 129 tiles: a batch more to validate than the first."""


class LosingTiles(CachedTiles):
    """Lose a worker of the second process before its batch number `last`."""

    last = 1

    def batches(self, steps: Sequence[np.ndarray]) -> Iterator[torch.Tensor]:
        """See `CachedTiles`."""
        for k, batch in enumerate(super().batches(steps)):
            if k == self.last and Ranks().rank:
                raise WorkerLost("a worker process ended")
            yield batch


def main(folder: Path) -> None:
    """Work in this process."""
    torch.set_num_threads(1)
    with process_group():
        ranks, found = Ranks(), []
        recipe = dataclasses.replace(RECIPES["tutorial"], tile_px=SIDE, norm_tiles=N_TRAIN)
        network = build_network("resnet10", n_classes=2, seed=0)
        step = TrainStep(network, recipe=recipe, preprocess=Preprocess(SIDE), precision="fp32", seed=3, ranks=ranks)
        pixels = LosingTiles(torch.zeros((N_TRAIN, SIDE, SIDE, 3), dtype=torch.uint8))
        for work in (
            lambda: estimate_norms(step, pixels, N_TRAIN),
            lambda: validate(step, pixels, np.zeros(N_VAL, np.int64)),
        ):
            try:
                work()
                found.append("no error")
            except WorkerLost as error:
                found.append(str(error))
            found.append(ranks.broadcast_from_first("still together"))
        (folder / f"{ranks.rank}.txt").write_text("\n".join(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
