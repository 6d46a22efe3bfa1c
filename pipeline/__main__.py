"""Run all stages, from labelled tiles to a comparison report, for every fold and seed.

A stage whose result is current is skipped. An interrupted stage continues where it stopped.

    python -m pipeline                      the demo, 15 minutes on two cores without bf16
    python -m pipeline --run reports/mine --data my_tiles --group-regex '(slide[0-9]+)_'
    python -m pipeline --run reports/frozen --data my_tiles --encoder torchvision:resnet50
    python -m pipeline --run reports/kather --data kather2016 --protocol logo --random-control

All options of all stages are accepted here. `python -m pipeline.STAGE --help` lists them:
prepare (data, splits), train (network, recipe), extract (engine, precision), baselines,
fit_heads (heads, memory, cluster), robustness, report. Other commands: verify, merge,
tile, predict, export, compare, ablate, import_embeddings, doctor, bench, demo_slide.
"""

import dataclasses

from pipeline import baselines, extract, fit_heads, prepare, report, robustness, train
from pipeline.cli.command import Command
from pipeline.cli.fold_runs import each_part
from pipeline.cli.options import Common
from pipeline.errors import EXIT_OK, UsageError
from pipeline.names import TRAINED
from pipeline.storage.protocol import read_protocol

INNER = 3
"""Inner networks of each fold for `--fit-on crossfit` without `--inner`."""

BASICS = ("run", "data", "group_regex", "protocol", "folds", "seeds", "recipe", "seed", "device", "config", "restart")
"""Options that a newcomer needs, which `--help` shows."""


@dataclasses.dataclass(frozen=True)
class AllOptions:
    """The options of all stages, in the order of the work."""

    prepare: prepare.PrepareOptions
    train: train.TrainOptions
    extract: extract.ExtractOptions
    baselines: baselines.BaselinesOptions
    fit_heads: fit_heads.FitHeadsOptions
    robustness: robustness.RobustnessOptions
    report: report.ReportOptions


ALONE = (
    *(("extract", name) for name in ("manifest", "model", "out", "shard")),
    ("fit_heads", "embeddings"),
)
"""Stage and option that only the command of that stage accepts."""


def planned(options: AllOptions) -> prepare.PrepareOptions:
    """Return the options of prepare, with the inner networks that `--fit-on crossfit` needs."""
    if options.fit_heads.fit_on == "crossfit" and not options.prepare.inner:
        return dataclasses.replace(options.prepare, inner=INNER)
    return options.prepare


def run(common: Common, options: AllOptions) -> int:
    """Run all stages, those of a plan part by part; return the highest exit code (3: finished with skipped inputs).

    Raises:
        UsageError: a path that one stage alone would read or write.
    """
    for stage, name in ALONE:
        if getattr(getattr(options, stage), name):
            raise UsageError(f"--{name}: only for python -m pipeline.{stage} by itself; here all files are the run's")
    if options.extract.encoder != TRAINED and options.train.normalise != "none":
        raise UsageError("--normalise source: only for a network that is trained here: leave it out with --encoder")
    codes = [prepare.run(common, planned(options))]
    if options.fit_heads.baselines:
        codes.append(baselines.run(common, options.baselines))
    protocol = read_protocol(common.run)
    heads = fit_heads.for_parts(protocol, options.fit_heads)

    def part(place: Common) -> int:
        return max(
            EXIT_OK if options.extract.encoder != TRAINED else train.train(place, options.train),
            extract.extract(place, options.extract),
            fit_heads.fit(place, heads),
        )

    codes.append(each_part(common, protocol, part, what="plan"))
    if protocol is not None:
        fit_heads.pool_parts(common, protocol, options.fit_heads)
    codes.append(robustness.run_parts(common, protocol, options.robustness))
    codes.append(report.write_report(common, protocol, options.report))
    return max(codes)


main = Command("pipeline", __doc__, AllOptions, run, access="begin", basics=BASICS)
"""Entry point of `python -m pipeline`."""


if __name__ == "__main__":
    raise SystemExit(main())
