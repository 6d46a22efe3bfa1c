"""The benchmark takes the real training's steps, and a plain loop's next to them."""

import copy

import numpy as np
import pytest
import torch

from pipeline.benchmark import config as config_module
from pipeline.benchmark import training as training_module
from pipeline.benchmark.config import BenchConfig
from pipeline.benchmark.hardware_limits import peak_name
from pipeline.benchmark.measurement import OURS, PLAIN, find
from pipeline.benchmark.training import (
    EAGER,
    PlainTraining,
    begin_training,
    cache_tiles,
    measure_training,
    take_steps,
)
from pipeline.network.model_file import Model
from pipeline.network.precision import Precision
from pipeline.network.preprocess import Preprocess
from pipeline.network.resnet import build_network

CONFIG = BenchConfig(torch.device("cpu"), threads=1, rounds=2, seed=0, is_quick=True)
PREPROCESS = Preprocess(size=32)
LABELS = np.arange(16) % 2


@pytest.fixture
def pixels() -> torch.Tensor:
    """16 tiles of two classes: dark ones and bright ones."""
    noise = np.random.default_rng(0).integers(0, 100, (16, 32, 32, 3)) + 100 * LABELS[:, None, None, None]
    return torch.from_numpy(noise.astype(np.uint8)).permute(0, 3, 1, 2)


@pytest.fixture
def model() -> Model:
    info = {"arch": "resnet10", "classes": ["a", "b"], "preprocess": {**PREPROCESS.__dict__}}
    return Model(build_network("resnet10", n_classes=2, seed=0), info, {})


def test_the_steps_train(model: Model, pixels: torch.Tensor) -> None:
    training = begin_training(model.network, config=CONFIG, preprocess=PREPROCESS, batch=16)
    losses = take_steps(training, cache_tiles(pixels, CONFIG.device), LABELS, n=8)
    assert len(losses) == 8
    assert losses[-1] < losses[0]


def test_a_step_may_be_larger_than_the_tiles(model: Model, pixels: torch.Tensor) -> None:
    training = begin_training(model.network, config=CONFIG, preprocess=PREPROCESS, batch=20)
    assert np.isfinite(take_steps(training, cache_tiles(pixels, CONFIG.device), LABELS, n=1)).all()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_plain_loop_trains(model: Model, pixels: torch.Tensor, precision: Precision) -> None:
    plain = PlainTraining(model.network, CONFIG.device, precision)
    losses = [plain.step(pixels, torch.from_numpy(LABELS), PREPROCESS) for _ in range(6)]
    assert losses[-1] < losses[0]


def test_rows_and_the_model_stays_as_it_is(model: Model, pixels: torch.Tensor) -> None:
    before = copy.deepcopy(model.network.state_dict())
    table = list(measure_training(CONFIG, model, pixels, LABELS))
    assert (find(table, "train", EAGER) is None) == ("bf16" not in CONFIG.precisions)
    ours, plain = find(table, "train", OURS), find(table, "train", PLAIN)
    assert ours is not None
    assert plain is not None
    ratios = [a / b for a, b in zip(ours.values, plain.values, strict=True)]
    assert ours.ratio == pytest.approx(float(np.median(ratios)))
    assert ours.share is not None
    assert all(torch.equal(value, before[name]) for name, value in model.network.state_dict().items())


def test_eager_bf16_takes_part_where_the_device_computes_in_it(
    model: Model, pixels: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (config_module, training_module):
        monkeypatch.setattr(module, "default_precision", lambda _: "bf16")
    rates = {peak_name(precision): lambda: 50.0 for precision in CONFIG.precisions}
    monkeypatch.setattr(training_module, "peaks", lambda _: rates)  # a large product in emulated bf16 takes minutes
    monkeypatch.setattr(training_module, "WAYS", {"cpu": ((OURS, 4),)})
    table = list(measure_training(CONFIG, model, pixels[:4], LABELS[:4]))
    ours, eager = find(table, "train", OURS), find(table, "train", EAGER)
    assert ours is not None
    assert eager is not None
    assert (ours.precision, eager.precision) == ("bf16", "bf16")
    ratios = [a / b for a, b in zip(ours.values, eager.values, strict=True)]
    assert ours.note == f"{np.median(ratios):.2f} times {EAGER}"
