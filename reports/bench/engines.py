"""The engines by precision and batch size against a plain loop and the machine's limit; whether they say the same."""

import copy
import itertools
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch

from pipeline.benchmark.config import BenchConfig, Contender, interleaved
from pipeline.benchmark.hardware_limits import PRECISIONS, peak_name, peaks
from pipeline.benchmark.inputs import BenchInputs
from pipeline.benchmark.measurement import PLAIN, Measurement, paired
from pipeline.errors import PipelineError
from pipeline.heads.base import Rows
from pipeline.heads.svm.classifier import Svm, fit_svm
from pipeline.network.batches import normalise
from pipeline.network.engines import ENGINES, Engine, build_engine
from pipeline.network.engines.base import HeadOutput
from pipeline.network.engines.check import agree, in_plain_fp32
from pipeline.network.engines.samples import N_CALIBRATION
from pipeline.network.model_file import Model
from pipeline.network.resnet import features, logits
from pipeline.network.throughput import flops_per_tile

PLAIN_BATCH = 64
BATCHES = {"cpu": (16, 4, 8, 32, 64), "cuda": (256, 64, 512)}
"""Tiles per batch; at the first all engines are measured and their answers compared."""

PATIENCE_S = 8.0
"""An engine that takes longer to get ready is measured at the first batch size only."""

WINDOW_S = 0.6
"""About how long one value is measured; at least one batch."""


class Key(NamedTuple):
    """An engine in one precision."""

    name: str
    precision: str

    def __str__(self) -> str:
        return f"{self.name} {self.precision}"


class PlainLoop:
    """What a script would do: torchvision's network, fp32, NCHW, eager, eval mode, inference_mode."""

    name, precision = PLAIN, "fp32"

    def __init__(self, model: Model, device: torch.device) -> None:
        network = copy.deepcopy(model.network)
        self.network = network.to(device, memory_format=torch.contiguous_format).eval()
        self.preprocess, self.device = model.preprocess, device

    def run(self, batches: Iterable[torch.Tensor]) -> Iterator[HeadOutput]:
        """Yield features and logits of each batch of uint8 tiles (B, 3, S, S)."""
        for pixels in batches:
            with torch.inference_mode():
                x = normalise(pixels.to(self.device), mean=self.preprocess.mean, std=self.preprocess.std).contiguous()
                embedded = features(self.network, x)
                scores = logits(self.network, embedded)
            yield embedded.float().cpu().numpy(), scores.float().cpu().numpy()


def rate(engine: PlainLoop | Engine, batches: list[torch.Tensor], n: int) -> float:
    """Return tiles per second of one run over n batches, taken in turn."""
    start = time.perf_counter()
    tiles = sum(len(f) for f, _ in engine.run(itertools.islice(itertools.cycle(batches), n)))
    return tiles / (time.perf_counter() - start)


def sustained(engine: PlainLoop | Engine, batches: list[torch.Tensor], *, window_s: float) -> Contender:
    """Return what measures the rate of an engine, warmed up already, over about `window_s` seconds."""
    n = max(1, round(window_s * rate(engine, batches, 2) / len(batches[0])))
    return lambda: rate(engine, batches, n)


def built(
    setting: BenchConfig, material: BenchInputs, keys: Iterable[Key], batch: int
) -> Iterator[tuple[Key, Engine | str]]:
    """Yield the engines, each ready for batches of `batch` tiles, or why this machine does not have it."""
    for key in keys:
        setting.tell(f"embed: {key}: getting ready for batches of {batch}")
        try:
            engine = build_engine(
                key.name,
                material.model,
                device=setting.device,
                precision=key.precision,
                batch=batch,
                calibration=material.train.pixels[:N_CALIBRATION] if key.precision == "int8" else None,
            )
        except PipelineError as error:
            yield key, str(error)
        else:
            yield key, engine


