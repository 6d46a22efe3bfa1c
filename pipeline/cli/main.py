"""Run the command that the first word after `histoheads` names.

histoheads demo                          all stages on the demo tiles
histoheads --run reports/mine            all stages: the same as python -m pipeline
histoheads train --run reports/mine      one stage: the same as python -m pipeline.train
histoheads completion bash > FILE        names of commands and options on TAB, after `source FILE`; also zsh
"""

import contextlib
import difflib
import importlib
import io
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Union

from pipeline.cli.command import SCRIPT, Command, guarded
from pipeline.cli.help_groups import command_type
from pipeline.cli.options import check
from pipeline.errors import EXIT_OK, UsageError
from pipeline.names import COMMANDS

DEMO = ("--data", "demo", "--run", "reports/demo")
"""The options of `histoheads demo`."""

SHELLS = ("bash", "zsh")
"""Shells that `histoheads completion` is for."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the console script and return the exit code of the command.

    Args:
        argv: the words after the script's name; default: this process's.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0].startswith("-"):
        return command_of("__main__")(words)
    name = words.pop(0).replace("-", "_")
    if name == "completion":
        return guarded("pipeline", lambda: print_completion(words))
    if name == "demo":
        return command_of("__main__")([*DEMO, *words])
    if name not in COMMANDS:
        return guarded("pipeline", lambda: refuse(name))
    return command_of(name)(words)


def command_of(name: str) -> Command[Any]:
    """Return a command by the name of its module."""
    found: Command[Any] = importlib.import_module(f"pipeline.{name}").main
    return found


def refuse(name: str) -> int:
    """Refuse a word that names no command.

    Raises:
        UsageError: always.
    """
    near = difflib.get_close_matches(name, ["demo", *COMMANDS], n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"known are demo, {', '.join(COMMANDS)}"
    raise UsageError(f"{SCRIPT}: no such command: '{name}'; {hint}")


def print_completion(words: Sequence[str]) -> int:
    """Print the script by which a shell completes the names of commands and options; return the exit code.

    Raises:
        UsageError: not a shell that this is known for.
    """
    import tyro

    check(len(words) == 1 and words[0] in SHELLS, f"{SCRIPT} completion: name a shell: {' or '.join(SHELLS)}")
    commands: list[Any] = [
        Annotated[command_type(command_of(name).syntax.groups), tyro.conf.subcommand(name=name)] for name in COMMANDS
    ]
    kinds: Any = Union[tuple(commands)]  # noqa: UP007
    options = ("--tyro-print-completion", *words)
    with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit):
        tyro.cli(kinds, prog=SCRIPT, args=options, config=(tyro.conf.OmitArgPrefixes,))
    # -I: on TAB, Python must not import files of the current folder (P3)
    print(text.getvalue().replace('"$python_cmd" -', '"$python_cmd" -I -'))
    return EXIT_OK
