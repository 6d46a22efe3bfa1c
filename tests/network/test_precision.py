"""The precision follows from the request, else from the hardware."""

from pathlib import Path

import pytest
import torch

from pipeline.network import precision
from pipeline.network.precision import autocast, choose_precision, default_precision

CPU = torch.device("cpu")
CPU_INFO = "processor\t: 0\nflags\t\t: fpu sse2 {flags} avx2\nbugs\t\t: none\n"


@pytest.mark.parametrize("requested", ["fp32", "bf16"])
def test_a_requested_precision_is_used(requested: str) -> None:
    assert choose_precision(requested, CPU) == requested


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("avx512f avx512_bf16", "bf16"),
        ("amx_tile amx_bf16 amx_int8", "bf16"),
        ("avx512f avx512_vnni amx_tile", "fp32"),
        ("", "fp32"),
    ],
)
def test_a_cpu_with_bf16_instructions_computes_in_bf16(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, expected: str
) -> None:
    listed = tmp_path / "cpuinfo"
    listed.write_text(CPU_INFO.format(flags=flags))
    monkeypatch.setattr(precision, "CPU_INFO", listed)
    assert default_precision(CPU) == expected
    assert choose_precision("auto", CPU) == expected


@pytest.mark.parametrize("content", [None, "processor : 0\nFeatures : asimd bf16\n"])
def test_a_system_that_lists_no_instructions_computes_in_fp32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    listed = tmp_path / "cpuinfo"
    if content is not None:
        listed.write_text(content)
    monkeypatch.setattr(precision, "CPU_INFO", listed)
    assert default_precision(CPU) == "fp32"


@pytest.mark.parametrize(("has_bf16", "expected"), [(True, "bf16"), (False, "fp32")])
def test_a_gpu_with_bf16_computes_in_bf16(monkeypatch: pytest.MonkeyPatch, has_bf16: bool, expected: str) -> None:
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16 and not including_emulation
    )
    assert default_precision(torch.device("cuda")) == expected


def test_other_devices_compute_in_fp32() -> None:
    assert default_precision(torch.device("mps")) == "fp32"


def test_autocast_is_on_for_bf16_only() -> None:
    layer, x = torch.nn.Linear(2, 2), torch.ones(1, 2)
    with autocast(CPU, "bf16"):
        assert layer(x).dtype == torch.bfloat16
    with autocast(CPU, "fp32"):
        assert layer(x).dtype == torch.float32
