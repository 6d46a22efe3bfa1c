"""One process at a time on a run, or several that share it: each writes only what it locks by itself.

Those that share a run write a file of their own into it (shards), or work in folders below it (arms of an ablation).

The kernel's lock on `.lock` ends with the process that holds it (and its decoding workers, which end within seconds of
it), so there are no stale locks to judge by pid and age. Pid and host are written into the file only to be named in
the message. Between machines it holds where the file system that they share passes locks on.
"""

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import Locked
from pipeline.runtime.process import is_first
from pipeline.storage.atomic import disk_errors, refuse_link, remove_temporaries

NAME = ".lock"


@contextlib.contextmanager
def locked(run: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold the run folder `run` for this process; the folder is made if need be.

    Args:
        run: the folder.
        shared: hold it beside others that share it: what is written is `locked_file`, or lies in a folder below that
            is `locked`, or is written atomically and the same whoever writes it.

    Raises:
        Locked: another process holds it; the message names its pid and host.
        DiskFull: no room for them.
        BadArtifact: the lock is a link, whose target would be overwritten.
    """
    run.mkdir(parents=True, exist_ok=True)
    with _held(run / NAME, what=run, shared=shared):
        yield


@contextlib.contextmanager
def locked_file(path: Path) -> Iterator[None]:
    """Hold an artefact that this process is about to make in a run that it shares with others; raises as `locked`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _held(path.with_name(f".{path.name}{NAME}"), what=path, shared=False):
        yield


@contextlib.contextmanager
def _held(path: Path, *, what: Path, shared: bool) -> Iterator[None]:
    """Hold a lock; `what` it stands for is named in the message."""
    refuse_link(path)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process, or several that share it (shards, arms of an ablation)"
            raise Locked(f"{what} is in use by {holder}: wait for it") from None
        with disk_errors(path):
            file.truncate(0)
            if not shared:  # of several holders none can be named: they come and go
                json.dump({"pid": os.getpid(), "host": socket.gethostname()}, file)
                file.flush()
        yield


@contextlib.contextmanager
def run_held(run: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold the run's lock, what a killed process left half-written removed; only in the first process.

    Args:
        run: the run folder.
        shared: hold it beside others that share it, and remove nothing, for it may be theirs.

    Raises:
        Locked, DiskFull, BadArtifact: as `storage.lock.locked`.
    """
    if not is_first():
        yield
        return
    with locked(run, shared=shared):
        if not shared:
            remove_temporaries(run)
        yield
