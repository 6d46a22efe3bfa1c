"""How many cores a process takes, read from a made-up system."""

import os
from pathlib import Path

import pytest

from pipeline.runtime.device import limit_threads, n_cores, n_workers

from .test_memory import write


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 16 cores and no control groups."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return tmp_path


def test_the_affinity_mask(root: Path) -> None:
    assert n_cores(root=root) == 16


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", 16), ("400000 100000", 4), ("250000 100000", 2), ("50000 100000", 1), ("9900000 100000", 16)],
)
def test_a_quota_of_version_2(root: Path, quota: str, cores: int) -> None:
    write(root, "proc/self/cgroup", "0::/job/step\n")
    write(root, "sys/fs/cgroup/job/step/cpu.max", f"{quota}\n")
    assert n_cores(root=root) == cores


def test_the_lowest_quota_of_the_groups_above_counts(root: Path) -> None:
    write(root, "proc/self/cgroup", "0::/job/step\n")
    write(root, "sys/fs/cgroup/job/step/cpu.max", "max 100000\n")
    write(root, "sys/fs/cgroup/job/cpu.max", "300000 100000\n")
    assert n_cores(root=root) == 3
    write(root, "sys/fs/cgroup/cpu.max", "200000 100000\n")
    assert n_cores(root=root) == 2


def test_a_container_that_shows_its_own_group_only(root: Path) -> None:
    write(root, "proc/self/cgroup", "0::/host/job\n")
    write(root, "sys/fs/cgroup/cpu.max", "500000 100000\n")
    assert n_cores(root=root) == 5


@pytest.mark.parametrize(("quota", "cores"), [(-1, 16), (350_000, 3), (1000, 1)])
def test_a_quota_of_version_1(root: Path, quota: int, cores: int) -> None:
    write(root, "proc/self/cgroup", "5:memory:/other\n4:cpu,cpuacct:/job\n0::/\n")
    write(root, "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us", f"{quota}\n")
    write(root, "sys/fs/cgroup/cpu/job/cpu.cfs_period_us", "100000\n")
    assert n_cores(root=root) == cores


@pytest.mark.parametrize(
    ("variable", "cores"), [("1", 1), ("3", 3), ("64", 16), ("2,4", 2), ("", 16), ("many", 16), ("0", 16)]
)
def test_omp_num_threads(root: Path, monkeypatch: pytest.MonkeyPatch, variable: str, cores: int) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", variable)
    assert n_cores(root=root) == cores


def test_workers_follow(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    assert n_workers(None) == min(4, n_cores())
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert n_workers(None) == 1
    assert n_workers(3) == 3


def test_libraries_follow_unless_the_user_decides(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    limit_threads()
    assert os.environ["OMP_NUM_THREADS"] == "5"
    monkeypatch.delenv("OMP_NUM_THREADS")
    limit_threads()
    assert os.environ["OMP_NUM_THREADS"] == str(n_cores())
