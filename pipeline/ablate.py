"""Run recipes against one another: several arms over the same tiles, splits and seeds, and one table of all.

Reads a plan: a TOML file with the options of all stages, as `--config` takes it, and a table for each arm with what is
its own. Every arm is a run of `python -m pipeline` in <run>/arms/<name>; then ablation.csv and ablation.md are written
into <run>. The first arm is the one that the others are held against. Stop it at any moment: the same command goes on.

    python -m pipeline.ablate reports/ablation/plan.toml

Several commands may run arms of one plan at the same time, each its own; the command without --arms then runs what is
left and writes the table. Arms that differ in embedding alone belong into one command: before the first of them is
finished, another command trains the same network again.

    python -m pipeline.ablate plan.toml --threads 1 --arms tutorial
    python -m pipeline.ablate plan.toml --threads 1 --arms strong strong-8-views

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

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tyro

from pipeline import __main__ as whole
from pipeline import prepare, train
from pipeline.cli.ablation_plan import OWN, Plan, Planned, chosen_arms, read_plan
from pipeline.cli.command import CommandWithoutRun
from pipeline.cli.options import plain
from pipeline.errors import EXIT_OK, BadArtifact, DiskFull, Interrupted, Locked, PipelineError, StaleInput
from pipeline.runtime.console import log
from pipeline.storage import atomic, environment, freshness, records
from pipeline.storage.lock import run_held
from pipeline.storage.model_reuse import network_folders, take_over


@dataclasses.dataclass(frozen=True)
class AblateOptions:
    """What is compared, and what of it this command runs."""

    plan: tyro.conf.Positional[Path]
    """The TOML file."""

    arms: tuple[str, ...] | None = None
    """Run these arms only, beside commands that run others, and write no table; default: all arms, and the table."""

    threads: int | None = None
    """Compute threads of this command, for all its arms; default: the plan's."""

    device: str | None = None
    """Where the networks of this command run, for all its arms; default: the plan's. An arm that was stopped while it
    embedded goes on only where it began."""


class _ArmHeld(Locked):
    """Another process runs the arm, and not only what the arm reads."""


def run(options: AblateOptions) -> int:
    """Run the arms, or what is left of them, and write the table; return the highest exit code.

    With `--arms` there is no table, and others may run other arms at the same time.

    Raises:
        UsageError: as `read_plan` and `chosen_arms`.
        Locked: arms are being run by other processes; or another command holds the whole plan.
        PipelineError: arms failed; the others were run all the same, but there is no table.
        Interrupted, DiskFull: what every further arm would meet too.
    """
    given = {"threads": options.threads, "device": options.device}
    words = [f"--{name}={value}" for name, value in given.items() if value is not None]
    plan = read_plan(options.plan, whole.AllOptions, named=prepare.NAMES, words=words)
    chosen, shared = chosen_arms(plan, options.arms), options.arms is not None
    environment.git_state()
    with run_held(plan.run, shared=shared):
        if plan.n_tiles is not None:
            plan = with_drawn_tiles(plan, plan.n_tiles, shared=shared)
        codes, failed, held = [EXIT_OK], dict[str, PipelineError](), list[str]()
        for i, arm in enumerate(plan.arms):
            if arm.name not in chosen:
                continue
            log.info(f"ablate: arm {chosen.index(arm.name) + 1} of {len(chosen)}, {arm.name}")
            try:
                codes.append(run_arm(arm, plan.arms[:i]))
            except (Interrupted, DiskFull):
                raise
            except _ArmHeld as error:
                log.info(f"ablate: arm {arm.name} is being run by another process ({error})")
                held.append(arm.name)
            except PipelineError as error:  # of one that diverges, a night's other arms must not be lost
                log.info(f"ablate: arm {arm.name} failed: {error}")
                failed[arm.name] = error
        elsewhere = f"{len(held)} of {len(chosen)} arms are being run by other processes ({', '.join(held)})"
        if failed:
            first, reason = next(iter(failed.items()))
            raise PipelineError(
                f"{options.plan}: {len(failed)} of {len(chosen)} arms failed ({', '.join(failed)}), the others are "
                f"kept; there is no table until these are mended or leave the plan; {first}: {reason}"
                + (f"; {elsewhere}" if held else "")
            )
        if held:
            raise Locked(f"{options.plan}: {elsewhere}: give the same command again once they are done")
        if shared:
            log.info("ablate: once all arms are done, the same command without --arms writes the table")
        else:
            write_table(plan)
    return max(codes)


