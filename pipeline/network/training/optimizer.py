"""Build the optimizer of a recipe, and compute the learning rate of a step."""

import copy
import math
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from pipeline.network.resnet import ResNet
from pipeline.network.training.recipe import Recipe

FUSED = ("cpu", "cuda")
"""Devices on which an optimizer's whole update is one kernel (torch 2.6 and newer)."""

MOMENTUM = 0.9
"""Momentum of SGD, as in all sources of the recipes."""

LR_DROP = 0.1
"""Factor of each drop of the learning rate, by the schedule `step`."""


def build_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return the recipe's optimizer; norms and biases have no weight decay."""
    parameters = list(network.parameters())
    groups: list[dict[str, Any]] = [
        {"params": [value for value in parameters if value.ndim > 1]},
        {"params": [value for value in parameters if value.ndim <= 1], "weight_decay": 0.0},
    ]
    fused = parameters[0].device.type in FUSED or None
    decay = recipe.weight_decay
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=MOMENTUM, nesterov=True, weight_decay=decay, fused=fused)
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=recipe.lr, weight_decay=decay, fused=fused)


def learning_rate(recipe: Recipe, *, epoch: int, step: int, steps: int) -> float:
    """Return the learning rate of a step.

    The schedule `step` equals torch's StepLR exactly; `cosine` falls from the end of the warm-up to 0 after the
    last step (Loshchilov and Hutter 2017, equation 5, without restarts). The warm-up is linear (Goyal et al. 2017).

    Args:
        recipe: how to train.
        epoch: counted from 0.
        step: step of the epoch, counted from 0.
        steps: in each epoch.
    """
    done, warm = epoch * steps + step, round(recipe.warmup_epochs * steps)
    rate = recipe.lr
    if recipe.schedule == "step":
        for _ in range(epoch // recipe.lr_step):
            rate *= LR_DROP
    elif done >= warm:
        rate *= 0.5 * (1 + math.cos(math.pi * (done - warm) / max(1, recipe.epochs * steps - warm)))
    return rate * (done + 1) / warm if done < warm else rate


FIRST = 10
"""Constant of the warm-up: after n steps the decay is at most (1 + n) / (FIRST + n), as in TensorFlow's
`ExponentialMovingAverage`."""


class Average:
    """Average a network exponentially over steps (Tarvainen and Valpola 2017), with the statistics of its norms.

    Args:
        network: network on its device; it is not changed.
        decay: decay of the average at each step, below 1.
    """

    def __init__(self, network: ResNet, decay: float) -> None:
        self.decay = decay
        self.network = copy.deepcopy(network).requires_grad_(requires_grad=False)
        pairs = list(zip(self.network.state_dict().values(), network.state_dict().values(), strict=True))
        self.floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self.counts = [pair for pair in pairs if not pair[0].is_floating_point()]

    def update(self, n: int) -> None:
        """Add the network after its n-th step, counted from 1; nothing waits for the device."""
        decay = min(self.decay, (1 + n) / (FIRST + n))
        get_ema_multi_avg_fn(decay)([mine for mine, _ in self.floats], [theirs for _, theirs in self.floats], None)
        for mine, theirs in self.counts:
            mine.copy_(theirs)
