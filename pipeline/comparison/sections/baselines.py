"""What the heads must beat: the baselines on the same test rows, and whether each head clears the highest of them."""

from pipeline.comparison.pairwise_tests import METRIC
from pipeline.comparison.report_data import ReportData
from pipeline.comparison.verdict import FEW_UNITS
from pipeline.evaluation.bootstrap import paired_difference
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
    "majority": "the most frequent class of the fitted rows, the same answer for every tile",
    "histogram_svm": "how much of which colour a tile holds (8 x 8 x 8 cells of RGB); not where",
    "handcrafted_xgboost": "statistics of colour and stain, local binary patterns, co-occurrence of grey levels",
    "untrained_svm": "the same architecture as torchvision initialises it, one random seed, never trained on any tile",
    "knn": "the trained embeddings, no fitting: the classes of the 20 nearest tiles by cosine",
    "linear": "the trained embeddings, one logistic regression",
}
"""Baseline -> what it knows of a tile."""

WITHOUT_NETWORK = ("majority", "histogram_svm", "handcrafted_xgboost", "untrained_svm")
"Baselines that the trained network has no part in."


def section(material: ReportData) -> Section:
    """Return the baselines beside the heads, whether the heads clear them, and what that does not say."""
    predictions = material.predictions
    if not predictions.baselines:
        return Section(
            "Baselines", [Text("n/a: predictions.csv holds no baselines (fit_heads ran with --no-baselines).")]
        )
    rows = []
    for head in [*predictions.baselines, *predictions.main_heads]:
        scores = [material.scores[head, "test", metric] for metric in (METRIC, "accuracy")]
        cells = [number(score.value) + interval(score.low, score.high) for score in scores]
        rows.append([head_name(head), KNOWS.get(head, "compared here"), *cells])
    n_units = material.resampling.n_units(predictions.rows("test"))
    caption = (
        f"{material.flattering}The same test rows ({material.test_rows}) for all. In parentheses: "
        f"{level_text(material.resampling.level)} bootstrap intervals over "
        f"{count(n_units, material.resampling.unit)}."
        if n_units >= 2
        else f"{material.flattering}The same test rows ({material.test_rows}) for all. No intervals (n/a): the test "
        f"rows come from one {material.resampling.unit}."
    )
    return Section(
        "Baselines",
        [
            Text(
                "A head is worth its cost only above what costs less. Baselines are fitted, tuned and calibrated on "
                "the same rows as the heads and answer for the same tiles."
            ),
            Table(["head", "what it knows", "macro-F1", "accuracy"], rows, caption, left=2),
            Bullets([*_sentences(material), *_limits(material)]),
        ],
    )


def _highest(material: ReportData, baselines: list[str]) -> str:
    """Return the baseline with the highest macro-F1 on the test rows (the first of equals)."""
    return max(baselines, key=lambda baseline: material.scores[baseline, "test", METRIC].value)


def _sentences(material: ReportData) -> list[str]:
    """Return one sentence for each main head: does it clear the highest baseline."""
    predictions = material.predictions
    highest = _highest(material, predictions.baselines)
    sentences = [_clears(material, head, highest) for head in predictions.main_heads]
    apart = [baseline for baseline in predictions.baselines if baseline in WITHOUT_NETWORK]
    if apart and predictions.main_heads and highest not in apart:
        below = _highest(material, apart)
        best = max(predictions.main_heads, key=lambda head: material.scores[head, "test", METRIC].value)
        sentences.append(
            f"Without the trained network, {head_name(below)} is the highest baseline. "
            + _clears(material, best, below)
        )
    return sentences


def _clears(material: ReportData, head: str, baseline: str) -> str:
    """Return whether a head clears a baseline, by the paired interval of their macro-F1 on the same resampled units."""
    predictions, resampling = material.predictions, material.resampling
    rows = predictions.rows("test")
    difference = paired_difference(
        predictions.y[rows],
        predictions.predicted[head][rows],
        predictions.predicted[baseline][rows],
        metric=METRIC,
        units=resampling.ids[rows],
        n_draws=resampling.n_draws,
        seed=resampling.seed,
        level=resampling.level,
    )
    units = count(difference.n_units, resampling.unit)
    baseline_name = f"the baseline {head_name(baseline)} ({number(material.scores[baseline, 'test', METRIC].value)})"
    gap = f"{points(difference.value)} points of macro-F1"
    if not is_number(difference.low):
        reason = f"no interval ({NOT_AVAILABLE}), the rows come from {units}"
        return f"{head_name(head)}: {gap} with {baseline_name}; {reason}."
    bounds = f"{points(difference.low)} to {points(difference.high)}"
    basis = f"{gap} ({level_text(resampling.level)} interval {bounds}; {units})"
    if difference.n_units < FEW_UNITS:
        return f"{head_name(head)} beside {baseline_name}: {basis}, too few to say whether it clears it."
    if difference.low > 0:
        return f"{head_name(head)} clears {baseline_name}: {basis}."
    if difference.high < 0:
        return f"{head_name(head)} lies below {baseline_name}: {basis}."
    return f"{head_name(head)} is not shown to clear {baseline_name}: {basis}."


def _limits(material: ReportData) -> list[str]:
    """Return what the table does not say."""
    baselines = material.predictions.baselines
    limits = [
        (
            "The best baseline is chosen on these test rows among several, which makes it look a little higher than it "
            "is; the intervals are of each pair alone."
        )
    ]
    if set(baselines) & {"knn", "linear"}:
        limits.append(
            "Nearest neighbours and the linear probe stand on the trained network: a head above them owes that to its "
            "classifier, one level with them to the network."
        )
    if "untrained_svm" in baselines:
        limits.append(
            "The untrained network's batch normalisation does nothing (its running mean is 0, its variance 1): it sees "
            "no statistic of any tile, and other random weights give other figures."
        )
    absent = [baseline for baseline in BASELINES if baseline not in baselines]
    if absent:
        names = listing([head_name(baseline) for baseline in absent])
        limits.append(f"{NOT_AVAILABLE}: {names} not fitted (baselines.h5 was not there when fit_heads ran).")
    return limits
