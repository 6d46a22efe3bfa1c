"""Peak memory of a process with its children, watched from outside."""

import os
import re
import threading
from pathlib import Path
from types import TracebackType

PROC = Path("/proc")
INTERVAL_S = 0.25
"""Looking takes the kernel some milliseconds for each GB."""


def children(pid: int) -> list[int]:
    """Return the ids of a process and of all its descendants (Linux)."""
    found = [pid]
    for parent in found:  # grows while it is walked
        for task in (PROC / str(parent) / "task").glob("*/children"):
            try:
                found += map(int, task.read_text().split())
            except OSError:
                continue  # it ended meanwhile
    return found


def told_bytes(pid: int, file: str, field: str) -> int:
    """Return what a file of /proc tells of a process, in bytes; 0 if it ended or the system does not tell.

    Args:
        pid: the process.
        file: smaps_rollup or status.
        field: Pss (memory now, shared pages by its part of them) or VmHWM (the largest resident size so far).
    """
    try:
        text = (PROC / str(pid) / file).read_text()
    except OSError:
        return 0
    found = re.search(rf"^{field}:\s+(\d+) kB$", text, re.M)
    return int(found[1]) * 1024 if found else 0


class Watch:
    """While entered, notes the largest memory of a process and its descendants together.

    A short peak between two looks is seen if it is the process's own (VmHWM), not if it is a child's.

    with Watch(process.pid) as watch:
        process.wait()
    watch.peak_bytes
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.peak_bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self._stop.wait(INTERVAL_S):
            together = sum(told_bytes(pid, "smaps_rollup", "Pss") for pid in children(self.pid))
            self.peak_bytes = max(self.peak_bytes, together, told_bytes(self.pid, "status", "VmHWM"))

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()


def is_told() -> bool:
    """Tell whether this system shows the memory of processes."""
    return told_bytes(os.getpid(), "smaps_rollup", "Pss") > 0
