"""Convolutions as matrix products have the outputs and gradients of torch's."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from pipeline.network.training.bf16.convolution import Products, by_product, convolve

SHAPES = [  # kernel, stride, images, side; rows of output
    (1, 1, 2, 6),  # 72: all three are products
    (1, 1, 5, 15),  # 1125: the weight's gradient
    (1, 1, 4, 30),  # 3600: the same, from the transposed narrower matrix
    (1, 1, 13, 31),  # 12,493: none
    (1, 2, 3, 9),
    (1, 2, 2, 8),
    (3, 1, 2, 5),  # 50: output and weight's gradient
    (3, 2, 2, 8),
    (3, 2, 2, 7),
    (3, 1, 5, 15),  # 1125: the weight's gradient
    (3, 1, 5, 18),  # 1620: none
    (3, 2, 8, 29),  # 1800: the weight's gradient
    (3, 2, 15, 30),  # 3375: none
    (7, 2, 2, 20),
    (3, 1, 1, 1),
    (1, 1, 1, 1),
]


def error(found: torch.Tensor, exact: torch.Tensor) -> float:
    """Return the relative L2 distance."""
    return float((found.detach().double() - exact.double()).norm() / exact.double().norm())


def by_torch(
    x: torch.Tensor, weight: torch.Tensor, dy: torch.Tensor, *, dtype: torch.dtype, stride: int
) -> list[torch.Tensor]:
    """Return torch's output, gradient of the input and gradient of the weight."""
    x, weight = (each.detach().to(dtype).requires_grad_() for each in (x, weight.bfloat16()))
    y = functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
    return [y.detach(), *torch.autograd.grad(y, (x, weight), dy.to(dtype))]


@pytest.mark.parametrize(("kernel", "stride", "n", "side"), SHAPES)
@pytest.mark.parametrize("channels", [(8, 16), (16, 8)])
def test_outputs_and_gradients_are_those_of_torch(
    kernel: int, stride: int, n: int, side: int, channels: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(*channels, kernel, stride, padding=kernel // 2, bias=False)
    layer.to(memory_format=torch.channels_last)
    x = torch.randn(n, channels[0], side, side).bfloat16().contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    y = convolve(layer, x)
    assert y.dtype == torch.bfloat16
    dy = torch.randn(y.shape).bfloat16().contiguous(memory_format=torch.channels_last)
    found = [y, *torch.autograd.grad(y, (x, layer.weight), dy)]
    exact, eager = (
        by_torch(x, layer.weight, dy, dtype=dtype, stride=stride) for dtype in (torch.float64, torch.bfloat16)
    )
    products = by_product(kernel, stride, len(y) * y[0, 0].numel())
    for product, ours, of_float64, of_torch in zip(products, found, exact, eager, strict=True):
        assert error(ours, of_float64 if product else of_torch) < 3e-3
    assert found[2].dtype == torch.float32
    assert found[2].shape == layer.weight.shape


def test_the_gradient_of_a_weight_has_its_memory_order() -> None:
    layer = nn.Conv2d(8, 16, 3, padding=1, bias=False).to(memory_format=torch.channels_last)
    torch.autograd.backward(convolve(layer, torch.randn(2, 8, 5, 5).bfloat16()).sum())
    assert layer.weight.grad is not None
    assert layer.weight.grad.stride() == layer.weight.stride()


def test_the_shapes_reach_every_rule() -> None:
    rules = {by_product(kernel, stride, n * (-(-side // stride)) ** 2) for kernel, stride, n, side in SHAPES}
    assert rules == {
        Products(y=True, dx=True, dw=True),
        Products(y=True, dx=False, dw=True),
        Products(y=False, dx=False, dw=True),
        Products(y=False, dx=False, dw=False),
    }


@pytest.mark.parametrize("kernel", [1, 3])
def test_frozen_weights_get_no_gradient(kernel: int) -> None:
    layer = nn.Conv2d(4, 4, kernel, padding=kernel // 2, bias=False).requires_grad_(requires_grad=False)
    x = torch.randn(2, 4, 5, 5).bfloat16().requires_grad_()
    torch.autograd.backward(convolve(layer, x).sum())
    assert layer.weight.grad is None
    assert x.grad is not None


@pytest.mark.parametrize("kernel", [1, 3])
def test_images_get_no_gradient(kernel: int) -> None:
    layer = nn.Conv2d(4, 4, kernel, 2, padding=kernel // 2, bias=False)
    torch.autograd.backward(convolve(layer, torch.randn(2, 4, 5, 5).bfloat16()).sum())
    assert layer.weight.grad is not None
