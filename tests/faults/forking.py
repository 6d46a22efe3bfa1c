"""A process that has imported everything and computed nothing: it forks a child for each command that it is told.

Importing torch, scikit-learn and XGBoost takes seconds, a command on tiny tiles tenths of one; only so can hundreds of
commands be killed in minutes. A child is as good as a new process: it holds no lock, no thread, no random state.

Input and output are lines of JSON. `{"start": {...}}` is answered by the child's pid, `{"wait": pid}` by its wait
status. What may befall a child stands beside its command: limits of the system (`limits`), a death at the n-th step
that it takes in a folder (`die_at`, `folder`), what is lost with it (`power`: half of all that was not yet fsynced), a
clock that jumps (`clock`). `to_the_end` lets Python itself end the child, which takes seconds. No child has a network.
"""

import importlib
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

COMMANDS = ("prepare", "train", "extract", "baselines", "fit_heads", "robustness", "report", "verify", "__main__")
HEAVY = (
    "matplotlib.pyplot",
    "pandas",
    "skimage.feature",
    "skops.io",
    "sklearn.calibration",
    "sklearn.kernel_approximation",
    "sklearn.linear_model",
    "sklearn.model_selection",
    "sklearn.neighbors",
    "sklearn.pipeline",
    "sklearn.svm",
    "torchvision.models.resnet",
    "torch.utils.data",
    "xgboost",
    "pipeline.network.training.trainer",
    "pipeline.network.extraction.tiles",
    "pipeline.heads.fit",
    "pipeline.heads.baselines",
    "pipeline.heads.probes",
    "pipeline.figures.training",
    "pipeline.tiles.corruptions",
)

DEAD = 86
"""Exit status of a child that died at its step."""


class Steps:
    """The steps that a process takes in a folder: files opened, made, renamed, removed, cut, fsynced.

    Args:
        folder: whose files count.
        die_at: the step, counted from 1, before which the process ends as by kill -9; 0: none.
        power: whether what was written and not fsynced is half lost then, as when the power fails.
        tell: the file that gets the number of steps at the end.
    """

    def __init__(self, folder: str, *, die_at: int, power: bool, tell: str) -> None:
        self.folder, self.die_at, self.power, self.tell = folder, die_at, power, tell
        self.taken = 0
        self.unsynced: set[str] = set()
        self.inside = False
        self.pid = os.getpid()
        self.fsync = os.fsync
        os.fsync = self.synced  # type: ignore[assignment]
        sys.addaudithook(self.heard)

    def heard(self, event: str, words: tuple[Any, ...]) -> None:
        """Take a step if the event is one."""
        if self.inside or os.getpid() != self.pid:
            return
        if event == "open" and not isinstance(words[0], int) and words[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            self.step(str(words[0]))
            self.unsynced |= {str(words[0])} if str(words[0]).startswith(self.folder) else set()
        elif event == "os.rename":
            self.step(str(words[1]))
            if str(words[0]) in self.unsynced:
                self.unsynced.add(str(words[1]))
            self.unsynced.discard(str(words[0]))
        elif event in ("os.remove", "os.chmod", "os.mkdir", "os.truncate"):
            self.step(str(words[0]))

    def synced(self, handle: int) -> None:
        """Stand in for os.fsync."""
        path = str(Path(f"/proc/self/fd/{handle}").readlink())
        self.step(path)
        self.fsync(handle)
        self.unsynced.discard(path)

    def step(self, path: str) -> None:
        """Count a step in the folder; die if it is the one."""
        if not path.startswith(self.folder):
            return
        self.taken += 1
        if self.taken == self.die_at:
            self.inside = True
            if self.power:
                for name in filter(os.path.isfile, self.unsynced):
                    os.truncate(name, Path(name).stat().st_size // 2)
            os._exit(DEAD)

    def end(self) -> None:
        """Tell the number of steps."""
        self.inside = True
        Path(self.tell).write_text(str(self.taken))


def no_network(event: str, words: tuple[Any, ...]) -> None:
    """Refuse what would ask another machine; an audit hook."""
    if event == "socket.getaddrinfo" or (event == "socket.connect" and isinstance(words[1], tuple)):
        raise OSError("no network in tests")


def jumping_clock() -> None:
    """Let the clock go back by an hour each time it is read, as one does that was wrong and is set."""
    real = time.time
    jumps = iter(range(1, 10**9))
    time.time = lambda: real() - 3600 * next(jumps)


def child(order: dict[str, Any]) -> int:
    """Run one command in this process; return its exit code."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number, handle in enumerate((nothing, log, log)):
        os.dup2(handle, number)
    sys.argv = [order["command"], *order["argv"]]
    for name, most in order.get("limits", {}).items():
        kind = getattr(resource, f"RLIMIT_{name}")
        resource.setrlimit(kind, (most, resource.getrlimit(kind)[1]))
    sys.addaudithook(no_network)
    if order.get("clock"):
        jumping_clock()
    steps = None
    if "die_at" in order:
        steps = Steps(order["folder"], die_at=order["die_at"], power=order["power"], tell=order["tell"])
    code = importlib.import_module(f"pipeline.{order['command']}").main(order["argv"])
    if steps is not None:
        steps.end()
    return int(code)


def main() -> None:
    """Serve until the input ends; only children come back from here with a code."""
    for name in (*HEAVY, *(f"pipeline.{command}" for command in COMMANDS)):
        importlib.import_module(name)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    answer = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")  # whatever the locale of the commands is
    print("ready", file=answer)
    for line in os.fdopen(os.dup(0), encoding="utf-8"):
        order = json.loads(line)
        if "wait" in order:
            _, status = os.waitpid(order["wait"], 0)
            print(status, file=answer)
            continue
        pid = os.fork()
        os.setpgid(pid, pid or os.getpid())  # here and there: a kill of its group ends it with its workers, from now on
        if pid == 0:
            code = child(order["start"])
            if order["start"].get("to_the_end"):
                raise SystemExit(code)  # HDF5 has been seen to crash in there
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        print(pid, file=answer)


if __name__ == "__main__":
    main()