def measure_embedding(setting: BenchConfig, material: BenchInputs, remarks: list[str]) -> Iterator[Measurement]:
    """Yield the rates of all engines by batch size, of the plain loop and of the limits, and the engines' agreement.

    Args:
        setting: how.
        material: network and tiles.
        remarks: takes what a reader must know of engines that are missing.
    """
    sizes = setting.batches or BATCHES.get(setting.device.type, BATCHES["cpu"])[: setting.sized(9, 1)]
    keys = [Key(name, precision) for name, precisions in ENGINES.items() for precision in precisions]
    keys = [
        key for key in keys if not setting.engines or {key.name, f"{key.name}-{key.precision}"} & {*setting.engines}
    ]
    window = WINDOW_S * setting.sized(10, 1) / 10
    flops = flops_per_tile(material.model.network, material.model.preprocess.size)
    plain, script = PlainLoop(material.model, setting.device), material.held.batches(PLAIN_BATCH)
    rate(plain, script, 1)
    plain_rate = sustained(plain, script, window_s=window)
    for size in sizes:
        batches = material.held.batches(size)
        engines, ready = dict[Key, Engine](), dict[Key, float]()
        start = time.perf_counter()
        for key, engine in built(setting, material, keys, size):
            if isinstance(engine, str):
                remarks.append(f"Not measured: {key} ({engine}).")
                continue
            rate(engine, batches, 1)
            engines[key], ready[key] = engine, time.perf_counter() - start
            start = time.perf_counter()
        contenders = {PLAIN: plain_rate} | peaks(setting)
        contenders |= {str(key): sustained(engine, batches, window_s=window) for key, engine in engines.items()}
        found = interleaved(contenders, rounds=setting.rounds, tell=lambda line: setting.tell(f"embed: {line}"))
        limits: dict[str, list[float]] = {p: [1e9 * value / flops for value in found[peak_name(p)]] for p in PRECISIONS}
        yield Measurement("embed", PLAIN, "tiles/s", tuple(found[PLAIN]), "fp32", PLAIN_BATCH)
        for bound, values in limits.items():
            yield Measurement("embed", "limit", "tiles/s", tuple(values), bound)
        for key in engines:
            values = found[str(key)]
            ratio = paired(values, found[PLAIN])
            share = paired(values, limits[key.precision]) if key.precision in limits else None
            note = f"ready in {ready[key]:.1f} s"
            yield Measurement("embed", key.name, "tiles/s", tuple(values), key.precision, size, ratio, share, note)
        if size == sizes[0]:
            yield from compare(setting, material, engines, size)
            keys = [key for key in engines if ready[key] <= PATIENCE_S]
            if slow := [str(key) for key in engines if key not in keys and len(sizes) > 1]:
                remarks.append(f"Measured at one batch size, because getting ready takes long: {', '.join(slow)}.")


def answers(engine: Engine, pixels: torch.Tensor) -> HeadOutput:
    """Return an engine's features and logits of N tiles."""
    found = list(engine.run(pixels.split(engine.batch)))
    return np.concatenate([f for f, _ in found]), np.concatenate([z for _, z in found])


def named_by(head: Svm, answer: HeadOutput) -> np.ndarray:
    """Return the classes that a head names, (N,)."""
    return head.scores(Rows(*answer, np.zeros(len(answer[0]), np.int64))).argmax(axis=1)


def compare(
    setting: BenchConfig, material: BenchInputs, engines: Mapping[Key, Engine], batch: int
) -> Iterator[Measurement]:
    """Yield how far each engine says what the network says in plain fp32 of the held tiles.

    By the features' cosine, by the class of the largest logit, and by the accuracy of an SVM at scikit-learn's usual
    point that was fitted on fp32 features of the training tiles.
    """
    train, held = material.train, material.held
    setting.tell(f"agreement: {len(train.y)} + {len(held.y)} tiles in plain fp32")
    fitted = in_plain_fp32(material.model, train.pixels)
    head = fit_svm(Rows(*fitted, train.y), {"kernel": "rbf", "C": 1.0, "gamma": 1 / fitted[0].shape[1]})
    reference = in_plain_fp32(material.model, held.pixels)
    accuracy = float((named_by(head, reference) == held.y).mean())
    for key, engine in engines.items():
        setting.tell(f"agreement: {key}")
        answer = answers(engine, held.pixels)
        found = agree(answer, reference)
        differ = int((answer[1].argmax(axis=1) != reference[1].argmax(axis=1)).sum())
        same = 1 - differ / len(held.y)
        points = 100 * (float((named_by(head, answer) == held.y).mean()) - accuracy)
        rows = [
            ("cosine", found.cosine, ""),
            ("share of tiles", same, f"{differ} of {len(held.y)} differ, {found.changed} by more than rounding turns"),
            ("points", points, f"accuracy on fp32 features {100 * accuracy:.1f} %"),
        ]
        for unit, value, note in rows:
            yield Measurement("agreement", key.name, unit, (value,), key.precision, batch, note=note)
