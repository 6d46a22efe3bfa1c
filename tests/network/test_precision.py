"""What is asked for is used; `auto` gives one of the two."""

import pytest
import torch

from pipeline.network import precision
from pipeline.network.precision import autocast, choose_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize("asked", ["fp32", "bf16"])
def test_what_is_asked_for_is_used(asked: str) -> None:
    assert choose_precision(asked, CPU) == asked


@pytest.mark.parametrize(("gain", "expected"), [(0.0, "bf16"), (1e9, "fp32")])
def test_auto_asks_for_a_gain(monkeypatch: pytest.MonkeyPatch, gain: float, expected: str) -> None:
    monkeypatch.setattr(precision, "GAIN", gain)
    assert choose_precision("auto", CPU) == expected


def test_auto_on_other_devices_than_cpu_and_cuda_is_fp32() -> None:
    assert choose_precision("auto", torch.device("mps")) == "fp32"


def test_autocast_is_on_for_bf16_only() -> None:
    layer, x = torch.nn.Linear(2, 2), torch.ones(1, 2)
    with autocast(CPU, "bf16"):
        assert layer(x).dtype == torch.bfloat16
    with autocast(CPU, "fp32"):
        assert layer(x).dtype == torch.float32


def test_the_choice_leaves_the_number_of_threads_alone() -> None:
    torch.set_num_threads(2)
    try:
        choose_precision("auto", CPU)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
