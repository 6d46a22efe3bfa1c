"""Check the memory that worker processes share with their parent."""

import functools
import os
import shutil
import tempfile
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.runtime.console import log
from pipeline.runtime.process import n_local_ranks

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  (only its free space is read)
"""Where Linux keeps the memory that processes share. Docker gives it 64 MB by default."""

RESERVE = 2
"""Multiple of the needed memory that must be free, as other processes use it, too."""

LEAST_BYTES = 1_000_000
"""Least free bytes to start a worker: its queues have semaphores in shared memory."""

LONGEST_TMPDIR = 107 - len("/pymp-12345678/listener-12345678")
"""Longest path of the temporary folder, in bytes: processes pass their shared memory to each other through a socket in
it, and Linux allows 107 bytes for the path of a socket."""


def has_room(needed: int) -> bool:
    """Return whether twice `needed` bytes are free for each process of torchrun on this machine.

    A worker without room returns nothing and raises nothing in its parent. A lack of room is logged once, and so is a
    temporary folder without room for the path of a socket.

    Raises:
        PipelineError: it is full.
    """
    try:
        free = shutil.disk_usage(SHARED_MEMORY).free
    except OSError:  # not Linux
        return True
    if free < LEAST_BYTES:
        raise PipelineError(
            f"shared memory ({SHARED_MEMORY}) is full, and worker processes need some: make room, start Docker with "
            "--shm-size 1g, or give --workers 0"
        )
    needed *= RESERVE * n_local_ranks()
    temporary = os.fsencode(tempfile.gettempdir())
    if needed > free:
        _report(
            f"shared memory ({SHARED_MEMORY}) has {free / 1e6:.0f} MB free, {needed / 1e6:.0f} MB are needed",
            "Docker: --shm-size 1g",
        )
    elif len(temporary) > LONGEST_TMPDIR:
        _report(f"the path of the temporary folder has {len(temporary)} bytes", f"TMPDIR: at most {LONGEST_TMPDIR}")
    else:
        return True
    return False


@functools.cache
def _report(why: str, remedy: str) -> None:
    log.info(f"{why}: tiles are passed through pipes, which is slower ({remedy})")
