"""What is free, read from a made-up system."""

import resource
from pathlib import Path

import pytest
import torch

from pipeline.runtime.memory import free_bytes

CPU = torch.device("cpu")
PAGE = resource.getpagesize()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine with 1000 kB available and no control groups."""
    write(tmp_path, "proc/meminfo", "MemTotal:  4000 kB\nMemAvailable:  1000 kB\nHugePages_Total:  0\n")
    return tmp_path


def write(root: Path, name: str, text: str) -> None:
    """Write a file of the made-up system."""
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def group(root: Path, path: str, *, limit: str, used: int, cached: int) -> None:
    """Write a control group of version 2."""
    write(root, f"{path}/memory.max", f"{limit}\n")
    write(root, f"{path}/memory.current", f"{used}\n")
    write(root, f"{path}/memory.stat", f"anon 5\ninactive_file {cached}\n")


def test_the_machines_memory(root: Path) -> None:
    assert free_bytes(CPU, root=root) == 1000 * 1024


def test_a_system_that_does_not_report_it(tmp_path: Path) -> None:
    assert free_bytes(CPU, root=tmp_path) > 2**28


def test_a_control_group_of_version_2_and_the_one_above(root: Path) -> None:
    write(root, "proc/self/cgroup", "0::/job/step\n")
    group(root, "sys/fs/cgroup/job/step", limit="max", used=100, cached=0)
    assert free_bytes(CPU, root=root) == 1000 * 1024
    group(root, "sys/fs/cgroup/job", limit="9000", used=3000, cached=500)
    assert free_bytes(CPU, root=root) == 9000 - 2500
    group(root, "sys/fs/cgroup/job/step", limit="4000", used=100, cached=0)
    assert free_bytes(CPU, root=root) == 3900
    group(root, "sys/fs/cgroup/job/step", limit="50", used=100, cached=0)
    assert free_bytes(CPU, root=root) == 0


def test_a_container_that_shows_its_own_group_only(root: Path) -> None:
    write(root, "proc/self/cgroup", "0::/host/job\n")
    group(root, "sys/fs/cgroup", limit="7000", used=3000, cached=0)
    assert free_bytes(CPU, root=root) == 4000


def test_a_control_group_of_version_1(root: Path) -> None:
    write(root, "proc/self/cgroup", "5:name=systemd:/\n4:cpu,memory:/job\n0::/\n")
    write(root, "sys/fs/cgroup/memory/job/memory.limit_in_bytes", "8000\n")
    write(root, "sys/fs/cgroup/memory/job/memory.usage_in_bytes", "6000\n")
    write(root, "sys/fs/cgroup/memory/job/memory.stat", "cache 2000\ntotal_inactive_file 1000\n")
    assert free_bytes(CPU, root=root) == 3000


def test_a_limit_of_the_address_space(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = 100 * PAGE
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    write(root, "proc/self/statm", "30 20 10\n")
    assert free_bytes(CPU, root=root) == 70 * PAGE


def test_a_device_that_does_not_report_it(root: Path) -> None:
    assert free_bytes(torch.device("mps"), root=root) == 0