def run_arm(arm: Planned, before: Sequence[Planned]) -> int:
    """Run one arm, by the networks of an arm before it in the plan if they are its own; return the exit code.

    Raises:
        _ArmHeld: another process runs it.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(run_held(arm.common.run))
        except Locked as error:
            raise _ArmHeld(str(error)) from None
        if random_controls := same_networks(arm, before):
            prepare.run(arm.common, whole.planned(arm.options))
            if source := next(
                (random_control for random_control in random_controls if has_networks(random_control, arm)), None
            ):
                take_over(source.common.run, arm.common.run)
            elif not has_networks(arm, arm):
                log.info(
                    f"ablate: {arm.name} trains what {random_controls[0].name} would, whose networks are not finished"
                )
        return whole.run(arm.common, arm.options)


def with_drawn_tiles(plan: Plan, n: int, *, shared: bool) -> Plan:
    """Write the list of the tiles drawn and return the plan with arms that take them.

    Args:
        plan: what is run.
        n: how many tiles.
        shared: whether others may be reading the list: it is written if it is missing, but not replaced.

    Raises:
        BadInput: the data set does not hold so many.
        StaleInput: the list that others may be reading is another one.
    """
    from pipeline.tiles.datasets.sources import find_tiles
    from pipeline.tiles.datasets.subset import drawn_rows, listed

    first = plan.arms[0]
    asked = first.options.prepare
    tiles = find_tiles(asked.data_source, seed=first.common.seed)
    path = plan.run / f"{tiles.name}-{n}.csv"  # its name is the data set's in every report
    text = listed(tiles, drawn_rows(tiles, n, seed=first.common.seed), folder=plan.run)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        if shared and path.is_file():
            raise StaleInput(
                f"{path} lists other tiles than the plan draws now, and other commands may be reading it: give the "
                "command without --arms, which writes it anew"
            )
        atomic.write_text(path, text)  # two commands at once write the same
    taken = dataclasses.replace(asked, data=str(path), group_regex=None)
    arms = [dataclasses.replace(arm, options=dataclasses.replace(arm.options, prepare=taken)) for arm in plan.arms]
    return dataclasses.replace(plan, arms=arms)


def same_networks(arm: Planned, before: Sequence[Planned]) -> list[Planned]:
    """Return the arms before this one whose networks are its own."""

    def decides(one: Planned) -> list[Mapping[str, Any]]:
        return [plain(whole.planned(one.options)), plain(one.options.train)]

    return [other for other in before if decides(other) == decides(arm)]


def has_networks(source: Planned, arm: Planned) -> bool:
    """Tell whether all networks of an arm are finished, and those that another, prepared one would train.

    The source may be in the hands of another process, or be what an earlier version of the plan left.
    """
    from pipeline.tiles.manifest import read_manifest

    for part, seed in network_folders(arm.common.run):
        ours, theirs = (one.common.run / part / "manifest.csv" for one in (arm, source))
        try:
            is_same = atomic.sha256_file(theirs) == atomic.sha256_file(ours)
            found = is_same and train.is_trained(
                read_manifest(theirs), arm.options.train, seed=arm.common.seed if seed is None else seed
            )
        except (FileNotFoundError, BadArtifact):  # not begun, or being made or removed: its own command says more
            return False
        if not found:
            return False
    return True


def write_table(plan: Plan) -> None:
    """Write ablation.csv, its record and ablation.md, unless they are current."""
    from pipeline.comparison.ablation import READ, SCHEMA, compare, read_arm, to_csv, to_page

    out, page = plan.run / "ablation.csv", plan.run / "ablation.md"
    first = plan.arms[0]
    folders = [arm.common.run / part for arm in plan.arms for part, _ in network_folders(arm.common.run)]
    artifact = records.Artifact(
        out,
        SCHEMA,
        "ablate",
        {arm.name: {name: plain(getattr(arm.options, name)) for name in ("prepare", *OWN)} for arm in plan.arms},
        [
            *(records.standing(arm.common.run / "predictions.csv") for arm in plan.arms),
            *(records.standing(arm.common.run / "robustness.csv") for arm in plan.arms),
            *(folder / name for folder in folders for name in READ),
        ],
        first.common.seed,
    )
    if freshness.reusable_record(artifact) is not None:
        return
    arms = [read_arm(arm.common.run, arm.name) for arm in plan.arms]
    rows = compare(arms, seed=first.common.seed)
    details = arms[0].predictions.details
    part = "" if plan.n_tiles is None else f" ({plan.n_tiles} tiles, drawn class by class)"
    networks = list(dict.fromkeys(arm.options.train.arch for arm in plan.arms))
    alike = f", network {networks[0]}" if len(networks) == 1 else ""
    setting = (
        f"Data set {details.get('dataset')}{part}; protocol {details.get('protocol')}{alike}; what each arm does "
        "differently stands in its name and in the plan."
    )
    atomic.write_text(out, to_csv(rows))
    atomic.write_text(page, to_page(rows, arms=arms, setting=setting))
    records.write_record(artifact, outputs=[page], details={"arms": [arm.name for arm in arms]})
    log.info(f"ablate: {page}")


main = CommandWithoutRun("pipeline.ablate", __doc__, AblateOptions, run)
"""Entry point of `python -m pipeline.ablate`."""


if __name__ == "__main__":
    raise SystemExit(main())
