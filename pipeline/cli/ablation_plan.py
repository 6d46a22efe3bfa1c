"""The plan of an ablation: a TOML file with the options of all stages and, for each arm, what is its own."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.cli.options import Common
from pipeline.cli.parse import Syntax, parse
from pipeline.cli.toml_file import read_toml, toml_words
from pipeline.errors import UsageError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}")
"""What an arm may be called: it becomes a folder."""

OWN = ("train", "extract", "fit_heads")
"""Stages that arms may differ in; all else is the same, so that their test rows are."""


@dataclasses.dataclass(frozen=True)
class Planned:
    """One arm, ready to run."""

    name: str
    common: Common
    options: Any
    """The options of all stages."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """Content of a plan file."""

    run: Path
    n_tiles: int | None
    """Tiles to draw from the data set; None: all."""

    arms: list[Planned]


def read_plan(file: Path, kind: type, *, named: Sequence[str], words: Sequence[str] = ()) -> Plan:
    """Read a plan and every arm's options.

    Args:
        file: the TOML file.
        kind: dataclass of the options of all stages.
        named: data sets that go by a name, of which no part can be drawn.
        words: common options of the command line, which win over the plan's.

    Raises:
        UsageError: not TOML, no arms, no run, or what no stage knows.
    """
    table = read_toml(file)
    syntax: Syntax[Any] = Syntax("python -m pipeline.ablate", "", kind)
    arms, n_tiles = table.pop("arms", None), table.pop("tiles", None)
    if not isinstance(table.get("run"), str):
        raise UsageError(f'{file}: run = "FOLDER" is needed at the top: where the arms are run')
    if n_tiles is not None and (not isinstance(n_tiles, int) or isinstance(n_tiles, bool) or n_tiles < 1):
        raise UsageError(f"{file}: tiles = {n_tiles}: a number from 1 up is needed")
    if not isinstance(arms, dict) or not arms:
        raise UsageError(f"{file}: no arms: each is a table [arms.NAME]")
    if len({name.casefold() for name in arms}) < len(arms):
        raise UsageError(
            f"{file}: two arms differ in upper and lower case alone: they would share a folder on some disks"
        )
    shared = toml_words(file, table, syntax.stages)
    found = []
    for name, own in arms.items():
        if not NAME.fullmatch(name):
            raise UsageError(f"{file}: an arm is called '{name}': letters, digits, dots, dashes and _ are allowed")
        if not isinstance(own, dict) or set(own) - set(OWN):
            raise UsageError(
                f"{file}: arms.{name} holds other tables than {', '.join(OWN)}, in which alone arms differ"
            )
        place = Path(table["run"]) / "arms" / name
        line = [*shared, *toml_words(file, own, syntax.stages), *words, f"--run={place}"]
        found.append(Planned(name, *parse(syntax, line)))
    data = found[0].options.prepare.data
    if n_tiles is not None and data in named:
        raise UsageError(f"{file}: tiles: not of {data}, whose credit and scale a list of files would not hold")
    if found[0].common.restart:
        raise UsageError(f"{file}: restart: an arm is begun anew by removing its folder")
    return Plan(Path(table["run"]), n_tiles, found)


def chosen_arms(plan: Plan, asked: Sequence[str] | None) -> list[str]:
    """Return the names of the arms asked for, in the plan's order; None asks for all.

    Raises:
        UsageError: none, one that the plan does not have, or one twice; names those that it has.
    """
    names = [arm.name for arm in plan.arms]
    if asked is None:
        return names
    those = f"; the plan's arms: {', '.join(names)}"
    if not asked:
        raise UsageError(f"--arms: name at least one{those}")
    for name in asked:
        if name not in names:
            raise UsageError(f"--arms {name}: no such arm{those}")
        if asked.count(name) > 1:
            raise UsageError(f"--arms: {name} is named twice{those}")
    return [name for name in names if name in asked]
