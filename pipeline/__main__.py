"""From labelled tiles to a comparison report: prepare, train, extract, fit_heads, report, one after the other.

A stage whose result is already there, whole and made from the same inputs with the same options, is skipped and says
so; a stage that was interrupted continues where it stopped. All options of all stages are options here.

    python -m pipeline                                        the demo, about five minutes on two cores
    python -m pipeline --run reports/mine --data my_tiles --group-regex '(slide[0-9]+)_'
    python -m pipeline --run reports/kather --data kather2016 --config my.toml
"""

from collections.abc import Callable, Sequence
from typing import Any

from pipeline import extract, fit_heads, prepare, report, train
from pipeline.cli.command import command
from pipeline.cli.options import Common
from pipeline.errors import UsageError

STAGES: dict[str, tuple[type, Callable[[Common, Any], int]]] = {
    "prepare": (prepare.PrepareOptions, prepare.run),
    "train": (train.TrainOptions, train.run),
    "extract": (extract.ExtractOptions, extract.run),
    "fit_heads": (fit_heads.FitHeadsOptions, fit_heads.run),
    "report": (report.ReportOptions, report.run),
}
"""Stage name -> its options and its work, in order."""

ALONE = (("extract", "manifest"), ("extract", "model"), ("extract", "out"), ("fit_heads", "embeddings"))
"""Paths that make sense for one stage alone."""


def run(common: Common, options: dict[str, Any]) -> int:
    """Run all stages; return the highest exit code (3: finished with skipped inputs).

    Raises:
        UsageError: a path that one stage alone would read or write: the others would not know of it.
    """
    for stage, name in ALONE:
        if getattr(options[stage], name) is not None:
            raise UsageError(f"--{name}: only for python -m pipeline.{stage} by itself; here all files are the run's")
    return max(work(common, options[name]) for name, (_, work) in STAGES.items())


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `python -m pipeline`."""
    stages = {name: kind for name, (kind, _) in STAGES.items()}
    return command("pipeline", __doc__, stages, run, argv, creates=True)


if __name__ == "__main__":
    raise SystemExit(main())
