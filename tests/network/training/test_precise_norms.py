"""The statistics of norms are those of a fixed draw of training tiles, whatever they were before."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from pipeline.network.batches import normalise
from pipeline.network.distributed import Ranks
from pipeline.network.preprocess import Preprocess
from pipeline.network.resnet import build_network
from pipeline.network.training.pixel_cache import CachedTiles
from pipeline.network.training.precise_norms import drawn_batches, estimate_norms
from pipeline.network.training.recipe import RECIPES
from pipeline.network.training.step import TrainStep

N, SIDE = 70, 32


@pytest.fixture
def pixels() -> CachedTiles:
    rng = np.random.default_rng(0)
    return CachedTiles(torch.from_numpy(rng.integers(0, 256, (N, SIDE, SIDE, 3), dtype=np.uint8)))


def begin(*, ema: float = 0.0, n: int = N) -> TrainStep:
    """Return the steps of a tiny network that no step has been taken with."""
    recipe = dataclasses.replace(RECIPES["tutorial"], tile_px=SIDE, ema=ema, norm_tiles=n)
    network = build_network("resnet10", n_classes=2, seed=0)
    return TrainStep(network, recipe=recipe, preprocess=Preprocess(size=SIDE), precision="fp32", seed=3, ranks=Ranks())


@pytest.mark.parametrize(("n_tiles", "n_drawn"), [(70, 65), (10, 1000), (200, 129), (2, 2)])
def test_the_draw_is_fixed_and_no_batch_has_one_tile(n_tiles: int, n_drawn: int) -> None:
    batches = drawn_batches(n_tiles, n_drawn, seed=5)
    rows = np.concatenate(batches)
    assert len(rows) == len(set(rows)) == min(n_tiles, n_drawn)
    assert min(map(len, batches)) >= 2
    assert max(map(len, batches)) <= 64
    assert np.array_equal(rows, np.concatenate(drawn_batches(n_tiles, n_drawn, seed=5)))
    assert n_tiles == 2 or not np.array_equal(rows, np.concatenate(drawn_batches(n_tiles, n_drawn, seed=6)))


def test_statistics_are_the_mean_over_batches(pixels: CachedTiles) -> None:
    step = begin()
    first = step.network.bn1
    first.running_mean.fill_(99)  # type: ignore[union-attr, operator]
    estimate_norms(step, pixels, N)
    means, variances = [], []
    for rows in drawn_batches(N, N, seed=3):
        x = normalise(next(iter(pixels.batches([rows]))), mean=step.preprocess.mean, std=step.preprocess.std)
        with torch.no_grad():
            variance, mean = torch.var_mean(step.network.conv1(x), (0, 2, 3))
        means.append(mean)
        variances.append(variance)
    torch.testing.assert_close(first.running_mean, torch.stack(means).mean(0))
    torch.testing.assert_close(first.running_var, torch.stack(variances).mean(0))


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_only_the_statistics_of_the_validated_network_change_and_a_repetition_changes_nothing(
    pixels: CachedTiles, ema: float
) -> None:
    step = begin(ema=ema, n=20)
    before = copy.deepcopy(step.eval_network.state_dict())
    trained = copy.deepcopy(step.network.state_dict())
    estimate_norms(step, pixels, N)
    once = copy.deepcopy(step.eval_network.state_dict())
    changed = {name for name, value in once.items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if name.endswith(("running_mean", "running_var"))}
    assert step.network.bn1.momentum == 0.1
    estimate_norms(step, pixels, N)
    assert all(torch.equal(value, once[name]) for name, value in step.eval_network.state_dict().items())
    if ema:
        assert all(torch.equal(value, trained[name]) for name, value in step.network.state_dict().items())
