"""Measure the rate of each engine next to a plain loop and the machine's limit."""

import copy
import itertools
import time
from collections.abc import Iterable, Iterator
from typing import Protocol

import torch

from pipeline.benchmark.config import BenchConfig, Contender, interleaved
from pipeline.benchmark.hardware_limits import peak_name, peaks, tiles_per_second
from pipeline.benchmark.measurement import PLAIN, Measurement, median_ratio
from pipeline.errors import PipelineError
from pipeline.network.batches import normalise
from pipeline.network.engines import build_engine, default_batch
from pipeline.network.engines.base import NetworkOutput
from pipeline.network.model_file import Model
from pipeline.network.precision import Precision
from pipeline.network.resnet import ResNet, features, flops_per_tile, logits
from pipeline.runtime.console import log

PLAIN_BATCH = 64

ENGINES = ("torch", "openvino")
"""The engines that the rule of `extract` can choose."""

WINDOW_S = 0.6
"""Approximate seconds of one measurement; at least one batch."""


class Runner(Protocol):
    """An engine, or the plain loop."""

    def run(self, batches: Iterable[torch.Tensor]) -> Iterator[NetworkOutput]:
        """Yield features and logits of each batch of uint8 tiles (B, 3, S, S)."""
        ...


def _network(model: Model) -> ResNet:
    """Return the network of a model that is no encoder."""
    assert isinstance(model.network, ResNet)  # noqa: S101
    return model.network


class PlainLoop:
    """Run torchvision's network as a script would: fp32, NCHW, eager, eval mode, inference_mode."""

    def __init__(self, model: Model, device: torch.device) -> None:
        network = copy.deepcopy(_network(model))
        self.network = network.to(device).to(memory_format=torch.contiguous_format).eval()
        self.preprocess, self.device = model.preprocess, device

    def run(self, batches: Iterable[torch.Tensor]) -> Iterator[NetworkOutput]:
        """Yield features and logits of each batch of uint8 tiles (B, 3, S, S)."""
        for pixels in batches:
            with torch.inference_mode():
                x = normalise(pixels.to(self.device), mean=self.preprocess.mean, std=self.preprocess.std).contiguous()
                embedded = features(self.network, x)
                scores = logits(self.network, embedded)
            yield embedded.float().cpu().numpy(), scores.float().cpu().numpy()


def rate(engine: Runner, batches: list[torch.Tensor], n: int) -> float:
    """Return the tiles per second of one run over n batches, used cyclically."""
    start = time.perf_counter()
    tiles = sum(len(f) for f, _ in engine.run(itertools.islice(itertools.cycle(batches), n)))
    return tiles / (time.perf_counter() - start)


def sustained(engine: Runner, batches: list[torch.Tensor], *, window_s: float = WINDOW_S) -> Contender:
    """Warm an engine up, and return a function that measures its rate over about `window_s` seconds."""
    rate(engine, batches, 1)
    n = max(1, round(window_s * rate(engine, batches, 2) / len(batches[0])))
    return lambda: rate(engine, batches, n)


def split_into_batches(pixels: torch.Tensor, size: int) -> list[torch.Tensor]:
    """Return N tiles as batches of `size`, channels_last; the last batch is filled up from the first tiles."""
    n = len(pixels)
    rows = torch.arange(-(-n // size) * size) % n
    return [pixels[chosen].contiguous(memory_format=torch.channels_last) for chosen in rows.split(size)]


def measure_embedding(config: BenchConfig, model: Model, pixels: torch.Tensor) -> Iterator[Measurement]:
    """Yield the rates of the engines in fp32 and bf16, of the plain loop, and of the machine's limits.

    Args:
        config: how to measure.
        model: the network, on the CPU, in eval mode.
        pixels: (N, 3, S, S) uint8 tiles.
    """
    batch, window = default_batch(config.device, model.preprocess.size), WINDOW_S * config.size(10, 1) / 10
    batches = split_into_batches(pixels, batch)
    contenders = peaks(config)
    plain = PlainLoop(model, config.device)
    contenders[PLAIN] = sustained(plain, split_into_batches(pixels, PLAIN_BATCH), window_s=window)
    engines: list[tuple[str, Precision]] = []
    for name, precision in itertools.product(ENGINES, config.precisions):
        try:
            engine = build_engine(name, model, device=config.device, precision=precision, batch=batch)
        except PipelineError as error:  # not installed, or not for this device
            log.info(f"bench: not measured: {name} {precision} ({error})")
            continue
        contenders[f"{name} {precision}"] = sustained(engine, batches, window_s=window)
        engines.append((name, precision))
    found = interleaved(contenders, rounds=config.rounds, part="embed")
    flops = flops_per_tile(_network(model), model.preprocess.size)
    limits = {precision: tiles_per_second(found[peak_name(precision)], flops) for precision in config.precisions}
    yield Measurement("embed", PLAIN, "tiles/s", tuple(found[PLAIN]), "fp32", PLAIN_BATCH)
    for precision, values in limits.items():
        yield Measurement("embed", "limit", "tiles/s", tuple(values), precision)
    for name, precision in engines:
        rates = found[f"{name} {precision}"]
        ratio, share = median_ratio(rates, found[PLAIN]), median_ratio(rates, limits[precision])
        yield Measurement("embed", name, "tiles/s", tuple(rates), precision, batch, ratio, share)
