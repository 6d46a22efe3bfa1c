"""What each of torchrun's processes knows of its place, and what only the first of them does."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipeline import prepare, train
from pipeline.errors import Locked, UsageError
from pipeline.runtime import device, process
from pipeline.runtime.console import log
from pipeline.storage.lock import NAME, locked, locked_run


@pytest.fixture
def as_rank(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`as_rank(rank, n, local=..., n_local=...)`: let this process be one of torchrun's."""

    def become(rank: int, n: int, *, local: int | None = None, n_local: int | None = None) -> None:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
        here = {"LOCAL_RANK": rank if local is None else local, "LOCAL_WORLD_SIZE": n_local or n}
        names = {"RANK": rank, "WORLD_SIZE": n, **here}
        for name, value in names.items():
            monkeypatch.setenv(name, str(value))
        monkeypatch.delenv("MASTER_ADDR", raising=False)

    return become


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch systems set the same names."""
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "3")
    assert (process.rank(), process.n_ranks(), process.local_rank(), process.n_local_ranks()) == (0, 1, 0, 1)
    assert process.is_first()


def test_the_first_alone_says_how_it_goes_and_any_may_complain(
    as_rank: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Where torchrun's store cannot be asked, an error is rather said twice."""
    for rank in (0, 1):
        as_rank(rank, 2)
        log.info(f"progress of {rank}")
        log.error(f"error of {rank}")
    assert capsys.readouterr().err.splitlines() == ["progress of 0", "error: error of 0", "error: error of 1"]


def test_what_all_print_is_printed_once(as_rank: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    for rank in (0, 1):
        as_rank(rank, 2)
        with process.report_once():
            print("out")
            print("err", file=sys.stderr)
    assert capsys.readouterr() == ("out\n", "err\n")


def test_the_first_alone_holds_the_run(as_rank: Callable[..., None], tmp_path: Path) -> None:
    as_rank(1, 2)
    with locked_run(tmp_path):
        assert not (tmp_path / NAME).exists()
    as_rank(0, 2)
    with locked_run(tmp_path), pytest.raises(Locked), locked(tmp_path):
        pass


def test_cores_are_shared_by_the_processes_of_a_machine(
    as_rank: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    monkeypatch.setattr(device, "cpu_quotas", lambda root: [])
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert (device.n_cores(), device.n_workers(None)) == (6, 4)
    as_rank(5, 8, local=1, n_local=2)
    assert (device.n_cores(), device.n_workers(None), device.n_workers(7)) == (3, 3, 7)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # by torchrun itself
    assert device.n_cores() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert device.n_cores() == 2
    as_rank(5, 8)
    assert device.n_cores() == 1


def test_each_process_takes_the_gpu_of_its_number(
    as_rank: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    as_rank(3, 4, local=1, n_local=2)
    assert device.use_device("auto", None) == device.use_device("cuda", None) == torch.device("cuda:1")
    assert device.use_device("cpu", None) == torch.device("cpu")
    for name in ("cuda:0", "mps"):
        with pytest.raises(UsageError, match=f"--device {name}: under torchrun cpu, or cuda"):
            device.use_device(name, None)
    as_rank(3, 4)
    with pytest.raises(UsageError, match=r"4 processes on a machine with 2 GPU\(s\): pass --nproc-per-node 2"):
        device.use_device("auto", None)


def test_only_what_several_can_do_together_is_begun(
    as_rank: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    as_rank(0, 2)
    assert prepare.main(["--run", str(tmp_path / "run"), "--data", "demo"]) == 2
    assert "python -m pipeline.prepare works in one process: start it without torchrun" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert train.main(["--run", str(tmp_path / "run")]) == 1
    assert "no such run folder" in capsys.readouterr().err
