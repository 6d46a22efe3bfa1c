"""Several processes of torchrun train what one trains; if one of them dies, all end, and the same command goes on."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import distributed, nn

from pipeline import prepare, train
from pipeline.errors import PeerLost
from pipeline.network.distributed import LOST_ELSEWHERE, Ranks, peer_errors_as_one_line
from pipeline.network.resnet import build_network
from pipeline.network.training.sync_batchnorm import SharedBatchNorm2d, synchronise

TIMES = ["seconds", "images_per_second"]

ALL_SWITCHES = (
    "--recipe strong --optimizer sgd --lr 0.02 --mixup 0.2 --cutmix 1 --progressive 0.75 1 --ema 0.5 --norm-tiles 25"
)
"""With SGD, for Adam makes whole steps of what is nothing but rounding."""


def words_of(run: Path, more: str) -> list[str]:
    """Return the command line of a training of seconds; later words win."""
    small = (
        "--arch resnet10 --tile-px 32 --epochs 2 --batch-size 7 --precision fp32 --device cpu --threads 1 --workers 0"
    )
    return ["--run", str(run), *small.split(), *more.split()]


def free_port() -> str:
    """Return the number of a port that no program uses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def launch(n: int, words: list[str], module: str = "pipeline.train") -> "subprocess.Popen[str]":
    """Start n processes of one command."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(n)]
    torchrun += ["--master-port", free_port()]
    return subprocess.Popen(
        [*torchrun, "-m", "--", module, *words], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )


def finished(n: int, words: list[str], module: str = "pipeline.train") -> str:
    """Run n processes of one command to their good end; return what they said."""
    process = launch(n, words, module)
    _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said
    return said


def rank_pids(process: "subprocess.Popen[str]") -> dict[int, int]:
    """Return the pid of each of torchrun's processes by its rank."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    found = {}
    for pid in map(int, children):
        place = re.search(rb"(?:^|\0)RANK=(\d+)\0", Path(f"/proc/{pid}/environ").read_bytes())
        if place:
            found[int(place[1])] = pid
    return found


def wait_for(process: "subprocess.Popen[str]", words: str) -> str:
    """Read what it says until a line holds some words; return what was read."""
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if words in line:
            return said
    raise AssertionError(said)


def our_lines(said: str, start: str = "error: ") -> list[str]:
    """Return the lines that begin so, among all that torchrun says."""
    return [line for line in said.splitlines() if line.startswith(start)]


def history(run: Path) -> pd.DataFrame:
    """Return the history without its times."""
    return pd.read_csv(run / "history.csv").drop(columns=TIMES)


def assert_alike(one: Path, other: Path) -> None:
    """Hold two trainings to be the same but for rounding."""
    pd.testing.assert_frame_equal(history(one), history(other), rtol=1e-3, atol=1e-4)
    ours, theirs = (load_file(run / "model.safetensors") for run in (one, other))
    assert ours.keys() == theirs.keys() == build_network("resnet10", n_classes=3, seed=0).state_dict().keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=1e-4, msg=lambda text, name=name: name + text)


@pytest.fixture
def runs(tile_folder: Callable[..., Path], tmp_path: Path) -> Callable[[str], Path]:
    """`runs(name)`: a prepared run folder of 51 tiles, of which the validation sees an odd number."""
    base = tmp_path / "base"
    tiles = tile_folder(classes=("A", "B", "C"), n=17, px=32)
    assert prepare.main(["--run", str(base), "--data", str(tiles), "--protocol", "random", "--workers", "0"]) == 0
    splits = pd.read_csv(base / "manifest.csv")["split"].value_counts()
    assert splits["val"] % 2 == 1
    assert splits["train"] % 7 > 1

    def copy(name: str) -> Path:
        return Path(shutil.copytree(base, tmp_path / name))

    return copy


@pytest.mark.slow
def test_two_processes_train_what_one_does(runs: Callable[[str], Path]) -> None:
    """Uneven shares, a last batch that is smaller, tiles mixed across the shares, an odd number to validate on."""
    alone, together = runs("alone"), runs("together")
    assert train.main(words_of(alone, ALL_SWITCHES)) == 0
    said = finished(2, words_of(together, ALL_SWITCHES))
    assert_alike(alone, together)
    assert len(our_lines(said, "train: resnet10 from scratch")) == 1
    assert "2 processes" in said
    assert len(our_lines(said, "train: epoch")) == 2
    assert not (together / "checkpoint.pt").exists()


