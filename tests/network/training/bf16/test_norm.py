"""Fused norms have the outputs, gradients and statistics of float64, and the errors of torch's batch norm."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from pipeline.network.training.bf16 import norm as module
from pipeline.network.training.bf16.norm import LINEAR, add_normalised, normalise

pytest.importorskip("numba")

WAYS = ("linear", "relu", "sum")
"""Batch norm alone, with ReLU, and with residual sum and ReLU."""


def maps(shape: tuple[int, ...], *, offset: float = 0.0) -> torch.Tensor:
    """Return random maps in bfloat16, channels_last; the channels' means differ."""
    centre = offset * torch.randn(1, shape[1], 1, 1)
    return (torch.randn(shape) + centre).bfloat16().contiguous(memory_format=torch.channels_last)


def new_norm(channels: int, *, momentum: float | None = 0.1) -> nn.BatchNorm2d:
    """Return a norm with random weights."""
    norm = nn.BatchNorm2d(channels, momentum=momentum)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


def exact(
    way: str, norm: nn.BatchNorm2d, x: torch.Tensor, skip: torch.Tensor, dy: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Return output, gradients and running statistics in float64, by torch."""
    norm, x, skip = copy.deepcopy(norm).double(), x.detach().double(), skip.detach().double()
    x.requires_grad_()
    skip.requires_grad_()
    y = norm(x)
    y = y + skip if way == "sum" else y
    y = y if way == "linear" else functional.relu(y)
    y.backward(dy)
    assert x.grad is not None
    found = {"y": y.detach(), "dx": x.grad, **statistics(norm)}
    return found | ({} if skip.grad is None else {"dskip": skip.grad})


def statistics(norm: nn.BatchNorm2d) -> dict[str, torch.Tensor]:
    """Return the gradients and the running statistics of a norm."""
    assert norm.weight.grad is not None
    assert norm.bias.grad is not None
    found = {"dweight": norm.weight.grad, "dbias": norm.bias.grad, **dict(norm.named_buffers())}
    return {name: value.clone() for name, value in found.items()}


def ours(
    way: str, norm: nn.BatchNorm2d, x: torch.Tensor, skip: torch.Tensor, dy: tuple[torch.Tensor, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return the same as `exact`, by the fused passes; a sum gets two gradients."""
    norm, x, skip = copy.deepcopy(norm), x.detach().requires_grad_(), skip.detach().requires_grad_()
    if way == "sum":
        y, same = add_normalised(norm, x, skip)
        torch.autograd.backward([y, same], list(dy))
    else:
        y = normalise(norm, x, low=LINEAR if way == "linear" else 0.0)
        y.backward(dy[0])
    assert type(y.grad_fn).__name__.startswith("_Norm")
    assert x.grad is not None
    assert y.is_contiguous(memory_format=torch.channels_last)
    found = {"y": y.detach(), "dx": x.grad, **statistics(norm)}
    return found | ({} if skip.grad is None else {"dskip": skip.grad})


def errors(found: dict[str, torch.Tensor], reference: dict[str, torch.Tensor]) -> dict[str, float]:
    """Return the relative L2 distance of each entry."""
    assert found.keys() == reference.keys()
    return {
        name: float((found[name].double() - value).norm() / value.double().norm().clamp(min=1e-30))
        for name, value in reference.items()
    }


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("offset", [0.0, 20.0])
def test_units_agree_with_float64(way: str, offset: float) -> None:
    torch.manual_seed(1)
    shape = (7, 24, 11, 13)
    norm, x, skip, *dy = new_norm(24), maps(shape, offset=offset), maps(shape), maps(shape), maps(shape)
    together = dy[0].double() + (dy[1].double() if way == "sum" else 0)
    found = ours(way, norm, x, skip, (dy[0], dy[1]))
    off = errors(found, exact(way, norm, x, skip, together))
    assert off["y"] < 3e-3
    assert off["dx"] < 3e-3
    assert off.get("dskip", 0.0) < 3e-3
    assert max(off[name] for name in ("dweight", "dbias", "running_mean", "running_var")) < 1e-5
    assert off["num_batches_tracked"] == 0


@pytest.mark.parametrize("way", WAYS)
def test_results_repeat_and_do_not_depend_on_the_threads(way: str) -> None:
    torch.manual_seed(2)
    shape = (5, 8, 16, 17)  # 6 blocks of 256 rows, the last one smaller
    norm, x, skip, *dy = new_norm(8), maps(shape), maps(shape), maps(shape), maps(shape)
    runs = []
    for threads in (1, 1, 2, 4):
        torch.set_num_threads(threads)
        runs.append(ours(way, norm, x, skip, (dy[0], dy[1])))
    for run in runs[1:]:
        assert all(torch.equal(run[name], value) for name, value in runs[0].items())


@pytest.mark.parametrize("momentum", [None, 0.3, 0.0])
def test_running_statistics_follow_the_momentum(momentum: float | None) -> None:
    torch.manual_seed(3)
    norm = new_norm(6, momentum=momentum)
    reference = copy.deepcopy(norm)
    for _ in range(3):
        x = maps((4, 6, 3, 3), offset=2)
        normalise(norm, x, low=0.0)
        reference(x.float())
    off = errors(dict(norm.named_buffers()), dict(reference.named_buffers()))
    assert max(off.values()) < 1e-5
    assert norm.num_batches_tracked == 3


@pytest.mark.parametrize("shape", [(2, 6, 1, 1), (1, 6, 2, 1)])
@pytest.mark.parametrize("way", WAYS)
def test_two_values_per_channel_are_normalised(way: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(4)
    norm, x, skip, dy = new_norm(6), maps(shape), maps(shape), maps(shape)
    found = ours(way, norm, x, skip, (dy, torch.zeros_like(dy)))
    reference = exact(way, norm, x, skip, dy.double())
    # both values are one standard deviation from the mean: their gradient is a difference of equal numbers
    assert float((found.pop("dx").double() - reference.pop("dx")).abs().max()) < 1e-2
    off = errors(found, reference)
    assert max(off["y"], off["running_mean"], off["running_var"]) < 3e-3


@pytest.mark.parametrize("way", WAYS)
def test_one_value_per_channel_is_the_error_of_torch(way: str) -> None:
    norm, x = new_norm(6), maps((1, 6, 1, 1))
    with pytest.raises(ValueError, match="more than 1 value per channel") as reference:
        norm(x)
    norm.num_batches_tracked.zero_()
    with pytest.raises(ValueError, match="more than 1 value per channel") as found:
        ours(way, norm, x, x, (x, x))
    assert str(found.value) == str(reference.value)


@pytest.mark.parametrize("way", WAYS)
def test_a_frozen_norm_is_that_of_torch(way: str) -> None:
    torch.manual_seed(5)
    norm, x = new_norm(6).eval(), maps((4, 6, 3, 3))
    before = copy.deepcopy(norm.state_dict())
    y = add_normalised(norm, x, x)[0] if way == "sum" else normalise(norm, x, low=LINEAR if way == "linear" else 0.0)
    expected = norm(x) + x if way == "sum" else norm(x)
    assert torch.equal(y, expected if way == "linear" else functional.relu(expected))
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())


def test_frozen_weights_get_no_gradient() -> None:
    norm = new_norm(6).requires_grad_(requires_grad=False)
    x = maps((4, 6, 3, 3)).requires_grad_()
    torch.autograd.backward(normalise(norm, x, low=0.0).sum())
    assert norm.weight.grad is None
    assert x.grad is not None


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_not_hidden(way: str, bad: float) -> None:
    norm, x, dy = new_norm(6), maps((4, 6, 3, 3)), maps((4, 6, 3, 3))
    x[1, 2, 0, 0] = bad
    found = ours(way, norm, x, torch.zeros_like(x), (dy, dy))
    for name in ("y", "dx"):
        assert found[name][:, 2].isnan().all()
        assert found[name][:, [0, 1, 3, 4, 5]].isfinite().all()


def test_means_far_from_zero_cost_no_digits() -> None:
    torch.manual_seed(6)
    x = (100 + torch.randn(8, 4, 9, 9)).bfloat16().contiguous(memory_format=torch.channels_last)
    norm = new_norm(4, momentum=1.0)
    normalise(norm, x, low=0.0)
    variance = x.double().var((0, 2, 3))
    assert torch.allclose(norm.running_var.double(), variance, rtol=1e-6)


def test_without_numba_norms_are_those_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_kernels", lambda: None)
    norm, x = new_norm(6), maps((4, 6, 3, 3))
    reference = copy.deepcopy(norm)
    assert torch.equal(normalise(norm, x, low=0.0), functional.relu(reference(x)))
    assert torch.equal(add_normalised(norm, x, x)[0], functional.relu(reference(x) + x))
    assert all(torch.equal(value, reference.state_dict()[name]) for name, value in norm.state_dict().items())
