"""Run recipes against one another: one run for each named set of options, and one table of all.

Reads a plan: a TOML file with the options of all stages, as `--config` takes it, and a table for each run with its own
options. Each run is an ordinary run folder, <run>/<name>, made as by `python -m pipeline`. Then the others are compared
with the first (`python -m pipeline.compare --against`), and the table of that command is written into <run>. Stop it at
any moment: the same command continues.

    python -m pipeline.ablate reports/ablation/idc.toml
    python -m pipeline.ablate reports/ablation/idc.toml --only strong tutorial     these runs alone, and no table

    run = "reports/my-ablation"
    [prepare]
    data = "my_tiles"
    seeds = 3
    [runs.tutorial]
    train.recipe = "tutorial"
    [runs.strong-8-views]
    train.recipe = "strong"
    extract.views = 8
"""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import tyro

from pipeline import __main__ as whole
from pipeline import compare
from pipeline.cli.command import called, command_without_run
from pipeline.cli.options import Common, check
from pipeline.cli.parse import Syntax, parse
from pipeline.cli.toml_file import read_toml, toml_words
from pipeline.errors import EXIT_OK, DiskFull, Interrupted, PipelineError, UsageError
from pipeline.runtime.console import log
from pipeline.storage.lock import locked_run

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}")
"""A name of a run: it becomes a folder."""

SYNTAX = Syntax(called("pipeline.ablate"), "", whole.AllOptions)
"""The options of a run."""


@dataclasses.dataclass(frozen=True)
class AblateOptions:
    """Which runs of which plan."""

    plan: tyro.conf.Positional[Path]
    """The TOML file."""

    only: tuple[str, ...] | None = None
    """Names of the runs to make, while other commands may make others; no table is written. Default: all."""

    threads: int | None = None
    """Compute threads; default: the plan's."""

    device: str | None = None
    """Where the networks run; default: the plan's."""

    def __post_init__(self) -> None:
        """Check that --only has a name."""
        check(self.only is None or self.only, "--only: name at least one run")


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """One run with all its options."""

    name: str
    common: Common
    options: whole.AllOptions


def read_plan(file: Path, *, words: Sequence[str] = ()) -> list[PlannedRun]:
    """Return the runs of a plan in their order.

    Args:
        file: the TOML file.
        words: common options of the command line, which win over the plan's.

    Raises:
        UsageError: not TOML, no runs, a name that is no folder, or an unknown option.
    """
    table = read_toml(file)
    runs, place = table.pop("runs", None), table.get("run")
    if not isinstance(place, str):
        raise UsageError(f'{file}: run = "FOLDER" is needed at the top: the folder of all runs')
    if not isinstance(runs, dict) or not runs or not all(isinstance(own, dict) for own in runs.values()):
        raise UsageError(f"{file}: no runs: each is a table [runs.NAME]")
    if wrong := [name for name in runs if not NAME.fullmatch(name)]:
        raise UsageError(f"{file}: a run is called '{wrong[0]}': letters, digits, dots, dashes and _ are allowed")
    if len({name.casefold() for name in runs}) < len(runs):
        raise UsageError(f"{file}: the names of two runs differ in upper and lower case alone")
    if table.get("restart"):
        raise UsageError(f"{file}: restart: to make a run again, remove its folder")
    shared = toml_words(file, table, SYNTAX.stages)
    planned = []
    for name, own in runs.items():
        line = [*shared, *toml_words(file, own, SYNTAX.stages), *words, f"--run={Path(place) / name}"]
        planned.append(PlannedRun(name, *parse(SYNTAX, line)))
    return planned


def run(options: AblateOptions) -> int:
    """Make the runs of a plan and compare them; return the highest exit code.

    Raises:
        UsageError: as `read_plan`, or `--only` names a run that the plan does not have.
        PipelineError: runs failed or are in use; the others were made all the same, but there is no table.
        Interrupted, DiskFull: no further run is begun.
    """
    given = {"threads": options.threads, "device": options.device}
    plan = read_plan(options.plan, words=[f"--{name}={value}" for name, value in given.items() if value is not None])
    names = [each.name for each in plan]
    if unknown := [name for name in options.only or () if name not in names]:
        raise UsageError(f"--only {unknown[0]}: no such run; the runs of the plan: {', '.join(names)}")
    codes, failed = [EXIT_OK], dict[str, PipelineError]()
    chosen = [each for each in plan if options.only is None or each.name in options.only]
    for i, each in enumerate(chosen, start=1):
        log.info(f"ablate: run {i} of {len(chosen)}, {each.name}")
        try:
            with locked_run(each.common.run):
                codes.append(whole.run(each.common, each.options))
        except (Interrupted, DiskFull):
            raise
        except PipelineError as error:  # one run that diverges must not cost the others of a night
            log.warning(f"ablate: run {each.name} failed: {error}")
            failed[each.name] = error
    if failed:
        name, reason = next(iter(failed.items()))
        raise PipelineError(
            f"{options.plan}: {len(failed)} of {len(chosen)} runs failed ({', '.join(failed)}), the others are kept; "
            f"no table is written; {name}: {reason}"
        )
    if options.only is None and len(plan) > 1:
        folders = tuple(each.common.run for each in plan)
        codes.append(compare.run(compare.CompareOptions(folders, out=folders[0].parent, against=names[0])))
    return max(codes)


main = command_without_run("pipeline.ablate", __doc__, AblateOptions, run)
"""Entry point of `python -m pipeline.ablate`."""


if __name__ == "__main__":
    raise SystemExit(main())
