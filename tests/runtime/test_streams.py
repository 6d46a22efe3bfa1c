"""A reader that leaves is no failure."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from pipeline.runtime.streams import survive_lost_readers

PROGRAM = """
import sys
from pipeline.cli.command import guarded
from pipeline.runtime.console import log

def work():
    for i in range(3):
        print("x" * 100_000)
        log.info("progress")
    return 3

raise SystemExit(guarded("pipeline.x", work))
"""


@pytest.fixture
def left_pipe() -> Iterator[int]:
    """The writing end of a pipe that nobody reads."""
    read, write = os.pipe()
    os.close(read)
    yield write
    os.close(write)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_work_goes_on_and_keeps_its_exit_code(left_pipe: int, stream: str) -> None:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: left_pipe}
    done = subprocess.run([sys.executable, "-c", PROGRAM], **pipes, text=True, check=False)
    assert done.returncode == 3
    if stream == "stdout":
        assert done.stderr == "progress\n" * 3
    else:
        assert len(done.stdout) == 3 * 100_001


@pytest.mark.parametrize("words", [["pipeline"], ["pipeline.train"], ["pipeline.merge"]])
@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_that_nobody_reads_is_no_failure(left_pipe: int, words: list[str], option: str) -> None:
    command = [sys.executable, "-m", *words, option]
    done = subprocess.run(command, stdout=left_pipe, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_closed_stdout_is_no_failure() -> None:
    command = f"exec {sys.executable} -m pipeline.merge --version >&- 2>&-"
    assert subprocess.run(["/bin/sh", "-c", command], check=False).returncode == 0


def test_streams_are_as_before_afterwards() -> None:
    before = sys.stdout, sys.stderr
    with survive_lost_readers():
        assert sys.stdout.isatty() == before[0].isatty()
    assert (sys.stdout, sys.stderr) == before
