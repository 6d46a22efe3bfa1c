"""One process at a time on a run, whatever happens to it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import Locked
from pipeline.storage.lock import NAME, locked, locked_file

HOLD = """
import sys
from pathlib import Path
from pipeline.storage.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that holds the run `tmp_path / "run"`."""
    words = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.mark.fault("two commands on one run")
def test_a_second_process_is_refused_and_told_the_pid(tmp_path: Path, holder: "subprocess.Popen[str]") -> None:
    with pytest.raises(Locked, match=str(holder.pid)) as caught, locked(tmp_path / "run"):
        pytest.fail("held twice")
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "run") in str(caught.value)


@pytest.mark.fault("two commands on one run")
def test_refused_attempts_do_not_wipe_the_holders_name(tmp_path: Path, holder: "subprocess.Popen[str]") -> None:
    for _ in range(3):
        with pytest.raises(Locked, match=str(holder.pid)), locked(tmp_path / "run"):
            pytest.fail("held twice")


@pytest.mark.fault("two commands on one run")
def test_kill_9_of_the_holder_frees_the_run(tmp_path: Path, holder: "subprocess.Popen[str]") -> None:
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with locked(tmp_path / "run"):
        assert str(os.getpid()) in (tmp_path / "run" / NAME).read_text()
        assert str(holder.pid) not in (tmp_path / "run" / NAME).read_text()


def test_the_lock_is_free_after_an_error_and_after_the_end(tmp_path: Path) -> None:
    def fail() -> None:
        with locked(tmp_path / "a" / "run"):
            raise KeyError("bug")

    with pytest.raises(KeyError):
        fail()
    with locked(tmp_path / "a" / "run"), pytest.raises(Locked), locked(tmp_path / "a" / "run"):
        pytest.fail("held twice")
    with locked(tmp_path / "a" / "run"), locked(tmp_path / "other"):
        pass


@pytest.mark.fault(
    "shards at the same time on one run, one of them killed; runs of an ablation at the same time on one plan"
)
def test_several_may_share_a_run_but_none_beside_a_holder(tmp_path: Path, holder: "subprocess.Popen[str]") -> None:
    with pytest.raises(Locked, match=str(holder.pid)), locked(tmp_path / "run", shared=True):
        pytest.fail("shared beside a holder")
    holder.kill()
    holder.wait()
    with locked(tmp_path / "run", shared=True), locked(tmp_path / "run", shared=True):
        with pytest.raises(Locked, match="another process, or several that share it"), locked(tmp_path / "run"):
            pytest.fail("held beside others")
        own, other = (tmp_path / "run" / name for name in ("a.h5", "b.h5"))
        named = pytest.raises(Locked, match=rf"a\.h5 is in use by .*{os.getpid()}")
        with locked_file(own), locked_file(other), named, locked_file(own):
            pytest.fail("held twice")
    with locked(tmp_path / "run"):
        pass
