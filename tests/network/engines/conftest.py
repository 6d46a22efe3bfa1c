"""A tiny network as after training, and tiles that it tells apart."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.network.batches import normalise
from pipeline.network.model_file import Model
from pipeline.network.preprocess import Preprocess
from pipeline.network.resnet import build_network

PX = 32
PREPROCESS = Preprocess(size=PX, mean=(0.5, 0.4, 0.6), std=(0.2, 0.3, 0.25))


def draw_tiles(n: int, *, seed: int = 0) -> torch.Tensor:
    """Return n tiles of one colour and grain each, (n, 3, PX, PX) uint8, channels_last."""
    rng = np.random.default_rng(seed)
    base, grain = rng.integers(0, 200, (n, 1, 1, 3)), rng.integers(1, 56, (n, 1, 1, 1))
    pixels = base + rng.random((n, PX, PX, 3)) * grain
    return torch.from_numpy(pixels.astype(np.uint8)).permute(0, 3, 1, 2)


@pytest.fixture(scope="session")
def model() -> Model:
    """A resnet10 whose normalisations do much: their statistics are those of tiles, their weights are not one."""
    network = build_network("resnet10", n_classes=3, seed=3)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.copy_(0.5 + torch.rand(module.weight.shape, generator=generator))
                module.bias.copy_(0.5 * torch.randn(module.bias.shape, generator=generator))
        network.train()
        for seed in range(8):
            network(normalise(draw_tiles(16, seed=100 + seed), mean=PREPROCESS.mean, std=PREPROCESS.std))
    info = {"arch": "resnet10", "classes": ["a", "b", "c"], "preprocess": dataclasses.asdict(PREPROCESS)}
    return Model(network=network.eval(), info=info, record={})


@pytest.fixture(scope="session")
def tiles() -> torch.Tensor:
    """Eleven of them: two batches of four and one of three."""
    return draw_tiles(11)
