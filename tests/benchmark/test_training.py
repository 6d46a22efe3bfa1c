"""The real training's steps are taken, and a plain loop's beside them."""

import copy

import numpy as np
import pytest
import torch

from pipeline.benchmark.config import BenchConfig
from pipeline.benchmark.inputs import demo_tiles
from pipeline.benchmark.measurement import OURS, PLAIN, find
from pipeline.benchmark.training import PlainTraining, held_on, measure_training, start, take_steps
from pipeline.network.model_file import Model, Preprocess
from pipeline.network.resnet import build_network

SETTING = BenchConfig(torch.device("cpu"), threads=1, rounds=2, seed=0, is_quick=True)
PREPROCESS = Preprocess(size=32)


@pytest.fixture
def model() -> Model:
    info = {"arch": "resnet10", "classes": list("abcdefgh"), "preprocess": {**PREPROCESS.__dict__}}
    return Model(build_network("resnet10", n_classes=8, seed=0), info, {})


def test_the_steps_train(model: Model) -> None:
    tiles = demo_tiles(16, tile_px=32, seed=0)
    training = start(model.network, tiles.y, setting=SETTING, preprocess=PREPROCESS, batch=16)
    held = held_on(tiles.pixels, SETTING.device)
    losses = []
    for _ in range(2):
        before = training.state.loss_sum
        take_steps(training, held, steps=6, seed=0)
        losses.append(training.state.loss_sum - before)
    assert training.state.seen == 2 * 6 * 16
    assert losses[1] < losses[0]


def test_a_step_may_be_larger_than_the_tiles(model: Model) -> None:
    tiles = demo_tiles(8, tile_px=32, seed=0)
    training = start(model.network, tiles.y, setting=SETTING, preprocess=PREPROCESS, batch=12)
    take_steps(training, held_on(tiles.pixels, SETTING.device), steps=1, seed=0)
    assert training.state.seen == 12


def test_the_plain_loop_trains(model: Model) -> None:
    tiles = demo_tiles(16, tile_px=32, seed=0)
    plain = PlainTraining(model.network, SETTING.device)
    target = torch.from_numpy(tiles.y)
    losses = [plain.step(tiles.pixels, target, PREPROCESS) for _ in range(6)]
    assert losses[-1] < losses[0]


def test_rows_and_the_model_is_left_alone(model: Model) -> None:
    tiles = demo_tiles(32, tile_px=32, seed=0)
    before = copy.deepcopy(model.network.state_dict())
    table = list(measure_training(SETTING, model, tiles.pixels, tiles.y))
    ours, plain = find(table, "train", OURS), find(table, "train", PLAIN)
    assert ours is not None
    assert plain is not None
    ratios = [a / b for a, b in zip(ours.values, plain.values, strict=True)]
    assert ours.ratio == pytest.approx(float(np.median(ratios)))
    assert ours.share is not None
    assert all(torch.equal(value, before[name]) for name, value in model.network.state_dict().items())
