"""Commands that run in processes of their own, to be killed, starved or hindered."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""For the parent of all: a process with threads cannot be forked safely."""


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    """Exit code; -n: killed by signal n."""

    said: str
    """What it wrote to stdout and stderr."""

    @property
    def error(self) -> str:
        """The one line with which it failed.

        Raises:
            AssertionError: it said none or several, or a traceback.
        """
        lines = [line for line in self.said.splitlines() if line.startswith("error:")]
        assert len(lines) == 1, self.said
        assert "Traceback" not in self.said, self.said
        return lines[0]


class Child:
    """A command under way."""

    def __init__(self, commands: "Commands", pid: int, log: Path) -> None:
        self.commands, self.pid, self.log = commands, pid, log

    def kill(self, signum: int = signal.SIGKILL, *, group: bool = True) -> None:
        """Send a signal to the command and its workers, or to the command alone; it may have ended already."""
        (os.killpg if group else os.kill)(self.pid, signum)  # it is not waited for yet: the number is still its own

    def wait(self) -> Ended:
        """Wait for its end."""
        status = self.commands.ask({"wait": self.pid})
        return Ended(os.waitstatus_to_exitcode(int(status)), self.log.read_text(errors="replace"))


class Commands:
    """Starts commands of the pipeline; see `forking`. One at a time may be asked, several may be under way."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.count = 0
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("forking.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            bufsize=1,
            cwd=ROOT,
            env=os.environ | ONE_THREAD | {"PYTHONPATH": str(ROOT)} | environment,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def ask(self, order: dict[str, Any]) -> str:
        """Send one order, return its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(order), file=self.process.stdin)
        return self.process.stdout.readline()

    def start(self, command: str, argv: list[str], **befalls: Any) -> Child:
        """Start `python -m pipeline.<command> <argv>`; `befalls` as in `forking`."""
        self.count += 1
        log = self.folder / f"{self.count}.log"
        log.touch()  # it may be killed before it opens it
        order = {"command": command, "argv": argv, "log": str(log), **befalls}
        return Child(self, int(self.ask({"start": order})), log)

    def run(self, command: str, argv: list[str], **befalls: Any) -> Ended:
        """Run a command to its end."""
        return self.start(command, argv, **befalls).wait()

    def run_killed(self, command: str, argv: list[str], *, after: float) -> Ended:
        """Run a command that gets kill -9, with its workers, after some seconds; it may end before."""
        child = self.start(command, argv)

        def kill() -> None:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                child.kill()

        timer = threading.Timer(after, kill)
        timer.start()
        try:
            return child.wait()
        finally:
            timer.cancel()
            timer.join()

    def steps(self, command: str, argv: list[str], *, folder: Path, die_at: int = 0, power: bool = False) -> Ended:
        """Run a command that dies at a step in a folder; with step 0 its number of steps is in `said`."""
        tell = self.folder / "steps"
        befalls = {"folder": str(folder), "die_at": die_at, "power": power, "tell": str(tell)}
        ended = self.run(command, argv, **befalls)
        return dataclasses.replace(ended, said=tell.read_text()) if die_at == 0 and ended.code == 0 else ended

    def timed(self, command: str, argv: list[str]) -> tuple[Ended, float]:
        """Run a command; return how it ended and the seconds it took."""
        start = time.monotonic()
        return self.run(command, argv), time.monotonic() - start

    def close(self) -> None:
        """End the parent of all."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def serve(folder: Path, **environment: str) -> Iterator[Commands]:
    """Yield commands whose logs lie in a folder, with changes to their environment; for a fixture."""
    commands = Commands(folder, **environment)
    try:
        yield commands
    finally:
        commands.close()
