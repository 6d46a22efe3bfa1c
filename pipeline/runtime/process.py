"""Read the place of this process among those that torchrun started, from the environment.

Without torchrun there is one process, which is the first. RANK and WORLD_SIZE alone prove nothing: batch systems set
them too.
"""

import contextlib
import datetime
import hashlib
import io
import os
from collections.abc import Iterator

from pipeline.errors import UsageError

LAUNCHED = "TORCHELASTIC_RUN_ID"
"""The variable by which torchrun marks its processes."""

STORE_S = 5.0
"""Seconds within which the store of torchrun answers, or is gone."""


def _number(name: str, alone: int) -> int:
    return int(os.environ.get(name, alone)) if LAUNCHED in os.environ else alone


def rank() -> int:
    """Return this process's number among all processes, from 0."""
    return _number("RANK", 0)


def n_ranks() -> int:
    """Return the number of processes on all machines."""
    return _number("WORLD_SIZE", 1)


def local_rank() -> int:
    """Return this process's number among those of this machine, from 0: the number of its GPU."""
    return _number("LOCAL_RANK", 0)


def n_local_ranks() -> int:
    """Return the number of processes on this machine, which share its cores and its memory."""
    return _number("LOCAL_WORLD_SIZE", 1)


def is_first() -> bool:
    """Return whether this process locks the run, writes files and reports progress."""
    return rank() == 0


@contextlib.contextmanager
def report_once() -> Iterator[None]:
    """Print in the first process only; the text within the block is the same in all processes."""
    if is_first():
        yield
        return
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def refuse_several(name: str) -> None:
    """Refuse to do the work of a command once in each of several processes.

    Raises:
        UsageError: torchrun started more than one.
    """
    if n_ranks() > 1:
        raise UsageError(f"python -m {name} works in one process: start it without torchrun")


def is_new_message(text: str) -> bool:
    """Return whether no process of this start has printed a line yet, so that an error of all is printed one time."""
    if n_ranks() == 1:
        return True
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    key = f"{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}/{hashlib.sha256(text.encode()).hexdigest()}"
    try:
        store = TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=False,
            timeout=datetime.timedelta(seconds=STORE_S),
            wait_for_workers=False,
        )
        return store.add(f"histoheads/said/{key}", 1) == 1
    except (KeyError, RuntimeError):  # torch's errors of its store are kinds of it; better twice than never
        return True
