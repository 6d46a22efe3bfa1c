"""From labelled tiles to a comparison report: all stages one after the other, those of a plan part by part.

A stage whose result is already there, whole and made from the same inputs with the same options, is skipped and says
so; a stage that was interrupted continues where it stopped. All options of all stages are options here.

    python -m pipeline                                        the demo, about five minutes on two cores
    python -m pipeline --run reports/mine --data my_tiles --group-regex '(slide[0-9]+)_'
    python -m pipeline --run reports/kather --data kather2016 --protocol logo --seeds 3 --random-control
"""

import dataclasses

from pipeline import baselines, extract, fit_heads, prepare, report, robustness, train
from pipeline.cli.command import Command
from pipeline.cli.fold_runs import each_part
from pipeline.cli.options import Common
from pipeline.errors import UsageError
from pipeline.storage.protocol import read_protocol

INNER = 3
"""Inner networks of each fold where `--fit-on crossfit` is asked for without `--inner`."""


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
"""Options that make sense for one stage alone."""


def planned(options: AllOptions) -> prepare.PrepareOptions:
    """Return the options of prepare, with the inner networks that `--fit-on crossfit` needs."""
    asked: prepare.PrepareOptions = options.prepare
    if options.fit_heads.fit_on == "crossfit" and not asked.inner:
        return dataclasses.replace(asked, inner=INNER)
    return asked


def run(common: Common, options: AllOptions) -> int:
    """Run all stages, those of a plan part by part; return the highest exit code (3: finished with skipped inputs).

    Raises:
        UsageError: a path that one stage alone would read or write: the others would not know of it.
    """
    for stage, name in ALONE:
        if getattr(getattr(options, stage), name):
            raise UsageError(f"--{name}: only for python -m pipeline.{stage} by itself; here all files are the run's")
    codes = [prepare.run(common, planned(options))]
    if options.fit_heads.baselines:
        codes.append(baselines.run(common, options.baselines))
    protocol = read_protocol(common.run)
    heads = fit_heads.for_parts(protocol, options.fit_heads)

    def part(place: Common) -> int:
        return max(
            train.run(place, options.train),
            extract.run(place, options.extract),
            fit_heads.run(place, heads),
        )

    codes.append(each_part(common, part, what="plan"))
    if protocol is not None:  # the parts are current by now: only their pooling is left
        codes.append(fit_heads.run(dataclasses.replace(common, restart=False), options.fit_heads))
    codes += [robustness.run(common, options.robustness), report.run(common, options.report)]
    return max(codes)


main = Command("pipeline", __doc__, AllOptions, run, access="begin")
"""Entry point of `python -m pipeline`."""


if __name__ == "__main__":
    raise SystemExit(main())
