"""Parse command lines. Order of precedence: the command line, then `--config FILE.toml`, then defaults."""

import dataclasses
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from pipeline import __version__
from pipeline.cli.help_groups import Group, basic_options, command_type, groups_of
from pipeline.cli.options import Common, Messages
from pipeline.cli.toml_file import StageTypes, read_toml, toml_words
from pipeline.errors import UsageError
from pipeline.runtime.console import start_logging

Options = TypeVar("Options")


@dataclasses.dataclass(frozen=True)
class Syntax(Generic[Options]):
    """The command line that a command understands."""

    prog: str
    """The words that start the command, e.g. "python -m pipeline.train"."""

    description: str
    """First lines of the help."""

    options: type[Options]
    """A dataclass of options, or a dataclass of such dataclasses by stage name."""

    stage: str = ""
    """Name of the options' table in a TOML file where `options` is a dataclass of options."""

    basics: Sequence[str] = ()
    """Options that the help shows, each with one sentence. Default: all options."""

    with_run: bool = True
    """Whether the command works on a run and has the common options."""

    @property
    def stages(self) -> StageTypes:
        """Stage name -> its dataclass of options."""
        return parts_of(self.options) or {self.stage: self.options}

    @property
    def groups(self) -> list[Group]:
        """All options of the command line, in the order of the help."""
        shared = {"common": Common} if self.with_run else {"message": Messages}
        return [group for owner, kind in {**self.stages, **shared}.items() for group in groups_of(owner, kind)]


def parts_of(kind: type) -> dict[str, type]:
    """Return the dataclasses that are the fields of a dataclass by name; empty if any field is no dataclass."""
    hints = typing.get_type_hints(kind)
    parts = {field.name: hints[field.name] for field in dataclasses.fields(kind)}
    return parts if all(dataclasses.is_dataclass(part) for part in parts.values()) else {}


def parse(syntax: Syntax[Options], argv: Sequence[str]) -> tuple[Common, Options]:
    """Parse the command line of a command; without a run, the common options but for messages have their defaults.

    Raises:
        UsageError: words that are no text, a bad TOML file, or a value out of range.
        SystemExit: code 2 after a message on a bad command line, 0 after --help or --version.
    """
    from_files: list[str] = []
    for i, word in enumerate(argv if syntax.with_run else ()):
        file = word.partition("=")[2] if word.startswith("--config=") else None
        if word == "--config" and i + 1 < len(argv):
            file = argv[i + 1]
        if file is not None:
            from_files += toml_words(Path(file), read_toml(Path(file)), syntax.stages)
    values = _values(syntax, [*from_files, *argv])
    common = Common(**values["common" if syntax.with_run else "message"])
    start_logging(quiet=common.quiet, verbose=common.verbose)
    parts = parts_of(syntax.options)
    if not parts:
        return common, syntax.options(**values[syntax.stage])
    return common, syntax.options(**{name: kind(**values[name]) for name, kind in parts.items()})


def _values(syntax: Syntax[Options], argv: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the values of the fields of each dataclass."""
    import tyro

    try:
        "".join(argv).encode()
    except UnicodeEncodeError:
        raise UsageError("the command line holds bytes that are not UTF-8: rename that file or folder") from None
    if "--version" in argv:
        print(f"histoheads {__version__}")
        raise SystemExit(0)
    groups = syntax.groups
    if syntax.basics and not {"-h", "--help"}.isdisjoint(argv):
        argv, groups = ["--help"], [basic_options(groups, syntax.basics)]
    parsed: Any = tyro.cli(
        command_type(groups),
        prog=syntax.prog,
        description=syntax.description,
        args=list(argv),
        config=(tyro.conf.OmitArgPrefixes,),
    )
    values: dict[str, dict[str, Any]] = {group.owner: {} for group in groups}
    values |= {stage: {} for stage in syntax.stages if stage not in values}
    for i, group in enumerate(groups):
        found = getattr(parsed, f"group{i}")
        values[group.owner] |= {option.name: getattr(found, option.name) for option in group.options}
    return values
