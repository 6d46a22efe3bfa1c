"""Options: one frozen dataclass per stage becomes command-line flags (tyro) and a table of a TOML file.

Order of precedence: defaults, then `--config FILE.toml`, then the command line. In the TOML file the common options
stand at the top and each stage's in a table of its name:

    run = "reports/mine"
    seed = 1
    [train]
    epochs = 30
"""

import dataclasses
import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pipeline.errors import UsageError

Options = TypeVar("Options")
"""A dataclass of options."""


@dataclasses.dataclass(frozen=True)
class Common:
    """Where the run lies, what it may use, and the seed."""

    run: Path = Path("reports/demo")
    """The run folder: every stage reads and writes here."""

    config: Path | None = None
    """TOML file with options; the command line wins over it."""

    seed: int = 0
    """Seed of the split, the network, the heads and the bootstrap; for the demo of its tiles too."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps: where the network runs."""

    threads: int | None = None
    """Compute threads; default: all cores this process may use, shared among those that torchrun started."""

    workers: int | None = None
    """Processes (or threads) that decode tiles; default: up to four (for each process of torchrun)."""

    deterministic: bool = False
    """On a GPU: only kernels that repeat to the bit, which cost time (on a CPU they all do). What auto decides by
    timing need not repeat: name --precision, --engine and --embed-precision too."""

    max_bad: float = 0.01
    """Largest share of unreadable tiles that is skipped (exit code 3); above it the run stops."""

    force: bool = False
    """Use inputs although they are stale (made from another version of their own inputs)."""

    restart: bool = False
    """Make the stage's result anew although it is current, and drop unfinished work."""


DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")
"""What `--device` may say; whether this machine has it shows when the network is made."""


StageTypes = Mapping[str, type]
STAGES = (
    *("prepare", "train", "extract", "baselines", "fit_heads", "robustness", "report", "verify"),
    *("tile", "slides", "predict", "export"),
)
"""Names of the tables a TOML file may hold."""


def _tokens(file: Path, name: str, value: Any) -> list[str]:
    """Return a TOML value as the command-line words that say the same."""
    flag = "--" + name.replace("_", "-")
    if isinstance(value, bool):
        return [flag if value else "--no-" + flag[2:]]
    if isinstance(value, list):
        return [flag, *map(str, value)]
    if isinstance(value, dict):
        raise UsageError(f"{file}: '{name}' is a table; expected a value")
    return [f"{flag}={value}"]  # with the sign: a value may begin with a dash


def _unknown(file: Path, name: str, known: Sequence[str]) -> UsageError:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(known)}"
    return UsageError(f"{file}: unknown option '{name}'{hint}")


def read_toml(file: Path) -> dict[str, Any]:
    """Return the content of a TOML file.

    Raises:
        UsageError: no such file, or not TOML.
    """
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"{file}: cannot be read ({error.strerror}): check the path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: not valid TOML: {error}") from None


def toml_words(file: Path, table: Mapping[str, Any], stages: StageTypes) -> list[str]:
    """Return the words that a table of options adds in front of the command line.

    Args:
        file: the TOML file, for messages.
        table: common options, and the stages' tables.
        stages: the stages whose tables are taken; tables of other stages are passed over.

    Raises:
        UsageError: an unknown key (the nearest known name is given).
    """
    common = [field.name for field in dataclasses.fields(Common) if field.name != "config"]
    words: list[str] = []
    for name, value in table.items():
        if name in STAGES:
            if not isinstance(value, dict):
                raise UsageError(f"{file}: '{name}' is a stage: its options stand below a line [{name}]")
            if name in stages:
                known = [field.name for field in dataclasses.fields(stages[name])]
                for key, item in value.items():
                    if key not in known:
                        raise _unknown(file, key, known)
                    words += _tokens(file, key, item)
        elif name in common:
            words += _tokens(file, name, value)
        else:
            raise _unknown(file, name, [*common, *STAGES])
    return words


def parse(prog: str, description: str, stages: StageTypes, argv: Sequence[str]) -> tuple[Common, dict[str, Any]]:
    """Parse a command line for one or several stages.

    Args:
        prog: shown in help, e.g. "python -m pipeline.train".
        description: first lines of the help.
        stages: stage name -> its frozen dataclass of options.
        argv: the words after the program's name.

    Returns:
        The common options, and an instance of each stage's dataclass by stage name.

    Raises:
        UsageError: a bad TOML file.
        SystemExit: code 2 with tyro's message for a bad command line, 0 after --help.
    """
    import tyro

    _refuse_other_bytes(argv)
    from_files: list[str] = []
    for i, word in enumerate(argv):
        file = word.partition("=")[2] if word.startswith("--config=") else None
        if word == "--config" and i + 1 < len(argv):
            file = argv[i + 1]
        if file is not None:
            from_files += toml_words(Path(file), read_toml(Path(file)), stages)
    fields: list[tuple[str, type, Any]] = [("common", Common, dataclasses.field(default_factory=Common))]
    fields += [(name, kind, dataclasses.field(default_factory=kind)) for name, kind in stages.items()]
    command = dataclasses.make_dataclass("Command", fields, frozen=True)
    parsed: Any = tyro.cli(
        command, prog=prog, description=description, args=[*from_files, *argv], config=(tyro.conf.OmitArgPrefixes,)
    )
    common: Common = parsed.common
    if not 0 <= common.max_bad <= 1:
        raise UsageError(f"--max-bad {common.max_bad}: a share between 0 and 1 is needed")
    for name in ("threads", "workers"):
        value = getattr(common, name)
        if value is not None and value < (1 if name == "threads" else 0):
            raise UsageError(f"--{name} {value}: too small")
    if not DEVICE.fullmatch(common.device):
        raise UsageError(f"--device {common.device}: auto, cpu, cuda, cuda:1 or mps is needed")
    if common.seed < 0:
        raise UsageError(f"--seed {common.seed}: a number from 0 up is needed")
    return common, {name: getattr(parsed, name) for name in stages}


def parse_alone(prog: str, description: str, kind: type[Options], argv: Sequence[str]) -> Options:
    """Parse the command line of a command that belongs to no run.

    Args:
        prog: shown in help, e.g. "python -m pipeline.bench".
        description: first lines of the help.
        kind: its frozen dataclass of options.
        argv: the words after the program's name.

    Raises:
        UsageError: words that are not text, or what `kind` itself refuses.
        SystemExit: as `parse`.
    """
    import tyro

    _refuse_other_bytes(argv)
    return tyro.cli(kind, prog=prog, description=description, args=list(argv))


def _refuse_other_bytes(argv: Sequence[str]) -> None:
    try:
        "".join(argv).encode()
    except UnicodeEncodeError:
        raise UsageError("the command line holds bytes that are not UTF-8: rename that file or folder") from None


def check(condition: object, message: str) -> None:
    """Raise UsageError with `message` unless `condition` holds; for range checks in `__post_init__`."""
    if not condition:
        raise UsageError(message)


def plain(options: Any) -> dict[str, Any]:
    """Return a stage's options as plain JSON values, as they are stored in records."""
    return {
        name: str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
        for name, value in dataclasses.asdict(options).items()
    }
