"""Extraction by the processes of torchrun: the file of one process; if one dies, the same command goes on."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import extract, verify
from pipeline.storage import records

Words = Callable[..., list[str]]

DYING = """
import os, signal, sys
from pipeline import extract
from pipeline.storage.embeddings.partial_rows import PartialRows
append, rank = PartialRows.append, sys.argv.pop(1)
def dying(self, rows):
    append(self, rows)
    if os.environ["RANK"] == rank:
        os.kill(os.getpid(), signal.SIGKILL)
PartialRows.append = dying
raise SystemExit(extract.main(sys.argv[1:]))
"""
"""extract, but kill -9 after the first batch of the process whose number is the first word."""


def torchrun(n: int, *command: str) -> tuple[int, str]:
    """Run n processes of one command; return torchrun's exit code and what was said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(n), "--master-port", port]
    done = subprocess.run(
        [*words, *command], capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    return done.returncode, done.stderr


@pytest.fixture
def single(trained_run: Path, words: Words) -> Path:
    """The file of an extraction by one process; it stands beside the run."""
    assert extract.main(words("extract", trained_run, "--engine", "torch")) == 0
    for name in ("embeddings.h5", "embeddings.h5.json"):
        (trained_run / name).rename(trained_run.parent / name)
    return trained_run.parent / "embeddings.h5"


@pytest.mark.slow
def test_two_processes_make_the_file_of_one(trained_run: Path, words: Words, single: Path) -> None:
    argv = words("extract", trained_run, "--engine", "torch")
    code, said = torchrun(2, "-m", "--", "pipeline.extract", *argv)
    assert code == 0, said
    assert "32 rows of 2 processes" in said
    out = trained_run / "embeddings.h5"
    assert out.read_bytes() == single.read_bytes()
    assert records.read_record(out)["options"] == records.read_record(single)["options"]
    assert not (trained_run / "embeddings.h5.ranks").exists()
    assert extract.main(argv) == 0, "current"
    assert verify.main(["--run", str(trained_run)]) == 0


@pytest.mark.fault(
    "shards at the same time on one run, one of them killed; runs of an ablation at the same time on one plan"
)
@pytest.mark.slow
@pytest.mark.parametrize("dies", ["0", "1"])
def test_p2_the_death_of_one_ends_all_and_the_same_command_goes_on(
    trained_run: Path, words: Words, single: Path, tmp_path: Path, dies: str
) -> None:
    program = tmp_path / "dying.py"
    program.write_text(DYING)
    argv = words("extract", trained_run, "--engine", "torch")
    code, said = torchrun(2, "--", str(program), dies, *argv)
    assert code == 1
    ours = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(ours) <= 1, "the one that is left may be ended by torchrun before it can say why"
    assert all("the same command again" in line for line in ours)
    assert not (trained_run / "embeddings.h5").exists()
    code, said = torchrun(2, "-m", "--", "pipeline.extract", *argv)
    assert code == 0, said
    assert (trained_run / "embeddings.h5").read_bytes() == single.read_bytes()
    assert not (trained_run / "embeddings.h5.ranks").exists()


@pytest.mark.slow
def test_what_is_no_work_for_several_is_refused_once(trained_run: Path, words: Words) -> None:
    for more, expected in (
        (("--shard", "1/2"), "error: --shard: start it without torchrun"),
        (("--embed-batch", "32"), "error: 2 shards: 32 tiles are 1 batches of 32"),
        (("--slide", "x.tif"), "works in one process: start it without torchrun"),
    ):
        _, said = torchrun(2, "-m", "--", "pipeline.extract", *words("extract", trained_run, *more))
        assert said.count(expected) == 1, said
        assert not list(trained_run.glob("embeddings*"))
