"""The training step against a plain loop's, and the brief training that gives the bench a network."""

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from torchvision.models.resnet import ResNet

from pipeline.benchmark.config import BenchConfig, interleaved, seconds_of
from pipeline.benchmark.hardware_limits import PRECISIONS, peak_name, peaks
from pipeline.benchmark.measurement import OURS, PLAIN, Measurement, paired
from pipeline.network.batches import TileFiles, normalise
from pipeline.network.model_file import Model, Preprocess
from pipeline.network.precision import choose_precision
from pipeline.network.resnet import as_channels_last
from pipeline.network.throughput import TRAINING_PASSES, flops_per_tile
from pipeline.network.training.pixel_cache import CachedTiles
from pipeline.network.training.recipe import Recipe
from pipeline.network.training.trainer import Trainer

PLAIN_BATCH = 32
COMPILED = "ours, compiled"

WAYS = {
    "cpu": ((OURS, 32),),
    "cuda": ((OURS, 32), (COMPILED, 32), (OURS, 256), (COMPILED, 256), (OURS, 512)),
}
"""Ways of training and tiles per step, by device: on CPUs torch.compile makes training slower."""

WINDOW_S = 6.0
"""About how long one value is measured."""


def start(network: ResNet, y: np.ndarray, *, setting: BenchConfig, preprocess: Preprocess, batch: int) -> Trainer:
    """Return a training of the tutorial's recipe whose batches the caller gives; it reads and writes no file.

    Args:
        network: on the CPU; it is moved to the device and trained in place.
        y: (N,) class codes of all tiles.
        setting: device and seed.
        preprocess: of the input.
        batch: tiles per step.
    """
    as_channels_last(network, setting.device)
    nowhere = TileFiles(Path(), [""] * len(y), [""] * len(y), preprocess.size)
    return Trainer(
        network,
        train=(nowhere, y),
        val=(nowhere, y),
        recipe=Recipe(tile_px=preprocess.size, epochs=1, batch_size=batch),
        preprocess=preprocess,
        precision=choose_precision("auto", setting.device),
        seed=setting.seed,
        workers=0,
        checkpoint=Path("never-written.pt"),
        identity={},
    )


def take_steps(training: Trainer, tiles: CachedTiles, *, steps: int, seed: int) -> None:
    """Take steps on batches drawn from tiles in memory, and look at what they say.

    Args:
        training: its rows are those of `tiles`.
        tiles: N of them.
        steps: how many.
        seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    n, size = len(tiles.pixels), training.recipe.batch_size
    rows = [rng.choice(n, size, replace=size > n) for _ in range(steps)]
    # as in a real training's run, where all batches have one shape
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=torch.backends.cudnn.allow_tf32):
        for chosen, pixels in zip(rows, tiles.batches(rows), strict=True):
            training.step(chosen, pixels)
        training.look()


def held_on(pixels: torch.Tensor, device: torch.device) -> CachedTiles:
    """Return tiles (N, 3, S, S) uint8, channels_last, in the device's memory, where a training holds them."""
    return CachedTiles(pixels.permute(0, 2, 3, 1).contiguous().to(device))


def train_briefly(
    network: ResNet, pixels: torch.Tensor, y: np.ndarray, *, setting: BenchConfig, preprocess: Preprocess, steps: int
) -> None:
    """Train a network in place for some steps of the real training."""
    training = start(network, y, setting=setting, preprocess=preprocess, batch=min(PLAIN_BATCH, len(y)))
    take_steps(training, held_on(pixels, setting.device), steps=steps, seed=setting.seed)


class PlainTraining:
    """What a script would do: fp32, NCHW, torch's Adam."""

    def __init__(self, network: ResNet, device: torch.device) -> None:
        self.network = network.to(device, memory_format=torch.contiguous_format).train()
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-3)
        self.device = device

    def step(self, pixels: torch.Tensor, y: torch.Tensor, preprocess: Preprocess) -> float:
        """Take one step on (B, 3, S, S) uint8 tiles of the classes y (B,); return the loss."""
        x = normalise(pixels.to(self.device), mean=preprocess.mean, std=preprocess.std)
        loss = functional.cross_entropy(self.network(x.contiguous()), y.to(self.device))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()


def measure_training(setting: BenchConfig, model: Model, pixels: torch.Tensor, y: np.ndarray) -> Iterator[Measurement]:
    """Yield the rates of the real training's steps and of a plain loop's, and the machine's limits.

    Args:
        setting: how.
        model: the network; copies of it are trained.
        pixels: (N, 3, S, S) uint8, channels_last.
        y: (N,) class codes.
    """
    preprocess, device = model.preprocess, setting.device
    flops = TRAINING_PASSES * flops_per_tile(model.network, preprocess.size)
    tiles = held_on(pixels, device)
    plain = PlainTraining(copy.deepcopy(model.network), device)
    n = min(PLAIN_BATCH, len(y))
    first, target = pixels[:n].contiguous(), torch.from_numpy(y[:n])

    def plain_steps(steps: int) -> float:
        def work() -> None:
            for _ in range(steps):
                plain.step(first, target, preprocess)

        return steps * n / seconds_of(work)

    def window(warm_rate: float, batch: int) -> int:
        return max(1, round(setting.sized(10, 1) / 10 * WINDOW_S * warm_rate / batch))

    plain_steps(1)
    n_plain = window(plain_steps(1), n)
    for way, batch in WAYS.get(device.type, WAYS["cpu"])[: setting.sized(9, 1)]:
        training = start(copy.deepcopy(model.network), y, setting=setting, preprocess=preprocess, batch=batch)
        if way == COMPILED:
            training.learner.compile()

        def our_steps(steps: int, training: Trainer = training, batch: int = batch) -> float:
            def work() -> None:
                take_steps(training, tiles, steps=steps, seed=setting.seed)

            return steps * batch / seconds_of(work)

        our_steps(2)
        n_ours = window(our_steps(1), batch)
        contenders = {PLAIN: lambda: plain_steps(n_plain), way: lambda: our_steps(n_ours)} | peaks(setting)  # noqa: B023
        found = interleaved(contenders, rounds=setting.rounds, tell=lambda line: setting.tell(f"train: {line}"))
        limits = {p: [1e9 * value / flops for value in found[peak_name(p)]] for p in PRECISIONS}
        yield Measurement("train", PLAIN, "tiles/s", tuple(found[PLAIN]), "fp32", n)
        for precision, values in limits.items():
            yield Measurement("train", "limit", "tiles/s", tuple(values), precision)
        ours, precision = found[way], training.precision
        ratio, share = paired(ours, found[PLAIN]), paired(ours, limits[precision])
        yield Measurement("train", way, "tiles/s", tuple(ours), precision, batch, ratio, share)