@pytest.mark.slow
def test_three_processes_of_which_some_have_no_tile(runs: Callable[[str], Path]) -> None:
    """The last batch has two tiles for three processes: of 48 px, for a norm over two values makes much of rounding."""
    alone, together = runs("alone"), runs("together")
    n = int((pd.read_csv(alone / "manifest.csv")["split"] == "train").sum())
    more = f"{ALL_SWITCHES} --batch-size {n - 2} --tile-px 48 --progressive 1 --lr 0.002"
    assert train.main(words_of(alone, more)) == 0
    finished(3, words_of(together, more))
    assert_alike(alone, together)


@pytest.mark.slow
def test_tutorials_adam_learns_the_same(runs: Callable[[str], Path]) -> None:
    """Adam's steps have one length, whatever the gradient's: losses are compared, not weights."""
    alone, together = runs("alone"), runs("together")
    more = "--recipe tutorial --batch-size 8"
    assert train.main(words_of(alone, more)) == 0
    finished(2, words_of(together, more))
    np.testing.assert_allclose(history(together)["train_loss"], history(alone)["train_loss"], rtol=0.05)


@pytest.mark.fault("one of several training processes dies")
@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="processes are found in /proc")
@pytest.mark.parametrize("dies", [0, 1])
def test_the_death_of_one_ends_all_in_one_line_and_costs_nothing(runs: Callable[[str], Path], dies: int) -> None:
    """P2: the same command ends in the bytes of a training that nobody killed."""
    whole, killed = runs("whole"), runs("killed")
    more = f"{ALL_SWITCHES} --epochs 6"
    finished(2, words_of(whole, more))
    process = launch(2, words_of(killed, more))
    said = wait_for(process, "train: epoch 2/6")
    os.kill(rank_pids(process)[dies], signal.SIGKILL)
    rest = process.communicate(timeout=100)[1]
    assert process.returncode != 0
    assert len(our_lines(said + rest)) == 1, said + rest
    assert "another process of this torchrun ended" in rest
    assert "run the same command again to continue" in rest
    assert (killed / "checkpoint.pt").is_file()
    assert not (killed / "model.safetensors").exists()
    said = finished(2, words_of(killed, more))
    assert "train: continuing after epoch" in said
    assert (killed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    pd.testing.assert_frame_equal(history(killed), history(whole))


@pytest.mark.fault("one of several training processes dies")
@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_saves_once_and_one_process_can_go_on(runs: Callable[[str], Path], signum: int) -> None:
    """P2: torchrun hands the signal to all, and they stop at one step; small ones, for rounding grows with steps."""
    alone, stopped = runs("alone"), runs("stopped")
    more = f"{ALL_SWITCHES} --epochs 6 --lr 0.001"
    assert train.main(words_of(alone, more)) == 0
    process = launch(2, words_of(stopped, more))
    said = wait_for(process, "train: epoch 2/6")
    process.send_signal(signum)
    said += process.communicate(timeout=100)[1]
    assert process.returncode != 0
    assert len(our_lines(said)) == 1, said
    assert f"error: {signal.Signals(signum).name}: training saved in {stopped / 'checkpoint.pt'}" in said
    assert train.main(words_of(stopped, more)) == 0
    assert_alike(alone, stopped)


@pytest.mark.fault("one of several training processes dies")
@pytest.mark.slow
def test_a_lost_worker_ends_estimation_and_validation_in_all_processes(tmp_path: Path) -> None:
    """No process waits in a collective operation for the one that lost a worker."""
    script = Path(__file__).with_name("training") / "lose_a_worker.py"
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "TORCHELASTIC_RUN_ID": "test"}
    processes = [
        subprocess.Popen([sys.executable, str(script), str(tmp_path)], env=os.environ | place | {"RANK": str(rank)})
        for rank in range(2)
    ]
    try:
        assert [process.wait(timeout=300) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    for rank, line in enumerate([LOST_ELSEWHERE, "a worker process ended"]):
        assert (tmp_path / f"{rank}.txt").read_text().splitlines() == [line, "still together"] * 2


@pytest.mark.slow
def test_a_stop_is_heard_while_one_process_waits_for_another(runs: Callable[[str], Path]) -> None:
    """A batch system signals every process, and torchrun then signals its own once more."""
    run = runs("stopped")
    process = launch(2, words_of(run, f"{ALL_SWITCHES} --epochs 40"))
    said = wait_for(process, "train: epoch 1/40")
    pids = rank_pids(process)
    os.kill(pids[1], signal.SIGTERM)
    time.sleep(0.01)
    os.kill(pids[0], signal.SIGTERM)
    os.kill(pids[1], signal.SIGTERM)
    said += process.communicate(timeout=100)[1]
    assert len(our_lines(said)) == 1, said
    assert "error: SIGTERM: training saved" in said


@pytest.mark.slow
def test_a_plan_part_by_part(tile_folder: Callable[..., Path], tmp_path: Path) -> None:
    run = tmp_path / "plan"
    plan = ["--run", str(run), "--data", str(tile_folder(n=18, px=32, groups=6)), "--group-regex", "(s[0-9])_"]
    assert prepare.main([*plan, "--protocol", "logo", "--folds", "2", "--workers", "0"]) == 0
    said = finished(2, words_of(run, ALL_SWITCHES))
    assert len(our_lines(said, "train: part")) == 2
    assert len(list(run.glob("parts/*/model.safetensors"))) == 2
    assert len(our_lines(finished(2, words_of(run, ALL_SWITCHES)), "train: current")) == 2


@pytest.mark.fault("one of several training processes dies")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "code", "expected"),
    [
        ("--run nowhere/at/all", 1, "no such run folder"),
        ("--compiled", 2, "--compiled: only for a single process"),
        ("--batch-size 2 --epochs 1", 2, "fewer tiles than torchrun started processes, 3"),
        ("--device mps", 2, "--device mps: under torchrun cpu, or cuda"),
        ("--init nothing.pth", 1, "--init nothing.pth: no such file"),
    ],
)
def test_what_all_find_wrong_is_said_once(runs: Callable[[str], Path], more: str, code: int, expected: str) -> None:
    process = launch(3, words_of(runs("run"), more))
    said = process.communicate(timeout=100)[1]
    assert process.returncode != 0
    lines = our_lines(said)
    assert len(lines) == 1, said
    assert expected in lines[0]
    assert f"exitcode  : {code}" in said or f"exitcode: {code}" in said, said


