"""What machines are called in file names, and that no name of a host gets into them."""

import platform
from pathlib import Path

import pytest
import torch

from pipeline.benchmark import hardware


@pytest.mark.parametrize(
    ("name", "units", "threads", "slug"),
    [
        ("Intel(R) Xeon(R) Processor", ["amx_bf16", "avx2"], 2, "intel-xeon-amx-2-cores"),
        ("Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz", ["avx2"], 1, "intel-xeon-e5-2680-v4-1-core"),
        ("AMD EPYC 9R14 96-Core Processor", ["avx512f"], 8, "amd-epyc-9r14-8-cores"),
        ("AMD Ryzen 7 7840U w/ Radeon 780M Graphics", [], 8, "amd-ryzen-7-7840u-w-radeon-780m-graphics-8-cores"),
        ("Apple M2 Pro", [], 10, "apple-m2-pro-10-cores"),
        ("NVIDIA H200", [], None, "nvidia-h200"),
        ("@@", [], 2, "unknown-2-cores"),
    ],
)
def test_slug(name: str, units: list[str], threads: int | None, slug: str) -> None:
    assert hardware.slug(name, units=units, threads=threads) == slug


def test_the_kernels_words_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nmodel name\t: Some Chip(TM)\nflags\t\t: fpu avx2 amx_bf16 sse\n")
    monkeypatch.setattr(hardware, "CPUINFO", file)
    assert hardware.cpu_name() == "Some Chip(TM)"
    assert hardware.cpu_units() == ["amx_bf16", "avx2"]
    assert hardware.machine_slug(torch.device("cpu"), 3) == "some-chip-amx-3-cores"


def test_a_system_that_tells_nothing_still_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "CPUINFO", tmp_path / "none")
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert hardware.cpu_name() == "riscv64"
    assert hardware.cpu_units() == []


def test_no_host_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "node", lambda: "secret-host")
    assert "secret-host" not in " ".join(hardware.describe(torch.device("cpu"), 2))
