"""Write the comparison of several runs as the rows of compare.csv."""

import dataclasses
import math
from collections.abc import Iterator

from pipeline.comparison.heads_summary import SourceProbe
from pipeline.comparison.pairwise_tests import METRIC
from pipeline.comparison.runs.pairs import RunPair
from pipeline.comparison.runs.price import Price
from pipeline.comparison.runs.table import RunTable
from pipeline.evaluation.robustness_margin import RobustnessMargin
from pipeline.names import RunFile
from pipeline.storage.records import SCHEMAS

SCHEMA = SCHEMAS[RunFile.RUNS]

COSTS = (
    *("tile_px", "parameters", "dimension", "bytes_per_tile", "gflops", "tiles_per_second", "train_seconds"),
    *("source_probe_accuracy", "source_probe_chance"),
    *("margin_median", "margin_tail_mean", "margin_share_negative", "margin_support"),
)
"""Metrics of a run, in the order of its rows; those that are not known have no row."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of compare.csv; an undefined number is NaN."""

    run: str
    head: str
    """Empty where the value belongs to the run."""

    metric: str
    value: float
    low: float = math.nan
    high: float = math.nan
    letters: str = ""
    """For macro_f1: shared with the heads that are not shown to differ."""

    against: str = ""
    """For a paired difference: "run/head" of the other head."""

    family: str = ""
    """For a paired difference: asked (the verdict rests on it) or all; Holm adjusts within a family."""

    p: float = math.nan
    """Two-sided, of the sign-flip test over whole units."""

    holm_p: float = math.nan
    """p adjusted for the number of pairs of its family."""

    outcome: str = ""
    n: int = 0
    """Test rows."""

    n_units: int = 0


def rows_of(table: RunTable) -> list[Row]:
    """Return all rows of compare.csv: costs of each run, then scores, differences and corruptions of each head."""
    rows = []
    for run, price in table.matched.prices.items():
        rows += [Row(run, "", name, value) for name, value in numbers(price, table.margins[run]).items()]
    for head in table.matched.heads:
        start = head.run, head.head
        for (key, metric), score in table.scores.items():
            if key == head.key:
                own = table.letters[key] if metric == METRIC else ""
                bounds, n_units = (score.low, score.high), table.n_units if "[" not in metric else 0
                rows.append(Row(*start, metric, score.value, *bounds, letters=own, n=score.n, n_units=n_units))
        if (seconds := table.matched.prices[head.run].fit_seconds.get(head.head)) is not None:
            rows.append(Row(*start, "fit_seconds", seconds))
        for family, pairs in (("asked", table.asked), ("all", table.every)):
            rows += [_pair_row(pair, family, table) for pair in pairs if pair.head == head.key]
        rows += _corrupted(table, *start)
    return rows


def _pair_row(pair: RunPair, family: str, table: RunTable) -> Row:
    gap = pair.difference
    return Row(
        pair.candidate.run,
        pair.candidate.head,
        f"{METRIC}_difference",
        gap.value,
        gap.low,
        gap.high,
        against=pair.reference,
        family=family,
        p=pair.p,
        holm_p=pair.holm_p,
        outcome=pair.outcome,
        n=len(table.matched.y),
        n_units=gap.n_units,
    )


def _corrupted(table: RunTable, run: str, head: str) -> Iterator[Row]:
    """Yield macro-F1 under each corruption and its loss, of a run with robustness.csv."""
    losses = table.losses.get(run)
    if losses is not None and head in losses.heads:
        for name in losses.corruptions:
            loss = losses.loss[head, name]
            yield Row(run, head, f"{METRIC}[{name}]", losses.score[head, name])
            yield Row(run, head, f"{METRIC}_loss[{name}]", loss.value, loss.low, loss.high)


def numbers(price: Price, margin: RobustnessMargin | str) -> dict[str, float]:
    """Return metric -> value of a run, of the `COSTS` that are known."""
    known = {name: getattr(price, name, None) for name in COSTS}
    if isinstance(price.probe, SourceProbe):
        known |= {"source_probe_accuracy": price.probe.accuracy, "source_probe_chance": price.probe.chance}
    if isinstance(margin, RobustnessMargin):
        known |= {
            "margin_median": margin.median,
            "margin_tail_mean": margin.tail_mean,
            "margin_share_negative": margin.share_negative,
            "margin_support": margin.n_scored / margin.n,
        }
    return {name: float(value) for name, value in known.items() if value is not None and not math.isnan(value)}
