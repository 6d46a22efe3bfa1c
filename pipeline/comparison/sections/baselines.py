"""What the heads must beat: the floors on the same test rows, and whether each head clears the highest of them."""

from pipeline.comparison.pairwise_tests import METRIC
from pipeline.comparison.report_data import Material
from pipeline.comparison.verdict import FEW_UNITS
from pipeline.evaluation.bootstrap import paired_difference
from pipeline.markup.document import Bullets, Section, Table, Text
from pipeline.markup.format import (
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
from pipeline.names import FLOORS

KNOWS = {
    "majority": "the most frequent class of the fitted rows, the same answer for every tile",
    "colour_svm": "how much of which colour a tile holds (8 x 8 x 8 cells of RGB); not where",
    "handmade_xgboost": "colour and stain statistics, local binary patterns, co-occurrence of grey levels; no network",
    "untrained_svm": "the same architecture as torchvision initialises it, one random seed, never trained on any tile",
    "knn": "the trained embeddings, no fitting: the classes of the 20 nearest tiles by cosine",
    "linear": "the trained embeddings, one logistic regression",
}
"""Floor -> what it knows of a tile."""

WITHOUT_NETWORK = ("majority", "colour_svm", "handmade_xgboost", "untrained_svm")
"""Floors that the trained network has no part in."""


def section(material: Material) -> Section:
    """Return the floors beside the heads, whether the heads clear them, and what that does not say."""
    predictions = material.predictions
    if not predictions.floors:
        return Section("Floors", [Text("n/a: predictions.csv holds no floors (fit_heads ran with --no-floors).")])
    rows = []
    for head in [*predictions.floors, *predictions.main_heads]:
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
        "Floors",
        [
            Text(
                "A head is worth its cost only above what costs less. The floors are fitted, tuned and calibrated on "
                "the same rows as the heads and answer for the same tiles."
            ),
            Table(["head", "what it knows", "macro-F1", "accuracy"], rows, caption, left=2),
            Bullets([*_sentences(material), *_limits(material)]),
        ],
    )


def _highest(material: Material, floors: list[str]) -> str:
    """Return the floor with the highest macro-F1 on the test rows (the first of equals)."""
    return max(floors, key=lambda floor: material.scores[floor, "test", METRIC].value)


def _sentences(material: Material) -> list[str]:
    """Return one sentence for each main head: does it clear the highest floor."""
    predictions = material.predictions
    highest = _highest(material, predictions.floors)
    sentences = [_clears(material, head, highest) for head in predictions.main_heads]
    apart = [floor for floor in predictions.floors if floor in WITHOUT_NETWORK]
    if apart and predictions.main_heads and highest not in apart:
        below = _highest(material, apart)
        best = max(predictions.main_heads, key=lambda head: material.scores[head, "test", METRIC].value)
        sentences.append(
            f"Without the trained network, {head_name(below)} is the highest floor. " + _clears(material, best, below)
        )
    return sentences


def _clears(material: Material, head: str, floor: str) -> str:
    """Return whether a head clears a floor, by the paired interval of their macro-F1 on the same resampled units."""
    predictions, resampling = material.predictions, material.resampling
    rows = predictions.rows("test")
    difference = paired_difference(
        predictions.y[rows],
        predictions.predicted[head][rows],
        predictions.predicted[floor][rows],
        metric=METRIC,
        units=resampling.ids[rows],
        n_draws=resampling.n_draws,
        seed=resampling.seed,
        level=resampling.level,
    )
    units = count(difference.n_units, resampling.unit)
    floor_name = f"the floor {head_name(floor)} ({number(material.scores[floor, 'test', METRIC].value)})"
    gap = f"{points(difference.value)} points of macro-F1"
    if not is_number(difference.low):
        return (
            f"{head_name(head)}: {gap} beside {floor_name}; no interval ({NOT_AVAILABLE}), the rows come from {units}."
        )
    bounds = f"{points(difference.low)} to {points(difference.high)}"
    basis = f"{gap} ({level_text(resampling.level)} interval {bounds}; {units})"
    if difference.n_units < FEW_UNITS:
        return f"{head_name(head)} beside {floor_name}: {basis}, too few to say whether it clears it."
    if difference.low > 0:
        return f"{head_name(head)} clears {floor_name}: {basis}."
    if difference.high < 0:
        return f"{head_name(head)} lies below {floor_name}: {basis}."
    return f"{head_name(head)} is not shown to clear {floor_name}: {basis}."


def _limits(material: Material) -> list[str]:
    """Return what the table does not say."""
    floors = material.predictions.floors
    limits = [
        (
            "The highest floor is chosen on these test rows among several, which makes it look a little higher than it "
            "is; the intervals are of each pair alone."
        )
    ]
    if set(floors) & {"knn", "linear"}:
        limits.append(
            "Nearest neighbours and the linear probe stand on the trained network: a head above them owes that to its "
            "classifier, one level with them to the network."
        )
    if "untrained_svm" in floors:
        limits.append(
            "The untrained network's batch normalisation does nothing (its running mean is 0, its variance 1): it sees "
            "no statistic of any tile, and other random weights give other figures."
        )
    absent = [floor for floor in FLOORS if floor not in floors]
    if absent:
        names = listing([head_name(floor) for floor in absent])
        limits.append(f"{NOT_AVAILABLE}: {names} not fitted (floors.h5 was not there when fit_heads ran).")
    return limits
