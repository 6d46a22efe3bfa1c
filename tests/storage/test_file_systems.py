"""File systems that lack calls: network drives without locks, shares without fsync of folders, exFAT without chmod."""

import errno
import fcntl
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest

from pipeline.errors import BadArtifact, Locked
from pipeline.storage import atomic, hdf5, lock
from pipeline.storage.lock import locked, locked_file

FAULT = pytest.mark.fault("a file system without locks, fsync of folders, chmod or fallocate")
NO_LOCKS = [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, 524]


def failing(number: int, call: Callable[..., object], when: Callable[..., bool] | None = None) -> Callable[..., object]:
    """Return a system call that fails with an error number, for all words or some."""

    def fail(*words: object, **more: object) -> object:
        if when is None or when(*words):
            raise OSError(number, os.strerror(number))
        return call(*words, **more)

    return fail


@pytest.fixture
def without_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """flock fails."""
    monkeypatch.setattr(fcntl, "flock", failing(getattr(request, "param", errno.ENOLCK), fcntl.flock))
    lock._warn_once.cache_clear()


def ended() -> int:
    """Return the number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        return process.pid


@FAULT
@pytest.mark.parametrize("without_locks", NO_LOCKS, indirect=True)
@pytest.mark.usefixtures("without_locks")
def test_without_locks_markers_exclude_a_second_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    messages: list[str] = []
    monkeypatch.setattr(lock.log, "warning", messages.append)
    with locked(run):
        assert len(messages) == 1
        assert "has no locks" in messages[0]
        for shared in (False, True):
            named = pytest.raises(Locked, match=f"{run} is in use by process {os.getpid()} on .* remove .*exclusive")
            with named, locked(run, shared=shared):
                pytest.fail("held twice")
    with locked(run, shared=True), locked(run, shared=True):
        with pytest.raises(Locked, match="shared"), locked(run):
            pytest.fail("held next to others")
        own, other = run / "a.h5", run / "b.h5"
        with locked_file(own), locked_file(other), pytest.raises(Locked, match=r"a\.h5 is in use"), locked_file(own):
            pytest.fail("held twice")
    with locked(run):
        pass
    assert not list(run.glob("*exclusive*")) + list(run.glob("*shared*"))
    assert len(messages) == 3, "one line for each thing that is locked"


@FAULT
@pytest.mark.usefixtures("without_locks")
def test_a_marker_is_removed_when_its_process_of_this_host_has_ended(tmp_path: Path) -> None:
    host = socket.gethostname()
    for pid in (ended(), os.getpid()):  # the first process of a container has the number of the one before
        left = tmp_path / f".lock.exclusive.{pid}.999.{host}"
        left.touch()
        with locked(tmp_path):
            assert not left.exists()
    foreign = tmp_path / f".lock.exclusive.{ended()}.0.elsewhere"
    foreign.touch()
    with pytest.raises(Locked, match=f"on elsewhere.* remove {foreign}"), locked(tmp_path):
        pytest.fail("whether it has ended is not known here")
    alive = os.getppid()
    (tmp_path / f".a.h5.lock.shared.{alive}.0.{host}").touch()
    with pytest.raises(Locked, match=f"process {alive} on"), locked_file(tmp_path / "a.h5"):
        pytest.fail("its process is alive")


def test_other_errors_of_a_lock_are_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", failing(errno.EIO, fcntl.flock))
    with pytest.raises(OSError, match="Input/output"), locked(tmp_path):
        pytest.fail("held")


@FAULT
@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF])
@pytest.mark.parametrize("what", ["folder", "file"])
def test_files_are_written_where_fsync_is_not_offered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, what: str
) -> None:
    def is_meant(handle: int) -> bool:
        return stat.S_ISDIR(os.fstat(handle).st_mode) == (what == "folder")

    monkeypatch.setattr(os, "fsync", failing(number, os.fsync, is_meant))
    atomic.write_text(tmp_path / "a.csv", "content\n")
    assert (tmp_path / "a.csv").read_text() == "content\n"
    monkeypatch.setattr(os, "fsync", failing(errno.EIO, os.fsync, is_meant))
    with pytest.raises(OSError, match="Input/output"):
        atomic.write_text(tmp_path / "b.csv", "content\n")


@FAULT
@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EACCES])
def test_files_are_written_where_chmod_is_not_offered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "chmod", failing(number, os.chmod))
    monkeypatch.setattr(Path, "chmod", failing(number, Path.chmod))
    atomic.write_text(tmp_path / "a.csv", "content\n")
    assert (tmp_path / "a.csv").read_text() == "content\n"


@FAULT
@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS])
def test_room_is_tried_where_fallocate_is_not_offered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "posix_fallocate", failing(number, os.posix_fallocate))
    atomic.check_room_by_trying(tmp_path / "a", 1000)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A finished HDF5 file of the schema a/1.0."""
    with hdf5.created(tmp_path / "a.h5") as file:
        hdf5.finish(file, "a/1.0")
    return tmp_path / "a.h5"


def refuse(rule: str) -> BadArtifact:
    return BadArtifact(f"{rule}: make it again")


READ = """
import sys
from pathlib import Path
from pipeline.errors import BadArtifact
from pipeline.storage.hdf5 import opened
try:
    with opened(Path(sys.argv[1]), "a/1.0", BadArtifact) as (file, attrs):
        print(attrs["complete"])
except BadArtifact as error:
    print(error)
"""


@FAULT
@pytest.mark.parametrize(("setting", "says"), [(None, "True"), ("BEST_EFFORT", "True"), ("TRUE", "unset it")])
def test_hdf5_files_are_read_without_a_lock(stored: Path, setting: str | None, says: str) -> None:
    """A lock that somebody holds plays one that cannot be had."""
    environment = {name: value for name, value in os.environ.items() if name != "HDF5_USE_FILE_LOCKING"}
    if setting is not None:
        environment["HDF5_USE_FILE_LOCKING"] = setting
    with stored.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        words = [sys.executable, "-c", READ, str(stored)]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    if setting == "BEST_EFFORT":  # a lock is tried then; that another holds it is no missing call
        assert "cannot be read" in done.stdout
        return
    assert says in done.stdout
    assert "damaged" not in done.stdout
    assert "again" not in done.stdout


@FAULT
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EIO, errno.ESTALE, errno.EACCES, errno.ENOSYS])
def test_an_error_of_the_system_is_no_damage(stored: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(h5py, "File", failing(number, h5py.File))
    with pytest.raises(BadArtifact, match=r"a\.h5: cannot be read") as caught, hdf5.opened(stored, "a/1.0", refuse):
        pytest.fail("opened")
    assert "again" not in str(caught.value)
