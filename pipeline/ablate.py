"""Run recipes against one another: several arms over the same tiles, splits and seeds, and one table of all.

Reads a plan: a TOML file with the options of all stages, as `--config` takes it, and a table for each arm with what is
its own. Every arm is a run of `python -m pipeline` in <run>/arms/<name>; then ablation.csv and ablation.md are written
into <run>. The first arm is the one that the others are held against. Stop it at any moment: the same command goes on.

    python -m pipeline.ablate reports/ablation/plan.toml

    run = "reports/my-ablation"
    tiles = 1500                      # a part of the data set, every class in its share; left out: all
    [prepare]
    data = "my_tiles"
    protocol = "random"
    seeds = 3
    [arms.tutorial]
    train.recipe = "tutorial"
    [arms.strong]
    train.recipe = "strong"
    [arms.strong-8-views]             # trains nothing: the network of the arm above
    train.recipe = "strong"
    extract.views = 8
"""

import dataclasses
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline import __main__ as whole
from pipeline import prepare
from pipeline.cli.command import guarded
from pipeline.cli.options import Common, parse, parse_alone, plain, read_toml, say, toml_words
from pipeline.errors import EXIT_OK, DiskFull, Interrupted, PipelineError, UsageError
from pipeline.storage import artifacts, records
from pipeline.storage.lock import locked
from pipeline.storage.protocol import read_protocol

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}")
"""What an arm may be called: it becomes a folder."""

OWN = ("train", "extract", "fit_heads")
"""Stages that arms may differ in; all else is the same, so that their test rows are."""


@dataclasses.dataclass(frozen=True)
class AblateOptions:
    """What is compared."""

    plan: Path
    """The TOML file; `--plan` itself may be left out."""


@dataclasses.dataclass(frozen=True)
class Planned:
    """One arm, ready to run."""

    name: str
    common: Common
    options: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Plan:
    """Content of a plan file."""

    run: Path
    n_tiles: int | None
    """Tiles to draw from the data set; None: all."""

    arms: list[Planned]


def read_plan(file: Path) -> Plan:
    """Read a plan and every arm's options.

    Raises:
        UsageError: not TOML, no arms, no run, or what no stage knows.
    """
    table = read_toml(file)
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
    stages = {name: kind for name, (kind, _) in whole.STAGES.items()}
    shared = toml_words(file, table, stages)
    found = []
    for name, own in arms.items():
        if not NAME.fullmatch(name):
            raise UsageError(f"{file}: an arm is called '{name}': letters, digits, dots, dashes and _ are allowed")
        if not isinstance(own, dict) or set(own) - set(OWN):
            raise UsageError(
                f"{file}: arms.{name} holds other tables than {', '.join(OWN)}, in which alone arms differ"
            )
        place = Path(table["run"]) / "arms" / name
        words = [*shared, *toml_words(file, own, stages), f"--run={place}"]
        found.append(Planned(name, *parse("python -m pipeline.ablate", "", stages, words)))
    data = found[0].options["prepare"].data
    if n_tiles is not None and data in prepare.NAMES:
        raise UsageError(f"{file}: tiles: not of {data}, whose credit and scale a list of files would not hold")
    if found[0].common.restart:
        raise UsageError(f"{file}: restart: an arm is begun anew by removing its folder")
    return Plan(Path(table["run"]), n_tiles, found)


def run(options: AblateOptions) -> int:
    """Run all arms, or what is left of them, and write the table; return the highest exit code.

    Raises:
        PipelineError: arms failed; the others were run all the same, but there is no table.
        Interrupted, DiskFull: what every further arm would meet too.
    """
    plan = read_plan(options.plan)
    records.git_state()
    with locked(plan.run):
        artifacts.remove_temporaries(plan.run)
        if plan.n_tiles is not None:
            plan = with_drawn_tiles(plan, plan.n_tiles)
        codes, failed = [EXIT_OK], dict[str, PipelineError]()
        for i, arm in enumerate(plan.arms):
            say(f"ablate: arm {i + 1} of {len(plan.arms)}, {arm.name}")
            try:
                codes.append(run_arm(arm, [other for other in plan.arms[:i] if other.name not in failed]))
            except (Interrupted, DiskFull):
                raise
            except PipelineError as error:  # of one that diverges, a night's other arms must not be lost
                say(f"ablate: arm {arm.name} failed: {error}")
                failed[arm.name] = error
        if failed:
            first, reason = next(iter(failed.items()))
            raise PipelineError(
                f"{options.plan}: {len(failed)} of {len(plan.arms)} arms failed ({', '.join(failed)}), the others are "
                f"kept; there is no table until these are mended or leave the plan; {first}: {reason}"
            )
        write_table(plan)
    return max(codes)


