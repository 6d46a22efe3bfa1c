"""Compare runs on the same test tiles: one table of all their heads, and the cheapest that is not worse than the best.

Reads predictions.csv of each run, and model.json, history.csv and robustness.csv where they are there. Test tiles are
matched by the hash of their pixels, or by tile_id; runs with other test tiles are refused. Writes compare.csv and
compare.md.

    python -m pipeline.compare reports/resnet50 reports/resnet18
    python -m pipeline.compare reports/a reports/b reports/c --against a --out reports/abc
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import tyro

from pipeline.cli.command import CommandWithoutRun
from pipeline.cli.options import check, plain
from pipeline.errors import EXIT_OK, BadInput, StaleInput
from pipeline.runtime.console import log
from pipeline.storage import atomic, freshness, records
from pipeline.storage.lock import locked_run


@dataclasses.dataclass(frozen=True)
class CompareOptions:
    """Which runs are compared, and how."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders."""

    out: Path | None = None
    """Folder of compare.csv and compare.md; default: the first run."""

    heads: tuple[str, ...] | None = None
    """Heads to compare; default: all, baselines too."""

    against: str = "best"
    """Name of a run: every other head is compared with its same head; best: with the head of the highest macro-F1."""

    draws: int = 2000
    """Resamples of the bootstrap."""

    level: float = 0.95
    """Coverage of the intervals."""

    rope: float = 0.01
    """Differences of macro-F1 up to this size do not matter (region of practical equivalence)."""

    seed: int = 0
    """Seed of the bootstrap."""

    force: bool = False
    """Use predictions although they are stale (made from another version of their own inputs)."""

    restart: bool = False
    """Replace a comparison of other runs."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check(self.runs, "name at least one run folder")
        check(100 <= self.draws <= 100_000, f"--draws {self.draws}: 100 to 100000")
        check(0.5 <= self.level < 1, f"--level {self.level}: a coverage from 0.5 up to, not including, 1")
        check(0 <= self.rope < 1, f"--rope {self.rope}: a difference from 0 up to, not including, 1")
        names = run_names(self.runs)
        check(len(set(names)) == len(names), f"{' '.join(map(str, self.runs))}: a run is named twice")
        known = ", ".join(names)
        check(self.against in ("best", *names), f"--against {self.against}: no such run; known: best, {known}")


def run_names(runs: Sequence[Path]) -> list[str]:
    """Return the names of run folders: their last part, or the whole path where last parts are equal."""
    last = [run.resolve().name for run in runs]
    return last if len(set(last)) == len(last) else [run.as_posix() for run in runs]


def run(options: CompareOptions) -> int:
    """Write compare.csv, its record and compare.md unless they are current; return the exit code."""
    folder = options.out or options.runs[0]
    for each in options.runs:
        if not each.is_dir():
            raise BadInput(f"{each}: no such run folder: check the path")
    with locked_run(folder):
        return write_comparison(options, folder / "compare.csv")


def write_comparison(options: CompareOptions, out: Path) -> int:
    """Write `out`, its record and its page unless they are current; return the exit code.

    Raises:
        StaleInput: `out` compares other runs.
    """
    from pipeline.comparison.run_page import to_page
    from pipeline.comparison.run_table import SCHEMA, build_table, resampling_of, rows_of
    from pipeline.comparison.runs import match, read_files
    from pipeline.comparison.scores import to_csv

    runs = dict(zip(run_names(options.runs), options.runs, strict=True))
    inputs = [path for each in options.runs for path in read_files(each)]
    chosen = plain(options) | {"runs": list(runs)}
    for name in ("out", "force", "restart"):
        del chosen[name]
    artifact = records.Artifact(out, SCHEMA, "compare", chosen, inputs, options.seed)
    if freshness.reusable_record(artifact, restart=options.restart) is not None:
        return EXIT_OK
    before = records.read_record_alone(out)["options"] if records.record_path(out).is_file() else chosen
    if not options.restart and before.get("runs") != list(runs):
        raise StaleInput(f"{out} is a comparison of other runs: give another --out, or --restart to replace it")
    matched = match(runs, heads=options.heads, force=options.force)
    resampling = resampling_of(matched, n_draws=options.draws, seed=options.seed, level=options.level)
    table = build_table(matched, resampling, rope=options.rope, against=options.against)
    page, verdict = out.with_suffix(".md"), table.verdict
    atomic.write_text(out, to_csv(rows_of(table)))
    atomic.write_text(page, to_page(table, against=options.against))
    details = {"matched_by": matched.matched_by, "unit": resampling.unit, "verdict": verdict.code}
    picked = {"best": [verdict.best.run, verdict.best.head], "chosen": [verdict.chosen.run, verdict.chosen.head]}
    records.write_record(artifact, outputs=[page], details=details | picked)
    log.info(f"compare: {page}")
    log.info(f"compare: {verdict.sentence}")
    return EXIT_OK


main = CommandWithoutRun("pipeline.compare", __doc__, CompareOptions, run)
"""Entry point of `python -m pipeline.compare`."""


if __name__ == "__main__":
    raise SystemExit(main())
