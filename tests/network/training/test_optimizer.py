"""Learning rates are torch's own schedules; norms and biases never decay."""

import itertools

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from pipeline.network.resnet import build_network
from pipeline.network.training.optimizer import LR_DROP, build_optimizer, learning_rate
from pipeline.network.training.recipe import Recipe

STEPS = 5


def rates(recipe: Recipe) -> list[float]:
    """Return the learning rate of every step."""
    where = itertools.product(range(recipe.epochs), range(STEPS))
    return [learning_rate(recipe, epoch=epoch, step=step, steps=STEPS) for epoch, step in where]


def test_the_schedule_step_is_torchs_to_the_bit() -> None:
    recipe = Recipe(tile_px=32, epochs=30, lr=3e-3, lr_step=4)
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=recipe.lr)
    schedule = lr_scheduler.StepLR(optimizer, recipe.lr_step, LR_DROP)
    expected = []
    for _ in range(recipe.epochs):
        expected += STEPS * [optimizer.param_groups[0]["lr"]]
        optimizer.step()
        schedule.step()
    assert rates(recipe) == expected


def test_cosine_is_torchs_after_a_linear_warm_up() -> None:
    recipe = Recipe(tile_px=32, epochs=6, schedule="cosine", warmup_epochs=2)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=recipe.lr)
    schedule = lr_scheduler.CosineAnnealingLR(optimizer, T_max=4 * STEPS)
    expected = [recipe.lr * (i + 1) / 10 for i in range(10)]
    for _ in range(4 * STEPS):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates(recipe) == pytest.approx(expected)


def test_a_warm_up_that_never_ends_is_linear() -> None:
    found = rates(Recipe(tile_px=32, epochs=2, schedule="cosine", warmup_epochs=2))
    assert found == pytest.approx([1e-3 * (i + 1) / 10 for i in range(10)])


@pytest.mark.parametrize(
    ("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)]
)
def test_norms_and_biases_do_not_decay(name: str, kind: type) -> None:
    network = build_network("resnet10", n_classes=3, seed=0)
    recipe = Recipe(tile_px=32, epochs=1, optimizer=name, weight_decay=0.1)  # type: ignore[arg-type]
    optimizer = build_optimizer(network, recipe)
    assert type(optimizer) is kind
    decay = {id(value): group["weight_decay"] for group in optimizer.param_groups for value in group["params"]}
    assert all(group["fused"] for group in optimizer.param_groups)
    for part_name, part in network.named_modules():
        for parameter_name, parameter in part.named_parameters(recurse=False):
            is_weight = isinstance(part, nn.Conv2d | nn.Linear) and parameter_name == "weight"
            assert decay[id(parameter)] == (0.1 if is_weight else 0), f"{part_name}.{parameter_name}"


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_the_fused_update_is_the_plain_one(name: str) -> None:
    torch.manual_seed(0)
    ours, plain = nn.Linear(4, 3), nn.Linear(4, 3)
    plain.load_state_dict(ours.state_dict())
    recipe = Recipe(tile_px=32, epochs=1, lr=0.1, optimizer=name, weight_decay=0.1)  # type: ignore[arg-type]
    optimizer = build_optimizer(ours, recipe)
    groups = [{"params": [plain.weight], "weight_decay": 0.1}, {"params": [plain.bias], "weight_decay": 0.0}]
    reference: torch.optim.Optimizer
    if name == "sgd":
        reference = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True, fused=False, foreach=False)
    else:
        reference = torch.optim.AdamW(groups, lr=0.1, fused=False, foreach=False)
    for _ in range(5):
        x = torch.randn(2, 4)
        for network, its in ((ours, optimizer), (plain, reference)):
            its.zero_grad()
            network(x).square().mean().backward()
            its.step()
    torch.testing.assert_close(ours.weight, plain.weight)
    torch.testing.assert_close(ours.bias, plain.bias)
