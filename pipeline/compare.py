"""Compare runs on the same test tiles: encoders, heads and baselines in one table, and which to use.

Reads predictions.csv of each run, and embeddings.h5, heads.json, model.json, history.csv and robustness.csv where they
are there. Test tiles are matched by the hash of their pixels, or by tile_id; runs with other test tiles are refused.
Writes compare.csv, compare.md and compare.html: heads by rank with letters for "not different", prices, how much the
embeddings depend on the source, and a verdict by the rule of the report.

    python -m pipeline.compare reports/resnet50 reports/resnet18
    python -m pipeline.compare reports/a reports/b reports/c --against a --out reports/abc
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import tyro

from pipeline.cli.command import command_without_run
from pipeline.cli.options import check, plain
from pipeline.errors import EXIT_OK, BadInput, StaleInput
from pipeline.names import RunFile
from pipeline.runtime.console import log
from pipeline.storage import atomic, freshness, records
from pipeline.storage.lock import locked_run


@dataclasses.dataclass(frozen=True)
class CompareOptions:
    """Which runs are compared, and how."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders."""

    out: Path | None = None
    """Folder of compare.csv, .md and .html; default: the first run."""

    heads: tuple[str, ...] | None = None
    """Heads to compare; default: all, baselines too."""

    against: str = "best"
    """Name of a run: every other head is compared with its same head; best: the rule of the report chooses."""

    draws: int = 2000
    """Resamples of the bootstrap."""

    level: float = 0.95
    """Coverage of the intervals; a difference is tested at 1 - level."""

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
    """Write compare.csv, its record and its pages unless they are current; return the exit code."""
    folder = options.out or options.runs[0]
    for each in options.runs:
        if not each.is_dir():
            raise BadInput(f"{each}: no such run folder: check the path")
    with locked_run(folder):
        return write_comparison(options, folder / RunFile.RUNS)


def write_comparison(options: CompareOptions, out: Path) -> int:
    """Write `out`, its record and its pages unless they are current; return the exit code.

    Raises:
        StaleInput: `out` compares other runs.
    """
    from pipeline.comparison.runs.csv_rows import SCHEMA, rows_of
    from pipeline.comparison.runs.match import match, read_files
    from pipeline.comparison.runs.page import page_of
    from pipeline.comparison.runs.table import build_table, resampling_of
    from pipeline.comparison.scores import to_csv
    from pipeline.markup.document import to_html, to_markdown

    runs = dict(zip(run_names(options.runs), options.runs, strict=True))
    inputs = [path for each in options.runs for path in read_files(each)]
    chosen = plain(options) | {"runs": list(runs)}
    for name in ("out", "force", "restart"):
        del chosen[name]
    artifact = records.Artifact(out, SCHEMA, "compare", chosen, inputs, options.seed)
    if freshness.reusable_record(artifact, restart=options.restart) is not None:
        return EXIT_OK
    is_there = records.record_path(out).is_file() and not options.restart
    if is_there and records.read_record_alone(out)["options"].get("runs") != list(runs):
        raise StaleInput(f"{out} is a comparison of other runs: give another --out, or --restart to replace it")
    matched = match(runs, heads=options.heads, force=options.force)
    resampling = resampling_of(matched, n_draws=options.draws, seed=options.seed, level=options.level)
    table = build_table(matched, runs, resampling, rope=options.rope, against=options.against)
    document, verdict = page_of(table, against=options.against), table.verdict
    page, html = out.with_suffix(".md"), out.with_suffix(".html")
    atomic.write_text(out, to_csv(rows_of(table)))
    atomic.write_text(page, to_markdown(document))
    atomic.write_text(html, to_html(document, folder=out.parent))
    details = {"matched_by": matched.matched_by, "unit": resampling.unit, "verdict": verdict.code}
    chosen_head = None if verdict.chosen is None else [verdict.chosen.run, verdict.chosen.head]
    picked = {"best": [verdict.best.run, verdict.best.head], "chosen": chosen_head}
    records.write_record(artifact, outputs=[page, html], details=details | picked)
    log.info(f"compare: {page}")
    log.info(f"compare: {verdict.sentence}")
    return EXIT_OK


main = command_without_run("pipeline.compare", __doc__, CompareOptions, run)
"""Entry point of `python -m pipeline.compare`."""


if __name__ == "__main__":
    raise SystemExit(main())
