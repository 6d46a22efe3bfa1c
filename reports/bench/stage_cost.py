"""Measure time and peak memory of a command of this package, its child processes included (Linux)."""

import dataclasses
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

PROC = Path("/proc")
ROOT = Path(__file__).resolve().parents[2]
INTERVAL_S = 0.25
"""Time between readings: each takes the kernel some milliseconds for each GB."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a command took."""

    seconds: float
    megabytes: float
    """Peak of all processes together, 10^6 bytes."""


def children(pid: int) -> list[int]:
    """Return the ids of a process and of all its descendants."""
    found = [pid]
    for parent in found:  # grows while it is walked
        for task in (PROC / str(parent) / "task").glob("*/children"):
            try:
                found += map(int, task.read_text().split())
            except OSError:
                continue  # it ended meanwhile
    return found


def memory_of(pid: int, file: str, field: str) -> int:
    """Return the memory of a process in bytes by a file of /proc; 0 if the process ended or there is no such file.

    Args:
        pid: the process.
        file: smaps_rollup or status.
        field: Pss (memory now, with its share of shared pages) or VmHWM (the largest resident size so far).
    """
    try:
        text = (PROC / str(pid) / file).read_text()
    except OSError:
        return 0
    found = re.search(rf"^{field}:\s+(\d+) kB$", text, re.M)
    return int(found[1]) * 1024 if found else 0


def shows_memory() -> bool:
    """Return whether this system shows the memory of processes."""
    return memory_of(os.getpid(), "smaps_rollup", "Pss") > 0


class Watch:
    """Note the largest memory of a process and its descendants together, while entered.

    A short peak between two readings counts if it is the process's own (VmHWM), not if it is a child's.

    with Watch(process.pid) as watch:
        process.wait()
    watch.peak_bytes
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.peak_bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def _read(self) -> None:
        while not self._stop.wait(INTERVAL_S):
            together = sum(memory_of(pid, "smaps_rollup", "Pss") for pid in children(self.pid))
            self.peak_bytes = max(self.peak_bytes, together, memory_of(self.pid, "status", "VmHWM"))

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def run_stage(stage: str, words: list[str], *, log: Path) -> Cost:
    """Run `python -m pipeline.<stage>` in a process of its own and return its cost.

    Raises:
        RuntimeError: the command failed; names the file with its messages.
    """
    command = [sys.executable, "-m", f"pipeline.{stage}", *words]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)  # noqa: S603
        try:
            with Watch(process.pid) as watch:
                code = process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
        seconds = time.perf_counter() - start
    if code != 0:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise RuntimeError(f"{stage} ended with code {code} ({(lines or ['no message'])[-1]}): see {log}")
    return Cost(seconds, watch.peak_bytes / 1e6)
