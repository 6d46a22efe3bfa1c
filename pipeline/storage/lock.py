"""One process at a time on a run.

The kernel's lock on `.lock` ends with the process that holds it (and its decoding workers, which end within seconds of
it), so there are no stale locks to judge by pid and age. Pid and host are written into the file only to be named in
the message.
"""

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import Locked
from pipeline.storage.artifacts import disk_errors, refuse_link

NAME = ".lock"


@contextlib.contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the run folder `run` for this process; the folder is made if need be.

    Raises:
        Locked: another process holds it; the message names its pid and host.
        DiskFull: no room for them.
        BadArtifact: the lock is a link, whose target would be overwritten.
    """
    run.mkdir(parents=True, exist_ok=True)
    path = run / NAME
    refuse_link(path)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise Locked(f"{run} is in use by {file.read().strip() or 'another process'}: wait for it") from None
        with disk_errors(path):
            file.truncate(0)
            json.dump({"pid": os.getpid(), "host": socket.gethostname()}, file)
            file.flush()
        yield