@pytest.mark.slow
def test_other_commands_refuse_to_be_done_by_several(runs: Callable[[str], Path]) -> None:
    process = launch(2, ["--run", str(runs("run"))], "pipeline")
    said = process.communicate(timeout=100)[1]
    assert our_lines(said) == ["error: python -m pipeline works in one process: start it without torchrun"]


@pytest.mark.parametrize("n", [0, 1, 2, 7, 32])
@pytest.mark.parametrize("n_ranks", [1, 2, 3, 8])
def test_every_tile_belongs_to_one_process(monkeypatch: pytest.MonkeyPatch, n: int, n_ranks: int) -> None:
    shares = []
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    monkeypatch.setenv("WORLD_SIZE", str(n_ranks))
    for rank in range(n_ranks):
        monkeypatch.setenv("RANK", str(rank))
        shares.append(Ranks().share(n))
    assert [place for share in shares for place in share] == list(range(n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.fixture
def group_of_one() -> Iterator[None]:
    """A group in which one process talks to itself."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_shared_norm_is_torchs_where_nothing_is_shared(group_of_one: None, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.BatchNorm2d(5))
    with torch.no_grad():
        plain[0].weight.uniform_(0.5, 2)
        plain[0].bias.uniform_(-1, 1)
    shared = nn.Sequential(nn.BatchNorm2d(5))
    shared.load_state_dict(plain.state_dict())
    weight = shared[0].weight
    synchronise(shared)
    assert isinstance(shared[0], SharedBatchNorm2d)
    assert shared[0].weight is weight, "an optimizer may hold it"
    x = (100 + 3 * torch.randn(4, 5, 6, 6)).to(dtype)
    pull = torch.randn(4, 5, 6, 6)
    found = {}
    for name, layer in (("plain", plain), ("shared", shared)):
        mine = x.clone().requires_grad_()
        y = layer(mine)
        (y.float() * pull).sum().backward()
        found[name] = [y.detach(), mine.grad, *(value.grad for value in layer.parameters()), *layer.buffers()]
    close = {"rtol": 1e-4, "atol": 1e-4} if dtype is torch.float32 else {"rtol": 2e-2, "atol": 4e-2}
    for ours, theirs in zip(found["shared"], found["plain"], strict=True):
        torch.testing.assert_close(ours, theirs, **close)
    torch.testing.assert_close(shared.eval()(x), plain.eval()(x), **close)
    assert shared.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.fault("one of several training processes dies")
def test_only_what_speaks_of_other_processes_is_taken_for_a_death() -> None:
    for text in ("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:9", "NCCL error in: x"):
        with pytest.raises(PeerLost, match="another process of this torchrun ended"), peer_errors_as_one_line():
            raise RuntimeError(text)
    with pytest.raises(RuntimeError, match="a bug"), peer_errors_as_one_line():
        raise RuntimeError("a bug")
