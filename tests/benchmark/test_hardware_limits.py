"""The limit is the rate of the timed product."""

import pytest
import torch

from pipeline.benchmark import hardware_limits
from pipeline.benchmark.hardware_limits import peak_flops


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_limit_is_that_of_the_timed_product(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(hardware_limits.SIDE, "cpu", 64)
    clock = iter(float(i) for i in range(10_000))  # every reading of the clock is one second later
    monkeypatch.setattr(hardware_limits.time, "perf_counter", lambda: next(clock))
    assert peak_flops(torch.device("cpu"), precision, seconds=20.0) == 2 * 64**3  # type: ignore[arg-type]
