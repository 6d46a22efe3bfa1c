"""Measure the training step next to a plain loop's and the machine's limit."""

import copy
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch.nn import functional

from pipeline.benchmark.config import BenchConfig, interleaved, seconds_of
from pipeline.benchmark.hardware_limits import TRAINING_PASSES, peak_name, peaks, tiles_per_second
from pipeline.benchmark.measurement import OURS, PLAIN, Measurement, median_ratio
from pipeline.network.batches import normalise
from pipeline.network.distributed import Ranks
from pipeline.network.model_file import Model
from pipeline.network.precision import Precision, autocast, default_precision
from pipeline.network.preprocess import Preprocess
from pipeline.network.resnet import ResNet, as_channels_last, flops_per_tile
from pipeline.network.training.pixel_cache import CachedTiles
from pipeline.network.training.recipe import Recipe
from pipeline.network.training.step import TrainStep

PLAIN_BATCH = 32

COMPILED = "ours, compiled"

EAGER = "torch bf16 channels_last, eager"
"""The plain loop under torch's autocast, where the device computes in bf16. Its ratio to ours is the robust measure:
page faults and other processes slow both."""

WAYS = {"cpu": ((OURS, 32),), "cuda": ((OURS, 32), (COMPILED, 32), (OURS, 256))}
"""Ways of training and tiles per step, by device: on CPUs torch.compile makes training slower."""

WINDOW_S = 6.0
"""Approximate seconds of one measurement."""


def begin_training(network: ResNet, *, config: BenchConfig, preprocess: Preprocess, batch: int) -> TrainStep:
    """Return the steps of the tutorial's recipe.

    Args:
        network: network on the CPU; it is moved to the device and trained in place.
        config: device and seed.
        preprocess: mean, std and size of the input.
        batch: tiles per step.
    """
    as_channels_last(network, config.device)
    return TrainStep(
        network,
        recipe=Recipe(tile_px=preprocess.size, epochs=1, batch_size=batch),
        preprocess=preprocess,
        precision=default_precision(config.device),
        seed=config.seed,
        ranks=Ranks(),
    )


def take_steps(training: TrainStep, tiles: CachedTiles, labels: np.ndarray, *, n: int) -> list[float]:
    """Take n steps on batches drawn from tiles in memory; return the losses, which waits for the device.

    Args:
        training: from `begin_training`.
        tiles: N of them.
        labels: (N,) class codes.
        n: at least 1.
    """
    rng, size = np.random.default_rng(training.seed), training.recipe.batch_size
    batches = [rng.choice(len(labels), size, replace=size > len(labels)) for _ in range(n)]
    losses = [
        training.step(pixels, labels[rows], epoch=0, step=step, steps=n)[0]
        for step, (rows, pixels) in enumerate(zip(batches, tiles.batches(batches), strict=True))
    ]
    return [float(loss) for loss in torch.stack(losses).tolist()]


def cache_tiles(pixels: torch.Tensor, device: torch.device) -> CachedTiles:
    """Return tiles (N, 3, S, S) uint8 in the device's memory, as in a training."""
    return CachedTiles(pixels.permute(0, 2, 3, 1).contiguous().to(device))


class PlainTraining:
    """Train as a script would, by torch's Adam: in fp32 and NCHW, or in bf16 and channels_last."""

    def __init__(self, network: ResNet, device: torch.device, precision: Precision = "fp32") -> None:
        self.layout = torch.channels_last if precision == "bf16" else torch.contiguous_format
        self.network = network.to(device).to(memory_format=self.layout).train()
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-3)
        self.device, self.precision = device, precision

    def step(self, pixels: torch.Tensor, labels: torch.Tensor, preprocess: Preprocess) -> float:
        """Take one step on (B, 3, S, S) uint8 tiles of the classes (B,); return the loss."""
        x = normalise(pixels.to(self.device), mean=preprocess.mean, std=preprocess.std)
        with autocast(self.device, self.precision):
            scores = self.network(x.contiguous(memory_format=self.layout))
        loss = functional.cross_entropy(scores.float(), labels.to(self.device))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()


def measure_training(
    config: BenchConfig, model: Model, pixels: torch.Tensor, labels: np.ndarray
) -> Iterator[Measurement]:
    """Yield the rates of training steps and of plain loops, and the machine's limits.

    Args:
        config: how to measure.
        model: the network; copies of it are trained.
        pixels: (N, 3, S, S) uint8, channels_last.
        labels: (N,) class codes.
    """
    network, preprocess, device = model.network, model.preprocess, config.device
    assert isinstance(network, ResNet), "the bench trains no encoder"  # noqa: S101
    flops = TRAINING_PASSES * flops_per_tile(network, preprocess.size)
    tiles = cache_tiles(pixels, device)
    n = min(PLAIN_BATCH, len(labels))
    first, target = pixels[:n].contiguous(), torch.from_numpy(labels[:n])

    def plain_rate(plain: PlainTraining, steps: int) -> float:
        return steps * n / seconds_of(lambda: [plain.step(first, target, preprocess) for _ in range(steps)])

    def steps_in_window(warm_rate: float, batch: int) -> int:
        return max(1, round(config.size(10, 1) / 10 * WINDOW_S * warm_rate / batch))

    loops: dict[str, Callable[[], float]] = {}
    for precision in config.precisions:
        plain = PlainTraining(copy.deepcopy(network), device, precision)
        plain_rate(plain, 1)
        steps = steps_in_window(plain_rate(plain, 1), n)
        loops[EAGER if precision == "bf16" else PLAIN] = partial(plain_rate, plain, steps)
    for way, batch in WAYS.get(device.type, WAYS["cpu"])[: config.size(9, 1)]:
        training = begin_training(copy.deepcopy(network), config=config, preprocess=preprocess, batch=batch)
        if way == COMPILED:
            training.compile()

        def our_rate(steps: int, training: TrainStep = training, batch: int = batch) -> float:
            return steps * batch / seconds_of(lambda: take_steps(training, tiles, labels, n=steps))

        our_rate(2)
        our_steps = steps_in_window(our_rate(1), batch)
        contenders = loops | {way: partial(our_rate, our_steps)} | peaks(config)
        found = interleaved(contenders, rounds=config.rounds, part="train")
        limits = {precision: tiles_per_second(found[peak_name(precision)], flops) for precision in config.precisions}
        yield Measurement("train", PLAIN, "tiles/s", tuple(found[PLAIN]), "fp32", n)
        for precision, values in limits.items():
            yield Measurement("train", "limit", "tiles/s", tuple(values), precision)
        limit = limits[training.precision]
        if EAGER in found:
            rates, ratio = tuple(found[EAGER]), median_ratio(found[EAGER], found[PLAIN])
            yield Measurement("train", EAGER, "tiles/s", rates, "bf16", n, ratio, median_ratio(rates, limit))
        note = f"{median_ratio(found[way], found[EAGER]):.2f} times {EAGER}" if EAGER in found else ""
        rates, ratio = tuple(found[way]), median_ratio(found[way], found[PLAIN])
        share = median_ratio(rates, limit)
        yield Measurement("train", way, "tiles/s", rates, training.precision, batch, ratio, share, note)
