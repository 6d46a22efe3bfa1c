"""The only writer: whole files or the old ones (P1)."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import BadArtifact, DiskFull, PipelineError, StaleInput
from pipeline.storage.atomic import (
    atomic,
    check_room_by_trying,
    disk_errors,
    remove_temporaries,
    require_space,
    temporary_folder,
    to_json,
    write_text,
)

OPTIONS: dict[str, Any] = {"epochs": 3, "rate": 0.1, "name": "Zöllner", "sizes": (1, 2)}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.fault("kill -9 or loss of power at each step of writing")
def test_p1_an_error_leaves_the_old_content_and_no_temporary(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    write_text(path, "old")

    def fail() -> None:
        with atomic(path) as temporary:
            temporary.write_text("half")
            raise KeyError("bug")

    with pytest.raises(KeyError):
        fail()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.csv"]


def test_the_new_content_is_not_there_before_the_end(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "a.csv"
    with atomic(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.parent == path.parent  # a rename across file systems would not be atomic
    assert path.read_text() == "new"
    assert names(path.parent) == ["a.csv"]


@pytest.mark.fault("full disk, in every writer")
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_no_space_is_disk_full_and_leaves_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    path = tmp_path / "a.csv"
    write_text(path, "old")

    def full(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFull, match=r"a\.csv: no space left") as caught:
        write_text(path, "new")
    assert "\n" not in str(caught.value)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.csv"]


def test_what_h5py_says_of_a_full_disk_is_disk_full(tmp_path: Path) -> None:
    message = "Can't write data (file write failed: errno = 28, error message = 'No space left on device')"
    with pytest.raises(DiskFull), disk_errors(tmp_path / "x.h5"):
        raise RuntimeError(message)
    with pytest.raises(PermissionError), disk_errors(tmp_path / "x.h5"):
        raise PermissionError(errno.EACCES, "no")


def test_a_file_that_cannot_fit_is_refused_before_it_is_begun(tmp_path: Path) -> None:
    require_space(tmp_path / "run", 1)
    with pytest.raises(DiskFull, match="MB needed"):
        require_space(tmp_path / "run", 10**18)


@pytest.mark.slow
def test_p1_a_real_limit_on_file_size_leaves_the_old(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_text(path, "old")
    code = f"""
import resource, sys
from pathlib import Path
from pipeline.errors import DiskFull
from pipeline.storage.atomic import write_bytes
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_bytes(Path({str(path)!r}), bytes(100_000))
except DiskFull as error:
    sys.exit(7)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 7
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.fault("kill -9 or loss of power at each step of writing")
@pytest.mark.slow
def test_p1_a_kill_while_writing_leaves_the_old_and_its_rubbish_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_text(path, "old")
    code = f"""
import os, signal
from pathlib import Path
from pipeline.storage.atomic import atomic
with atomic(Path({str(path)!r})) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    assert path.read_text() == "old"
    assert len(names(tmp_path)) == 2
    remove_temporaries(tmp_path)
    assert names(tmp_path) == ["a.bin"]


def test_only_temporaries_of_the_run_are_removed(tmp_path: Path) -> None:
    """`--run` may be any folder, even one that holds other programs' work."""
    for name in ("figures", "heads", "other"):
        (tmp_path / name).mkdir()
    ours = [tmp_path / ".a.csv.ab_c12x9.tmp", tmp_path / "figures" / ".f.png.abcdefgh.tmp"]
    theirs = [tmp_path / ".mine.tmp", tmp_path / "a.abcdefgh.tmp", tmp_path / "other" / ".a.csv.abcdefgh.tmp"]
    for path in ours + theirs:
        path.write_text("x")
    remove_temporaries(tmp_path)
    assert not any(path.exists() for path in ours)
    assert all(path.exists() for path in theirs)


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permissions_follow_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_text(tmp_path / "a", "x")
        assert os.umask(umask) == umask  # it was put back
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~umask


def test_text_is_the_same_bytes_everywhere(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "Zöllner\n1\n")
    assert (tmp_path / "a").read_bytes() == "Zöllner\n1\n".encode()


def test_nan_is_no_json() -> None:
    with pytest.raises(ValueError, match="JSON"):
        to_json({"a": float("nan")})


def test_errors_of_this_room_are_the_users() -> None:
    assert all(issubclass(kind, PipelineError) and kind.exit_code == 1 for kind in (BadArtifact, DiskFull, StaleInput))


@pytest.mark.fault("no room for the bins and kernel values of rows that do not fit into memory")
@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system does not allocate")
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_room_that_a_quota_or_limit_takes_is_missed_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(*file: int) -> None:
        raise OSError(number, os.strerror(number))

    check_room_by_trying(tmp_path / "large", 10_000)
    monkeypatch.setattr(os, "posix_fallocate", fail)
    with pytest.raises(DiskFull, match="large: no space left"):
        check_room_by_trying(tmp_path / "large", 10_000)
    assert names(tmp_path) == []
    number = errno.EOPNOTSUPP
    check_room_by_trying(tmp_path / "large", 10_000)
    assert names(tmp_path) == []


def test_a_temporary_folder_goes_at_its_end_or_with_the_next_start(tmp_path: Path) -> None:
    with temporary_folder(tmp_path) as folder:
        (folder / "bins").write_bytes(b"x")
        assert names(tmp_path) == [folder.name]
    assert names(tmp_path) == []
    folder.mkdir()  # as a killed process leaves it
    (folder / "bins").write_bytes(b"x")
    (tmp_path / ".mine.abcdefgh.tmp").mkdir()
    remove_temporaries(tmp_path)
    assert names(tmp_path) == [".mine.abcdefgh.tmp"]


def test_a_full_disk_is_told_by_the_file_that_it_was_met_at(tmp_path: Path) -> None:
    told = pytest.raises(DiskFull, match=r"table: no space left")
    with told, temporary_folder(tmp_path), disk_errors(tmp_path / "table"):
        raise OSError(errno.ENOSPC, "no space")
