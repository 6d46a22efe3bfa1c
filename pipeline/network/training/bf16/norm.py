"""Normalise maps in bfloat16 by the statistics of their batch, fused with ReLU and residual sum, with gradients."""

import dataclasses
import functools
import importlib
from importlib import metadata
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from pipeline.network.training.bf16.convolution import NHWC, as_rows

LINEAR = float("-inf")
"""Lower limit of a norm's output without ReLU."""


@functools.cache
def _kernels() -> Any:
    """Return the compiled passes of norms; None where numba is missing, does not fit numpy, or must not compile."""
    try:
        numba = importlib.import_module("numba")
    except (ImportError, OSError):  # OSError: the library of llvmlite cannot be loaded
        return None
    if numba.config.DISABLE_JIT:
        return None
    return importlib.import_module("pipeline.network.training.bf16.norm_kernels")


def norms() -> str:
    """Return what computes the norms, for records: "numba 0.68.1" or "torch"."""
    return "torch" if _kernels() is None else f"numba {metadata.version('numba')}"


def _fused(norm: nn.BatchNorm2d, x: torch.Tensor) -> bool:
    """Return whether a norm runs by compiled passes: not if it is frozen, nor with one value per channel."""
    return norm.training and x.numel() > x.shape[1] and _kernels() is not None


def normalise(norm: nn.BatchNorm2d, x: torch.Tensor, *, low: float) -> torch.Tensor:
    """Return a norm's output for maps x in bfloat16, with ReLU for a `low` of 0.

    Raises:
        ValueError: torch's own, for one value per channel.
    """
    if _fused(norm, x):
        fused: torch.Tensor = _Norm.apply(x, norm.weight, norm.bias, norm, low)
        return fused
    y: torch.Tensor = norm(x)
    return y if low == LINEAR else functional.relu(y)


def add_normalised(norm: nn.BatchNorm2d, x: torch.Tensor, skip: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ReLU of the norm of x plus the residual, twice; raises as `normalise` does.

    The next block's convolution and residual sum each get their own output, so that their gradients are added here.
    """
    if _fused(norm, x):
        y, same = _NormSum.apply(x, skip, norm.weight, norm.bias, norm)
        return y, same
    y = functional.relu(norm(x) + skip)
    return y, y


def _numpy(maps: torch.Tensor) -> np.ndarray:
    """Return maps (N, C, H, W), channels_last bfloat16, as (N * H * W, C) uint16 of the same memory."""
    return as_rows(maps.detach()).view(torch.int16).numpy().view(np.uint16)


def _like(maps: torch.Tensor) -> torch.Tensor:
    return torch.empty(maps.shape, dtype=torch.bfloat16, memory_format=NHWC)


@dataclasses.dataclass(frozen=True)
class _Statistics:
    """Mean and spread of a batch, (C,) float64: a norm is y = a x + b per channel."""

    mean: torch.Tensor
    inverse_std: torch.Tensor
    a: torch.Tensor
    b: torch.Tensor

    def channels(self, *others: torch.Tensor) -> np.ndarray:
        """Return a, b and others as the kernels take them, (P, C) float32."""
        return torch.stack([self.a, self.b, *others]).float().numpy()

    def gradients(self, dz_sums: torch.Tensor, n_rows: int) -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
        """Return a, b, k, l of dx = a dz + k x + l, and the gradients of weight and bias.

        Ioffe and Szegedy 2015, "Batch normalization", algorithm 1: k and l are the way through mean and variance.

        Args:
            dz_sums: (2, C), of dz and dz (x - mean).
            n_rows: M.
        """
        bias, product = dz_sums
        k = -self.a * self.inverse_std**2 * product / n_rows
        channels = self.channels(k, -k * self.mean - self.a * bias / n_rows)
        return channels, (product * self.inverse_std).float(), bias.float()


def _statistics(norm: nn.BatchNorm2d, x: np.ndarray) -> _Statistics:
    """Return the statistics of a batch (M, C), and update the running ones of its norm as torch does."""
    mean, variance = _kernels().mean_and_variance(x)
    count = norm.get_buffer("num_batches_tracked").add_(1)
    share = 1 / count.item() if norm.momentum is None else norm.momentum
    for name, value in (("running_mean", mean), ("running_var", variance * len(x) / (len(x) - 1))):
        norm.get_buffer(name).lerp_(value.float(), share)
    inverse_std = (variance + norm.eps).rsqrt()
    a = (norm.weight.detach() * inverse_std).float().double()  # b is that of the rounded a, which the kernels use
    return _Statistics(mean, inverse_std, a, norm.bias.detach() - mean * a)


class _Norm(torch.autograd.Function):
    """Normalise by the statistics of the batch, and cut below `low`."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, norm: nn.BatchNorm2d, low: float
    ) -> torch.Tensor:
        x = x.contiguous(memory_format=NHWC)
        ctx.low, ctx.statistics, y = low, _statistics(norm, _numpy(x)), _like(x)
        _kernels().scale(_numpy(x), ctx.statistics.channels(), low, _numpy(y))
        ctx.save_for_backward(x)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: torch.Tensor) -> Any:
        (x,), found = ctx.saved_tensors, ctx.statistics
        dx, gradient, rows = _like(x), _numpy(dy.contiguous(memory_format=NHWC)), _numpy(x)
        sums = _kernels().gradient_sums(gradient, rows, found.channels(found.mean), ctx.low)
        channels, weight, bias = found.gradients(sums, len(rows))
        _kernels().input_gradient(gradient, rows, channels, ctx.low, _numpy(dx))
        return dx, weight, bias, None, None


class _NormSum(torch.autograd.Function):
    """Normalise, add the residual, and apply ReLU; return the output twice."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, skip: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, norm: nn.BatchNorm2d
    ) -> tuple[torch.Tensor, torch.Tensor]:
        x, skip = x.contiguous(memory_format=NHWC), skip.contiguous(memory_format=NHWC)
        ctx.statistics, y = _statistics(norm, _numpy(x)), _like(x)
        _kernels().scale_and_add(_numpy(x), _numpy(skip), ctx.statistics.channels(), _numpy(y))
        ctx.save_for_backward(x, y)
        return y, y.view_as(y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: torch.Tensor, dskip: torch.Tensor) -> Any:
        (x, y), found, (dx, dz) = ctx.saved_tensors, ctx.statistics, (_like(dy), _like(dy))
        gradients = (_numpy(each.contiguous(memory_format=NHWC)) for each in (dy, dskip))
        sums = _kernels().both_gradient_sums(*gradients, _numpy(x), _numpy(y), found.channels(found.mean), _numpy(dz))
        channels, weight, bias = found.gradients(sums, y.numel() // y.shape[1])
        _kernels().input_gradient(_numpy(dz), _numpy(x), channels, LINEAR, _numpy(dx))
        return dx, dz, weight, bias, None
