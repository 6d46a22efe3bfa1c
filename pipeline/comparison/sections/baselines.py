"""Write the section on baselines: their scores on the same test rows, and whether each head is better."""

import dataclasses
from typing import Literal

from pipeline.comparison.pairwise_tests import METRIC
from pipeline.comparison.report_data import ReportData
from pipeline.comparison.scores import FEW_UNITS
from pipeline.evaluation.bootstrap import Difference
from pipeline.markup.document import Bullets, Section, Table, Text
from pipeline.markup.number_format import (
    NOT_AVAILABLE,
    count,
    head_name,
    interval,
    is_number,
    level_text,
    listing,
    number,
    points,
)
from pipeline.names import BASELINES

KNOWS = {
    "majority": "the most frequent class of the fitted rows, the same prediction for every tile",
    "histogram_svm": "how much of which colour a tile holds (8 x 8 x 8 cells of RGB); not where",
    "handcrafted_xgboost": "statistics of colour and stain, local binary patterns, co-occurrence of grey levels",
    "untrained_svm": "the same architecture with random weights (one seed), never trained on any tile",
    "knn": "the trained embeddings, no fitting: the classes of the 20 nearest tiles by cosine",
    "linear": "the trained embeddings, one logistic regression",
}
"""Baseline -> what it knows about a tile."""

WITHOUT_NETWORK = ("majority", "histogram_svm", "handcrafted_xgboost", "untrained_svm")
"""Baselines that do not use the trained network."""

Code = Literal["better", "worse", "undecided", "too_few_units", "no_interval"]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A head and a baseline on the same test rows."""

    head: str
    baseline: str
    difference: Difference
    """Macro-F1 of the head less that of the baseline."""

    code: Code


def section(data: ReportData) -> Section:
    """Return whether the heads are better than the best baseline, the table, and what it does not show."""
    predictions, resampling = data.predictions, data.resampling
    if not predictions.baselines:
        return Section(
            "Baselines", [Text("n/a: predictions.csv holds no baselines (fit_heads ran with --no-baselines).")]
        )
    rows = []
    for head in [*predictions.baselines, *predictions.main_heads]:
        scores = [data.scores[head, "test", metric] for metric in (METRIC, "accuracy")]
        cells = [number(score.value) + interval(score.low, score.high) for score in scores]
        rows.append([head_name(head), KNOWS.get(head, "compared here"), *cells])
    n_units = resampling.n_units(predictions.rows("test"))
    intervals = (
        f"In parentheses: {level_text(resampling.level)} bootstrap intervals over {count(n_units, resampling.unit)}."
        if n_units >= 2
        else f"No intervals (n/a): the test rows come from one {resampling.unit}."
    )
    caption = f"{data.bias_note}The same test rows ({data.test_rows}) for all. {intervals}"
    found = comparisons(data)
    sentences = [_sentence(data, each, is_apart=each.baseline != found[0].baseline) for each in found]
    return Section(
        "Baselines",
        [
            Text(_headline(found)),
            Text(
                "A head is worth its cost only if it is better than cheaper methods. Baselines are fitted, tuned and "
                "calibrated on the same rows as the heads, and classify the same tiles."
            ),
            Table(["head", "what it knows", "macro-F1", "accuracy"], rows, caption, left=2),
            Bullets([*sentences, *_limits(data)]),
        ],
    )


def compare(data: ReportData, head: str, baseline: str) -> Comparison:
    """Return a head compared with a baseline, by the paired interval of their macro-F1."""
    predictions, resampling = data.predictions, data.resampling
    rows = predictions.rows("test")
    difference = resampling.difference(
        predictions.y[rows],
        predictions.predicted[head][rows],
        predictions.predicted[baseline][rows],
        metric=METRIC,
        units=resampling.ids[rows],
    )
    code: Code = "undecided"
    if not is_number(difference.low):
        code = "no_interval"
    elif difference.n_units < FEW_UNITS:
        code = "too_few_units"
    elif difference.low > 0:
        code = "better"
    elif difference.high < 0:
        code = "worse"
    return Comparison(head, baseline, difference, code)


def comparisons(data: ReportData) -> list[Comparison]:
    """Return each main head compared with the best baseline.

    The last one compares the best head with the best baseline without the trained network, if that is another one.
    """
    predictions = data.predictions
    best = data.best(predictions.baselines, METRIC)[0]
    found = [compare(data, head, best) for head in predictions.main_heads]
    apart = [baseline for baseline in predictions.baselines if baseline in WITHOUT_NETWORK]
    if apart and predictions.main_heads and best not in apart:
        top = data.best(predictions.main_heads, METRIC)[0]
        found.append(compare(data, top, data.best(apart, METRIC)[0]))
    return found


def _headline(found: list[Comparison]) -> str:
    if not found:
        return "Only baselines were evaluated."
    best = found[0].baseline
    better = [head_name(each.head) for each in found if each.code == "better" and each.baseline == best]
    if not better:
        return f"No head is shown to be better than the best baseline, {head_name(best)}."
    verb = "is" if len(better) == 1 else "are"
    return f"{listing(better)} {verb} better than the best baseline, {head_name(best)}."


def _sentence(data: ReportData, found: Comparison, *, is_apart: bool) -> str:
    """Return the sentence on one comparison; is_apart: with the best baseline without the trained network."""
    resampling, difference = data.resampling, found.difference
    units = count(difference.n_units, resampling.unit)
    kind = "the best baseline without the trained network, " if is_apart else "the baseline "
    name = f"{kind}{head_name(found.baseline)} ({data.value(found.baseline, 'test', METRIC)})"
    gap = f"difference {points(difference.value)} points of macro-F1"
    if found.code == "no_interval":
        reason = f"no interval ({NOT_AVAILABLE}), because the rows come from {units}"
        return f"{head_name(found.head)} and {name}: {gap}; {reason}."
    bounds = f"{points(difference.low)} to {points(difference.high)}"
    basis = f"{gap} ({level_text(resampling.level)} interval {bounds}; {units})"
    if found.code == "too_few_units":
        return f"{head_name(found.head)} and {name}: {basis}, too few to decide whether it is better."
    how = {"better": "is better than", "worse": "is worse than"}.get(found.code, "is not shown to be better than")
    return f"{head_name(found.head)} {how} {name}: {basis}."


def _limits(data: ReportData) -> list[str]:
    """Return what the table does not show."""
    baselines = data.predictions.baselines
    limits = [
        (
            "The best baseline is chosen on these test rows among several, which makes it look a little better than it "
            "is; the intervals are for each pair alone."
        )
    ]
    if set(baselines) & {"knn", "linear"}:
        limits.append(
            "Nearest neighbours and the linear probe use the trained network: a head that is better owes that to its "
            "classifier, a head that is equal to the network."
        )
    if "untrained_svm" in baselines:
        limits.append(
            "The batch normalisation of the untrained network does nothing (its running mean is 0, its variance 1): it "
            "has seen no statistic of any tile, and other random weights give other scores."
        )
    absent = [baseline for baseline in BASELINES if baseline not in baselines]
    if absent:
        names = listing([head_name(baseline) for baseline in absent])
        limits.append(f"{NOT_AVAILABLE}: {names} not fitted (baselines.h5 was not there when fit_heads ran).")
    return limits
