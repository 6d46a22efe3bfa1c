"""Write files atomically: a file under its final name is complete (P1): written next to it, then renamed."""

import contextlib
import errno
import glob
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import BadArtifact, DiskFull

KERNEL_ENOTSUPP = 524
"""ENOTSUPP, an internal code of Linux that some file systems return to programs."""

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""System errors that mean that the disk or quota is full."""

UNSUPPORTED = frozenset(
    {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOLCK, errno.EBADF, KERNEL_ENOTSUPP}
)
"""System errors of network drives and foreign file systems that do not support a call.

NFS without lockd, Lustre and CIFS return them for flock or for the fsync of a folder; PostgreSQL ignores the same ones.
"""

SUBFOLDERS = ("figures", "heads")
"""Folders of a run that hold artefacts."""

SLIDES = "slides"
"""Folder of a run that holds a folder for each slide."""

SHARDS = "shards"
"""Folder of a run that holds embeddings of parts of its tiles, until they are merged."""

STREAMED = "streamed"
"""Part of the name of a run's folder for data that does not fit into memory; see `temporary_folder`."""

MAPS = "maps"
"""Default folder of the maps of slides in a run, with a subfolder for each slide."""

TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}\.tmp")
"""Names of the temporary files and folders of `atomic` and `temporary_folder`."""


def sha256_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def require_space(folder: Path, n_bytes: int) -> None:
    """Raise DiskFull if a large file does not fit on the disk (10 % in reserve)."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < 1.1 * n_bytes:
        raise DiskFull(f"{folder}: {n_bytes / 1e6:.0f} MB needed, {free / 1e6:.0f} MB free: make room and run again")


def check_room_by_trying(path: Path, n_bytes: int) -> None:
    """Allocate a file of this size at `path` and remove it; raise DiskFull if that fails. Quotas and limits count, too.

    Use it before libraries that end the process on a write error. Without fallocate, only the free space is checked.
    """
    require_space(path.parent, n_bytes)
    if not hasattr(os, "posix_fallocate"):
        return
    with disk_errors(path):
        try:
            with path.open("wb") as file, ignore_unsupported():
                os.posix_fallocate(file.fileno(), 0, max(1, n_bytes))
        finally:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def ignore_unsupported(*also: int) -> Iterator[None]:
    """Ignore the error of a system call that the file system does not support.

    Args:
        also: further system errors, besides `UNSUPPORTED`, that mean this for the call.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in {*UNSUPPORTED, *also}:
            raise


def _is_no_space(error: BaseException | None) -> bool:
    """Return whether an error comes from a full disk.

    h5py and safetensors state it only in their message; torch's error has the system's error as its cause.
    """
    while error is not None:
        if getattr(error, "errno", None) in NO_SPACE:
            return True
        if any(f"errno = {n}," in str(error) or f"(os error {n})" in str(error) for n in NO_SPACE):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn every error that means 'no space' into a DiskFull that names `path`."""
    try:
        yield
    except DiskFull:
        raise  # it names the file already
    except Exception as error:
        if _is_no_space(error):
            raise DiskFull(f"{path}: no space left ({error.__class__.__name__}); make room and run again") from error
        raise


def check_no_link(place: Path) -> None:
    """Check that a path to write to is no link, which may lead out of the run folder (P5).

    The run folder itself may be a link, because the user names it; a link inside it may be somebody else's.

    Raises:
        BadArtifact: the path is a link.
    """
    if place.is_symlink():
        raise BadArtifact(f"{place}: a link, which may lead out of the run folder: put the file or folder itself there")


def fsync_folder(folder: Path) -> None:
    """Make a rename inside `folder` durable, where the file system supports it."""
    with ignore_unsupported(errno.EISDIR, errno.EACCES):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`; on success it is fsynced and renamed to `path`, else removed.

    Raises:
        DiskFull: no space; an earlier file at `path` is unchanged.
        BadArtifact: its folder in the run is a link.
    """
    if path.parent.name in (*SUBFOLDERS, SHARDS):
        check_no_link(path.parent)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            umask = os.umask(0)
            os.umask(umask)
            with ignore_unsupported(errno.EPERM, errno.EACCES):
                temporary.chmod(0o666 & ~umask)  # mkstemp's 0600 would hide results from colleagues
            with temporary.open("rb") as written, ignore_unsupported():
                os.fsync(written.fileno())
            temporary.replace(path)
            fsync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def temporary_folder(place: Path) -> Iterator[Path]:
    """Yield a new folder in a run for data that does not fit into memory; remove it at the end or at the next start."""
    with disk_errors(place / STREAMED):
        folder = Path(tempfile.mkdtemp(dir=place, prefix=f".{STREAMED}.", suffix=".tmp"))
        try:
            yield folder
        finally:
            shutil.rmtree(folder)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically as UTF-8 with line feeds on every system."""
    write_bytes(path, text.encode())


def to_json(value: Any) -> str:
    """Return the one JSON form used in files: sorted keys, indented, no NaN."""
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def from_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        BadArtifact: it cannot be read, or is no JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise BadArtifact(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise BadArtifact(f"{path}: not a readable JSON file ({reason}): restore it or make it again") from None


def remove_temporaries(folder: Path) -> None:
    """Remove the unfinished files of a killed process; only a process that has the run alone may call this.

    In a shared run, such a file may be another process's unfinished output. Only the folders of artefacts are searched,
    and only for names of `atomic` and `temporary_folder`, because `--run` may be any folder of the user.
    """
    places = [folder / name for name in (*SUBFOLDERS, SLIDES, SHARDS)]
    if (folder / SLIDES).is_dir() and not (folder / SLIDES).is_symlink():
        places += [place for place in (folder / SLIDES).iterdir() if place.is_dir()]
    for place in (folder, *(place for place in places if not place.is_symlink())):
        for path in place.glob(".*.tmp"):
            if not TEMPORARY.fullmatch(path.name):
                continue
            if path.is_file():
                path.unlink(missing_ok=True)
            elif path.name.startswith(f".{STREAMED}.") and path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)  # a worker that is still running may write there


def remove_temporaries_of(path: Path) -> None:
    """Remove unfinished files of one artefact after a kill; only the process with its lock may call this."""
    for name in (path.name, f"{path.name}.json", f"{path.name}.partial.json"):
        for left in path.parent.glob(f".{glob.escape(name)}.*.tmp"):
            if TEMPORARY.fullmatch(left.name) and len(left.name) == len(name) + len(".") + len(".abcdefgh.tmp"):
                left.unlink(missing_ok=True)
