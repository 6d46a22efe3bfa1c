"""Lock a run for one process, or share it among several that each lock what they write.

Each process that shares a run writes its own files into it (shards, slides).

The kernel's lock on `.lock` ends with the process that holds it and its decoding workers. So no stale lock remains.
The file names the holder only for the message. Between machines, the lock works where the file system supports locks.
On a file system without locks, marker files `.lock.*` replace it.
"""

import contextlib
import fcntl
import functools
import itertools
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import Locked
from pipeline.runtime.console import log
from pipeline.runtime.process import is_first
from pipeline.storage.atomic import UNSUPPORTED, check_no_link, disk_errors, remove_temporaries

NAME = ".lock"

POLL_S = 0.5
"""Seconds between two tries to lock a file that another process makes."""

MARKER = re.compile(r"\.(exclusive|shared)\.(\d+)\.\d+\.([\w-]+)")
"""End of a marker's file name, after the lock's name: kind, process, a unique number, host."""

_numbers = itertools.count()
_own_markers: set[Path] = set()


@contextlib.contextmanager
def locked(run: Path, *, shared: bool = False) -> Iterator[None]:
    """Lock the folder `run` for this process; make the folder if it is missing.

    Args:
        run: the folder.
        shared: allow other processes that also share it. Such a process writes only files that `locked_file` locks,
            files in a `locked` subfolder, or files that every process would write with the same content.

    Raises:
        Locked: another process has locked it; the message names the process and the host.
        DiskFull: no room for the lock.
        BadArtifact: the lock is a link; writing would overwrite its target.
    """
    run.mkdir(parents=True, exist_ok=True)
    with _lock(run / NAME, what=run, shared=shared):
        yield


@contextlib.contextmanager
def locked_file(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Lock an artefact that this process makes in a shared run.

    Args:
        path: the artefact.
        wait: wait until another process has made it.

    Raises:
        Locked, DiskFull, BadArtifact: as `locked`; with `wait` not Locked.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(_lock(path.with_name(f".{path.name}{NAME}"), what=path, shared=False))
                break
            except Locked:
                if not wait:
                    raise
                time.sleep(POLL_S)
        yield


@contextlib.contextmanager
def locked_run(run: Path, *, shared: bool = False) -> Iterator[None]:
    """Lock a run and remove the unfinished files of killed processes; only the first process does it.

    Args:
        run: the run folder.
        shared: allow other processes, and remove nothing, because the files may be theirs.

    Raises:
        Locked, DiskFull, BadArtifact: as `locked`.
    """
    if not is_first():
        yield
        return
    with locked(run, shared=shared):
        if not shared:
            remove_temporaries(run)
        yield


@contextlib.contextmanager
def _lock(path: Path, *, what: Path, shared: bool) -> Iterator[None]:
    """Lock `path`; messages name `what`, the locked file or folder."""
    check_no_link(path)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process, or several that share it (shards, arms of an ablation)"
            raise Locked(f"{what} is in use by {holder}: wait for it") from None
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
            _warn_once(what, error.strerror)
            with _lock_by_marker(path, what=what, shared=shared):
                yield
            return
        with disk_errors(path):
            file.truncate(0)
            if not shared:  # several holders change all the time, so none is named
                json.dump({"pid": os.getpid(), "host": socket.gethostname()}, file)
                file.flush()
        yield


@functools.cache
def _warn_once(what: Path, reason: str) -> None:
    log.warning(f"{what}: its file system has no locks ({reason}): marker files {NAME}.* are used instead")


@contextlib.contextmanager
def _lock_by_marker(path: Path, *, what: Path, shared: bool) -> Iterator[None]:
    """Lock by a marker file whose name has the process and the host.

    A process first creates its marker and then looks for others: if two start together, at least one sees the other.
    No two markers have the same name, so removing the marker of a finished process cannot cause a race.
    """
    host = re.sub(r"[^\w-]", "_", socket.gethostname())
    kind = "shared" if shared else "exclusive"
    marker = path.with_name(f"{path.name}.{kind}.{os.getpid()}.{next(_numbers)}.{host}")
    _own_markers.add(marker)
    try:
        with disk_errors(path):
            marker.touch(exist_ok=False)
        for other in path.parent.iterdir():
            found = MARKER.fullmatch(other.name.removeprefix(path.name)) if other.name.startswith(path.name) else None
            if found is None or other == marker or (shared and found[1] == "shared"):
                continue
            if found[3] == host and _has_ended(int(found[2]), other):
                other.unlink(missing_ok=True)
                continue
            raise Locked(
                f"{what} is in use by process {found[2]} on {found[3]}: wait for it; if that process has ended, remove "
                f"{other}"
            )
        yield
    finally:
        marker.unlink(missing_ok=True)
        _own_markers.discard(marker)


def _has_ended(pid: int, marker: Path) -> bool:
    """Return whether the process of this host that made a marker has ended."""
    if pid == os.getpid():  # an earlier process may have had this number: the first one of every container has
        return marker not in _own_markers
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
