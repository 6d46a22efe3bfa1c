"""Convolve maps in bfloat16, by torch's convolution or as matrix products, with gradients."""

from typing import Any, NamedTuple

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

NHWC = torch.channels_last


class Products(NamedTuple):
    """Which results of a convolution are matrix products; torch's convolution computes the others."""

    y: bool
    dx: bool
    dw: bool


def by_product(kernel: int, stride: int, n_rows: int) -> Products:
    """Return the rule by shape, measured on a Zen 5 core with AVX512-BF16.

    Args:
        kernel: side of the kernel.
        stride: of the convolution.
        n_rows: pixels of all output maps, N * H * W.
    """
    if kernel == 1:
        whole = stride == 2 or n_rows <= 1000
        return Products(y=whole, dx=whole, dw=whole or n_rows <= 12_000)
    if kernel == 3:  # with few rows, collecting the neighbours of each pixel is cheap
        return Products(y=n_rows <= 1000, dx=False, dw=n_rows <= (3200 if stride == 2 else 1600))
    return Products(y=False, dx=False, dw=False)


def convolve(layer: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """Return a layer's output for maps x in bfloat16; both are channels_last."""
    y: torch.Tensor = _Convolution.apply(x, layer.weight, layer.stride[0])
    return y


class _Convolution(torch.autograd.Function):
    """Convolve in bfloat16, padding by half a kernel, without bias."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, stride: int) -> torch.Tensor:
        x = x.contiguous(memory_format=NHWC)
        kernel, weight = weight.shape[-1], weight.to(torch.bfloat16)
        height, width = ((side - 1) // stride + 1 for side in x.shape[2:])
        ctx.stride, ctx.products = stride, by_product(kernel, stride, len(x) * height * width)
        columns = None
        if ctx.products.y:
            columns = _columns(x, kernel, stride)
            y = _as_maps(columns @ _matrix(weight).t(), len(x), height, width)
        else:
            y = torch.convolution(x, weight, None, *_options(stride, kernel))
        ctx.save_for_backward(x, weight, columns)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: torch.Tensor) -> Any:
        x, weight, columns = ctx.saved_tensors
        stride, kernel, dy = ctx.stride, weight.shape[-1], dy.contiguous(memory_format=NHWC)
        need_x, need_weight, _ = ctx.needs_input_grad
        rows, dx, dw = as_rows(dy), None, None
        if need_x and ctx.products.dx:
            dx = _as_maps(rows @ _matrix(weight), len(dy), *dy.shape[2:])
            if stride > 1:
                at_outputs, dx = dx, torch.zeros_like(x, memory_format=NHWC)
                dx[:, :, ::stride, ::stride] = at_outputs
        if need_weight and ctx.products.dw:
            columns = _columns(x, kernel, stride) if columns is None else columns
            if len(rows) > 3200 and rows.shape[1] > columns.shape[1]:  # transposing the narrower matrix is faster
                dw = (columns.t() @ rows).t()
            else:
                dw = rows.t() @ columns
            dw = dw.reshape(len(weight), kernel, kernel, -1).permute(0, 3, 1, 2)
        wanted = [need_x and dx is None, need_weight and dw is None, False]
        if any(wanted):
            found = torch.ops.aten.convolution_backward(dy, x, weight, None, *_options(stride, kernel), wanted)
            dx, dw = found[0] if wanted[0] else dx, found[1] if wanted[1] else dw
        return dx, None if dw is None else dw.float(), None


def _options(stride: int, kernel: int) -> tuple[Any, ...]:
    """Return stride, padding, dilation, transposed, output padding and groups as torch's operators take them."""
    return [stride] * 2, [kernel // 2] * 2, [1, 1], False, [0, 0], 1


def as_rows(maps: torch.Tensor) -> torch.Tensor:
    """Return maps (N, C, H, W), channels_last, as a matrix (N * H * W, C) of the same memory."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def _as_maps(rows: torch.Tensor, n: int, height: int, width: int) -> torch.Tensor:
    """Return a matrix (N * H * W, C) as maps (N, C, H, W), channels_last, of the same memory."""
    return rows.view(n, height, width, -1).permute(0, 3, 1, 2)


def _matrix(weight: torch.Tensor) -> torch.Tensor:
    """Return weights (C_out, C_in, k, k) as a matrix (C_out, k * k * C_in)."""
    return weight.permute(0, 2, 3, 1).reshape(len(weight), -1)


def _columns(x: torch.Tensor, kernel: int, stride: int) -> torch.Tensor:
    """Return what each output pixel is computed from, (N * H * W, k * k * C_in), for a kernel of side 1 or 3."""
    if kernel == 1:
        return as_rows(x[:, :, ::stride, ::stride])
    padded = functional.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    n, height, width, channels = padded.shape
    image, line, pixel, _ = padded.stride()
    shape = n, (height - 3) // stride + 1, (width - 3) // stride + 1, 3, 3 * channels
    return padded.as_strided(shape, (image, stride * line, stride * pixel, line, 1)).reshape(-1, 9 * channels)
