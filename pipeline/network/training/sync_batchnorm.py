"""Normalise by the mean and variance of a batch that several processes share.

GPUs use torch's `SyncBatchNorm`, which does not support CPUs. CPUs use `SharedBatchNorm2d`, with the same names in the
state dict.
"""

from typing import Any

import torch
from torch import distributed, nn
from torch.nn import functional

CHANNELWISE = (0, 2, 3)
"""Axes of (B, C, H, W) that are summed over."""


class _SharedNorm(torch.autograd.Function):
    """Normalise by the mean and the variance over all processes, with the gradient through both.

    Ioffe and Szegedy 2015, "Batch normalization", algorithm 1, over the tiles of all processes; one may have none.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float) -> Any:
        n = x.numel() // x.shape[1]
        sums = torch.zeros(2 * x.shape[1] + 1, dtype=torch.float64)  # float64: squares of means are subtracted
        if n:
            var, mean = torch.var_mean(x.float(), CHANNELWISE, correction=0)
            mean, var = mean.double(), var.double()
            sums = torch.cat([n * mean, n * (var + mean**2), torch.tensor([n], dtype=torch.float64)])
        distributed.all_reduce(sums)
        total = sums[-1]
        mean, square = (sums[:-1] / total).view(2, -1)
        var = (square - mean**2).clamp_(min=0)
        mean, scale, var = mean.float(), (var + eps).rsqrt().float(), var.float()
        ctx.save_for_backward(x, weight, mean, var, scale, total)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, var, total)
        return functional.batch_norm(x, mean, var, weight, bias, training=False, eps=eps), mean, var, total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor, *_: Any) -> Any:
        x, weight, mean, var, scale, total = ctx.saved_tensors
        grad_x, grad_weight, grad_bias = gradient, torch.zeros_like(weight), torch.zeros_like(weight)
        if len(x):  # gradient with constant mean and variance (torch divides by zero without tiles) ...
            trains, wanted = False, [True, True, True]
            grad_x, grad_weight, grad_bias = torch.ops.aten.native_batch_norm_backward(
                gradient, x, weight, mean, var, None, None, trains, ctx.eps, wanted
            )
        # ... plus the gradient through mean and variance, for the losses of all processes
        sums = torch.stack([grad_weight, grad_bias]).double()
        distributed.all_reduce(sums)
        through_var, through_mean = (sums / total).float()
        slope = weight * scale
        tilt = slope * scale * through_var
        shift = (tilt * mean - slope * through_mean).view(1, -1, 1, 1)
        grad_x = grad_x.float() + shift - tilt.view(1, -1, 1, 1) * x
        return grad_x.to(x.dtype), grad_weight, grad_bias, None


class SharedBatchNorm2d(nn.BatchNorm2d):
    """`BatchNorm2d` on the CPU, in training over the batches of all processes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return normalised (B, C, H, W); B may be 0 in some processes."""
        if not self.training:
            return super().forward(x)
        y, mean, var, total = _SharedNorm.apply(x, self.weight, self.bias, self.eps)
        with torch.no_grad():
            unbiased = var * (total / (total - 1)).float()
            for name, now in (("running_mean", mean), ("running_var", unbiased)):
                self.get_buffer(name).lerp_(now, self.momentum or 0.0)
            self.get_buffer("num_batches_tracked").add_(1)
        return y


def synchronise(network: nn.Module) -> None:
    """Replace each BatchNorm2d of a network, in place, by one over all processes, with its weights and statistics."""
    for name, layer in list(network.named_children()):
        if isinstance(layer, nn.BatchNorm2d):
            setattr(network, name, _synchronised(layer))
        else:
            synchronise(layer)


def _synchronised(layer: nn.BatchNorm2d) -> nn.Module:
    if layer.weight.device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(layer)
    shared = SharedBatchNorm2d(layer.num_features, eps=layer.eps, momentum=layer.momentum)
    shared._parameters, shared._buffers = layer._parameters, layer._buffers
    return shared.train(layer.training)
