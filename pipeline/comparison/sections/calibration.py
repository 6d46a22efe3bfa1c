"""How far a head's probabilities can be trusted: calibration, referral of unsure tiles, prediction sets."""

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.comparison.report_data import ReportData
from pipeline.errors import PipelineError
from pipeline.evaluation import conformal
from pipeline.evaluation.calibration import METHODS
from pipeline.evaluation.calibration_choice import LEAST_GROUPS, WORTH_IT
from pipeline.evaluation.metrics import ECE_BINS
from pipeline.markup.document import Block, Section, Table, Text
from pipeline.markup.number_format import NOT_AVAILABLE, head_name, number, percent

if TYPE_CHECKING:
    from collections.abc import Mapping

SCORES = {"nll": "NLL", "brier": "Brier", "ece": "ECE"}

COVERAGES = (1.0, 0.9, 0.8, 0.5)
"""Shares of the tiles that the head answers itself."""

ALPHA = 0.05
"""Share of prediction sets that may miss the true class."""


def calibration(material: ReportData) -> Section:
    """Whether the probabilities mean what they say."""
    predictions = material.predictions
    # heads fitted on the validation rows have nothing to show there
    held_out = len(predictions.rows("val")) and predictions.details.get("fit_on") != "heldout"
    splits = {"val": "validation", "test": "test"} if held_out else {"test": "test"}
    rows = [
        [head_name(head), *(material.value(head, split, score) for score in SCORES for split in splits)]
        for head in predictions.heads
    ]
    on_validation = (
        " The probabilities were calibrated on the validation rows: a figure that is clearly worse on test shows that "
        "the test rows differ from those."
        if "val" in splits and predictions.details.get("calibrated_on") == "val"
        else ""
    )
    caption = (
        f"{material.flattering}Lower is better. NLL: mean negative log-likelihood in nats. Brier: squared distance of "
        "the probabilities to the truth, 0 to 2. ECE: expected calibration error, the mean gap between the "
        f"probability of the likeliest class and the share that is right, over {ECE_BINS} bins of equal width; it "
        f"depends on the bins and ranks no heads, the other two do.{on_validation}"
    )
    head_row = ["head", *(f"{name} {split}" for name in SCORES.values() for split in splits.values())]
    return Section(
        "Calibration", [material.figures["reliability"], Table(head_row, rows, caption), *_methods(material)]
    )


def _methods(material: ReportData) -> list[Table]:
    """Return the table of calibration methods, or nothing where heads.json does not hold their comparison."""
    rows = []
    for head in material.predictions.heads:
        entry: Mapping[str, Any] = material.context.heads.get(head, {}).get("calibration", {})
        nll = entry.get("nll")
        if isinstance(nll, dict) and nll:
            chosen, unit = (str(entry.get(key, NOT_AVAILABLE)) for key in ("method", "unit"))
            rows.append([head_name(head), chosen, unit, *(number(nll.get(method)) for method in METHODS)])
    if not rows:
        return []
    caption = (
        "How each head's scores were made probabilities, and the NLL of each method on the validation rows by "
        "cross-validation, which leaves whole groups (or tiles, where groups are too few or not known) out of the "
        "fit and scores those. Where the method was not set, the lowest is taken, but temperature scaling where the "
        f"gain is at most {percent(WORTH_IT)} or there are fewer than {LEAST_GROUPS} groups to tell by. The network's "
        "own head keeps temperature scaling, which changes no decision."
    )
    return [Table(["head", "calibration", "left out", *(f"NLL {method}" for method in METHODS)], rows, caption, left=3)]


def selective(material: ReportData) -> Section:
    """What is gained where a human sees the tiles that a head is least sure of."""
    predictions = material.predictions
    rows = []
    for head in predictions.main_heads:
        curve = predictions.selective(head)
        rows.append([head_name(head), *(number(curve.accuracy_at(share)) for share in COVERAGES), number(curve.aurc)])
    caption = (
        f"{material.flattering}Accuracy on the test tiles that a head answers itself if it refers the others. AURC: "
        "mean error over all such shares, lower is better; a confidence that tells nothing gives 1 minus the accuracy "
        "on all tiles."
    )
    head_row = ["head", *(f"{percent(share)} answered" for share in COVERAGES), "AURC"]
    rule = (
        "The tiles on which the probability of a head's likeliest class is lowest are referred to a human. Where this "
        "probability tells right from wrong, the head errs less on the tiles that it keeps."
    )
    blocks = [Text(rule), material.figures["selective"], Table(head_row, rows, caption), *_prediction_sets(material)]
    return Section("Referring unsure tiles", blocks)


def _prediction_sets(material: ReportData) -> list[Block]:
    """Return the table of prediction sets, or the sentence that says why there is none."""
    predictions = material.predictions
    if not conformal.is_installed():
        return [Text(f"Prediction sets: {NOT_AVAILABLE}: pip install 'histoheads[conformal]'")]
    try:
        rows = [_sets_row(material, head) for head in predictions.main_heads]
    except PipelineError as error:
        return [Text(f"Prediction sets: {NOT_AVAILABLE}: {error}.")]
    groups = (
        " Groups differ and their tiles resemble each other, so it holds approximately, and over many groups, not in "
        "each."
        if predictions.groups_known
        else ""
    )
    caption = (
        f"{material.flattering}{predictions.sample('test').note}"
        f"Split-conformal sets of classes that should hold the true one for {percent(1 - ALPHA)} "
        "of the tiles (least ambiguous sets, MAPIE). A set of one class is an answer, a larger one a short list; it is "
        f"empty where no class reaches the threshold. The threshold comes from test tiles: each half of the "
        f"{_halved(material)[0]} is covered by what the other half gives. The promise is on average over all tiles, if "
        f"those that set the threshold are exchangeable with those it is used on.{groups}"
    )
    head_row = ["head", "sets with the true class", "classes in a set", "one class", "empty", "worst covered class"]
    return [Table(head_row, rows, caption)]


def _sets_row(material: ReportData, head: str) -> list[str]:
    """Return a head's row of the table."""
    predictions = material.predictions
    test = predictions.sample("test").rows
    # not from validation rows: networks and heads were chosen, or even fitted, on those
    sets = conformal.conformal_by_groups(
        predictions.probabilities(head, test),
        predictions.y[test],
        _halved(material)[1],
        alpha=ALPHA,
        seed=material.resampling.seed,
    )
    by_class = sets.class_coverage
    worst = int(np.nanargmin(by_class))
    return [
        head_name(head),
        percent(sets.coverage, 1),
        number(sets.mean_size, 2),
        percent(sets.share_of_size(1), 1),
        percent(sets.share_of_size(0), 1),
        f"{percent(by_class[worst], 1)} ({predictions.classes[worst]})",
    ]


def _halved(material: ReportData) -> tuple[str, list[str]]:
    """Return what is dealt into halves, and its name for each test row."""
    predictions = material.predictions
    tiles = predictions.tiles.iloc[predictions.sample("test").rows]
    if predictions.groups_known and tiles["group"].nunique() > 1:
        return "groups", tiles["group"].tolist()
    return "tiles", tiles["tile_id"].tolist()  # a tile stands there once per seed and must not cover itself