def run_arm(arm: Planned, before: Sequence[Planned]) -> int:
    """Run one arm, by the networks of an arm before it if they are its own; return the exit code."""
    with locked(arm.common.run):
        artifacts.remove_temporaries(arm.common.run)
        if source := same_network(arm, before):
            prepare.run(arm.common, whole.planned(arm.options))
            take_over(source.common.run, arm.common.run)
        return whole.run(arm.common, arm.options)


def with_drawn_tiles(plan: Plan, n: int) -> Plan:
    """Write the list of the tiles drawn and return the plan with arms that take them.

    Raises:
        BadInput: the data set does not hold so many.
    """
    from pipeline.tiles.datasets import find_tiles
    from pipeline.tiles.drawing import drawn_rows, listed

    first = plan.arms[0]
    asked = first.options["prepare"]
    tiles = find_tiles(
        asked.data,
        source=None,
        data_dir=asked.data_dir,
        group_regex=asked.group_regex,
        url=None,
        demo_tiles=asked.demo_tiles,
        demo_px=asked.demo_px,
        seed=first.common.seed,
    )
    path = plan.run / f"{tiles.name}-{n}.csv"  # its name is the data set's in every report
    text = listed(tiles, drawn_rows(tiles, n, seed=first.common.seed), folder=plan.run)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        artifacts.write_text(path, text)
    taken = dataclasses.replace(asked, data=str(path), group_regex=None)
    arms = [dataclasses.replace(arm, options={**arm.options, "prepare": taken}) for arm in plan.arms]
    return dataclasses.replace(plan, arms=arms)


def same_network(arm: Planned, before: Sequence[Planned]) -> Planned | None:
    """Return the arm before this one whose networks are its own, None if there is none."""

    def decides(one: Planned) -> list[Mapping[str, Any]]:
        return [plain(whole.planned(one.options)), plain(one.options["train"])]

    return next((other for other in before if decides(other) == decides(arm)), None)


def take_over(source: Path, target: Path) -> None:
    """Copy the networks of one run, with their records, into another that was prepared alike and lacks them."""
    protocol = read_protocol(target)
    parts = [Path()] if protocol is None else [protocol.folder(p).relative_to(target) for p in protocol.parts]
    for part in parts:
        model = Path("model.safetensors")
        if records.record_path(target / part / model).is_file():
            continue
        record = records.read_record(source / part / model)
        for name in (*record["outputs"], model.name, records.record_path(model).name):  # the record last
            with artifacts.atomic(target / part / name) as temporary:
                shutil.copyfile(source / part / name, temporary)


def write_table(plan: Plan) -> None:
    """Write ablation.csv, its record and ablation.md, unless they are current."""
    from pipeline.comparison.ablation import SCHEMA, compare, read_arm, to_csv, to_page

    out, page = plan.run / "ablation.csv", plan.run / "ablation.md"
    first = plan.arms[0]
    same: dict[str, Any] = {
        "schema": SCHEMA,
        "options": {arm.name: {name: plain(arm.options[name]) for name in ("prepare", *OWN)} for arm in plan.arms},
        "inputs": [
            records.standing(arm.common.run / name) for arm in plan.arms for name in ("predictions.csv", "stress.csv")
        ],
        "seed": first.common.seed,
    }
    if records.is_current(out, **same):
        say(f"ablate: current, {out}")
        return
    arms = [read_arm(arm.common.run, arm.name) for arm in plan.arms]
    rows = compare(arms, seed=first.common.seed)
    details = arms[0].predictions.details
    part = "" if plan.n_tiles is None else f" ({plan.n_tiles} tiles, drawn class by class)"
    networks = list(dict.fromkeys(arm.options["train"].arch for arm in plan.arms))
    alike = f", network {networks[0]}" if len(networks) == 1 else ""
    setting = (
        f"Data set {details.get('dataset')}{part}; protocol {details.get('protocol')}{alike}; what each arm does "
        "differently stands in its name and in the plan."
    )
    artifacts.write_text(out, to_csv(rows))
    artifacts.write_text(page, to_page(rows, arms=arms, setting=setting))
    records.write_record(out, **same, stage="ablate", outputs=[page], details={"arms": [arm.name for arm in arms]})
    say(f"ablate: {page}")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `python -m pipeline.ablate`."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and not words[0].startswith("-"):
        words.insert(0, "--plan")
    name = "pipeline.ablate"
    return guarded(name, lambda: run(parse_alone(f"python -m {name}", __doc__ or "", AblateOptions, words)))


if __name__ == "__main__":
    raise SystemExit(main())
