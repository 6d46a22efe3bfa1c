"""Read `--config FILE.toml`: common options at the top, the options of each stage in a table of its name.

run = "reports/mine"
seed = 1
[train]
epochs = 30
"""

import dataclasses
import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.cli.options import Common
from pipeline.errors import UsageError

StageTypes = Mapping[str, type]
"""Stage name -> its dataclass of options."""

STAGES = (
    *("prepare", "train", "extract", "baselines", "fit_heads", "robustness", "report", "verify"),
    *("tile", "slides", "predict", "export"),
)
"""Names of the tables that a file may hold."""


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
        stages: the stages whose tables are taken; the tables of other stages are ignored.

    Raises:
        UsageError: an unknown key; the message names the nearest known one.
    """
    common = [field.name for field in dataclasses.fields(Common) if field.name not in ("config", "version")]
    words: list[str] = []
    for name, value in table.items():
        if name in STAGES:
            if not isinstance(value, dict):
                raise UsageError(f"{file}: '{name}' is a stage: write its options below a line [{name}]")
            if name in stages:
                known = [field.name for field in dataclasses.fields(stages[name])]
                for key, item in value.items():
                    if key not in known:
                        raise _unknown(file, key, known)
                    words += _words(file, key, item)
        elif name in common:
            words += _words(file, name, value)
        else:
            raise _unknown(file, name, [*common, *STAGES])
    return words


def _words(file: Path, name: str, value: Any) -> list[str]:
    """Return the words of the command line for one option."""
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
