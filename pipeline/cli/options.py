"""Define the options that all commands share, and help with those of each stage.

The options of a stage are a frozen dataclass. Its fields become flags of the command line, and the text below a field
becomes its help. `GROUPS` may divide a long list: title -> the first option below it.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pipeline.errors import UsageError

DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")
"""Values of `--device`; whether this machine has the device is checked when a network is built."""


@dataclasses.dataclass(frozen=True)
class Messages:
    """What a command prints."""

    quiet: bool = False
    """Print warnings and errors only."""

    verbose: bool = False
    """Print details for a bug report too, and the time of each message."""

    version: bool = False
    """Print the version and stop."""

    def __post_init__(self) -> None:
        """Check that one is chosen at most."""
        check(not (self.quiet and self.verbose), "--quiet and --verbose: choose one")


@dataclasses.dataclass(frozen=True)
class Common(Messages):
    """Where the run folder is, what the command may use, and the seed."""

    GROUPS: ClassVar[Mapping[str, str]] = {"run": "run", "machine": "device", "message": "quiet"}

    run: Path = Path("reports/demo")
    """The run folder: every stage reads and writes here."""

    config: Path | None = None
    """TOML file with options; the command line wins over it."""

    seed: int = 0
    """Seed of the split, the network, the heads and the bootstrap, and of the demo tiles."""

    force: bool = False
    """Use inputs although a check refuses them: made from another version of their own inputs, a network of another
    manifest, mixed shards, the scale of a slide, annotations in micrometres."""

    restart: bool = False
    """Make the result again although it is current, and drop unfinished work."""

    max_bad: float = 0.01
    """Largest share of unreadable tiles that is skipped (exit code 3). Above it the run stops."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps: where the network runs."""

    threads: int | None = None
    """Compute threads. Default: the cores that this process may use (affinity, CPU quota, OMP_NUM_THREADS), shared
    among the processes that torchrun started."""

    workers: int | None = None
    """Processes (or threads) that decode tiles. Default: as many as cores that this process may use, at most four."""

    deterministic: bool = False
    """On a GPU: only kernels that repeat to the bit, which cost time. CPU kernels always do."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        check(0 <= self.max_bad <= 1, f"--max-bad {self.max_bad}: a share between 0 and 1 is needed")
        check(self.threads is None or self.threads >= 1, f"--threads {self.threads}: at least 1")
        check(self.workers is None or self.workers >= 0, f"--workers {self.workers}: at least 0")
        check(DEVICE.fullmatch(self.device), f"--device {self.device}: auto, cpu, cuda, cuda:1 or mps is needed")
        check(self.seed >= 0, f"--seed {self.seed}: a number from 0 up is needed")


def check(condition: object, message: str) -> None:
    """Raise UsageError with `message` unless `condition` holds; for range checks in `__post_init__`."""
    if not condition:
        raise UsageError(message)


def plain(options: Any) -> dict[str, Any]:
    """Return the options of a stage as plain JSON values, as records store them."""
    return {
        name: str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
        for name, value in dataclasses.asdict(options).items()
    }
