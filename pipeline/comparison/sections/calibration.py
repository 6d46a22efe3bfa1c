"""Write the sections on how far probabilities can be trusted: calibration, referral, prediction sets."""

import numpy as np

from pipeline.comparison.choice import by_cost
from pipeline.comparison.report_data import ReportData
from pipeline.errors import PipelineError
from pipeline.evaluation import conformal
from pipeline.evaluation.calibration import METHODS
from pipeline.evaluation.calibration_choice import LEAST_GROUPS, WORTH_IT
from pipeline.evaluation.decision import STRENGTHS
from pipeline.evaluation.metrics import ECE_BINS
from pipeline.markup.document import Block, Section, Table, Text
from pipeline.markup.number_format import NOT_AVAILABLE, head_name, number, percent

SCORES = {"nll": "NLL", "brier": "Brier", "ece": "ECE"}

COVERAGES = (1.0, 0.9, 0.8, 0.5)
"""Shares of the tiles that the head classifies itself."""

ALPHA = 0.05
"""Share of prediction sets that may miss the true class."""


def calibration(data: ReportData) -> Section:
    """Return how well the probabilities agree with the accuracy."""
    predictions = data.predictions
    fitted = any(predictions.is_fitted_on(head, "val") for head in predictions.heads)
    is_shown = len(predictions.rows("val")) and not fitted
    splits = {"val": "validation", "test": "test"} if is_shown else {"test": "test"}
    rows = [
        [head_name(head), *(data.value(head, split, score) for score in SCORES for split in splits)]
        for head in predictions.heads
    ]
    on_validation = (
        " The probabilities were calibrated on the validation rows: a score that is clearly worse on test shows that "
        "the test rows differ from those."
        if "val" in splits and predictions.details.get("calibrated_on") == "val"
        else ""
    )
    caption = (
        f"{data.bias_note}Lower is better. NLL: mean negative log-likelihood in nats. Brier: squared distance of the "
        "probabilities to the truth, 0 to 2. ECE: expected calibration error, the mean gap between the probability of "
        f"the predicted class and the accuracy, over {ECE_BINS} bins of equal width; it depends on the bins and ranks "
        f"no heads, the other two do.{on_validation}"
    )
    compared = by_cost(predictions.main_heads or predictions.heads)
    nll = {head: data.scores[head, "test", "nll"].value for head in compared}
    best = min(nll, key=lambda head: nll[head])
    headline = f"{head_name(best)} has the best probabilities on the test rows: NLL {number(nll[best])}."
    head_row = ["head", *(f"{name} {split}" for name in SCORES.values() for split in splits.values())]
    return Section(
        "Calibration",
        [
            Text(headline),
            data.figures["reliability"],
            Table(head_row, rows, caption),
            *_methods(data),
            *_decisions(data),
        ],
    )


def _methods(data: ReportData) -> list[Table]:
    """Return the table of calibration methods, or nothing if heads.json has no comparison."""
    rows = []
    for head in data.predictions.heads:
        facts = data.files.heads.get(head)
        if facts is not None and facts.calibration_nll:
            chosen, unit = (each or NOT_AVAILABLE for each in (facts.calibration, facts.left_out))
            nll = [number(facts.calibration_nll.get(method)) for method in METHODS]
            rows.append([head_name(head), chosen, unit, *nll])
    if not rows:
        return []
    caption = (
        "How each head's scores were calibrated, and the NLL of each method on the validation rows by "
        "cross-validation, which leaves whole groups (or tiles, if groups are too few or not known) out of the fit and "
        "scores those. Where the method was not set, the lowest is taken, but temperature scaling if the gain is at "
        f"most {percent(WORTH_IT)} or there are fewer than {LEAST_GROUPS} groups. Softmax keeps "
        "temperature scaling, which changes no prediction."
    )
    return [Table(["head", "calibration", "left out", *(f"NLL {method}" for method in METHODS)], rows, caption, left=3)]


def _decisions(data: ReportData) -> list[Table]:
    """Return the table of corrections for the class shares, or nothing where the decision does not use them."""
    if data.predictions.details.get("decide") != "balanced":
        return []
    rows = []
    for head in data.predictions.heads:
        facts = data.files.heads.get(head)
        if facts is not None and facts.strength is not None:
            f1 = [number(facts.strength_f1.get(str(strength))) for strength in STRENGTHS]
            rows.append([head_name(head), number(facts.strength, 2), *f1])
    caption = (
        "--decide balanced: probabilities are divided by the class shares to the power that is shown before the class "
        "is chosen. Next to it the macro-F1 of each power on the validation rows by cross-validation. A mean of heads "
        "takes the mean power of its members."
    )
    columns = ["head", "power", *(f"macro-F1 at {strength:g}" for strength in STRENGTHS)]
    return [Table(columns, rows, caption)] if rows else []


def selective(data: ReportData) -> Section:
    """Return the accuracy if a human classifies the tiles with the lowest confidence of a head."""
    predictions = data.predictions
    curves = {head: predictions.selective(head) for head in predictions.main_heads}
    rows = [
        [head_name(head), *(number(curve.accuracy_at(share)) for share in COVERAGES), number(curve.aurc)]
        for head, curve in curves.items()
    ]
    caption = (
        f"{data.bias_note}Accuracy on the test tiles that a head classifies itself if it refers the others. AURC: mean "
        "error over all such shares, lower is better; a confidence without information gives 1 minus the accuracy on "
        "all tiles."
    )
    head_row = ["head", *(f"{percent(share)} classified" for share in COVERAGES), "AURC"]
    blocks: list[Block] = []
    if data.best_head in curves:
        curve = curves[data.best_head]
        blocks.append(
            Text(
                f"Without the 20 % of tiles of which {head_name(data.best_head)} is least certain, its accuracy is "
                f"{number(curve.accuracy_at(0.8))} instead of {number(curve.accuracy_at(1.0))}."
            )
        )
    rule = (
        "The tiles with the lowest probability of the predicted class are referred to a human. If this probability "
        "separates correct from wrong predictions, the head misclassifies fewer of the tiles that it keeps."
    )
    blocks += [Text(rule), data.figures["selective"], Table(head_row, rows, caption), *_prediction_sets(data)]
    return Section("Referring uncertain tiles", blocks)


def _prediction_sets(data: ReportData) -> list[Block]:
    """Return the table of prediction sets, or a sentence with the reason for its absence."""
    predictions = data.predictions
    if not conformal.is_installed():
        return [Text(f"Prediction sets: {NOT_AVAILABLE}: pip install 'histoheads[conformal]'")]
    try:
        rows = [_sets_row(data, head) for head in predictions.main_heads]
    except PipelineError as error:
        return [Text(f"Prediction sets: {NOT_AVAILABLE}: {error}.")]
    groups = (
        " Groups differ, and tiles of a group are similar, so that it holds approximately, on average over many groups."
        if predictions.groups_known
        else ""
    )
    caption = (
        f"{data.bias_note}{predictions.sample('test').note}"
        f"Split-conformal sets of classes that should hold the true one for {percent(1 - ALPHA)} of the tiles (least "
        "ambiguous sets, MAPIE). A set of one class is a prediction, a larger one a short list; it is empty if no "
        f"class reaches the threshold. The threshold comes from test tiles: each half of the {_halved(data)[0]} is "
        "covered by the threshold of the other half. The coverage is an average over all tiles, if the tiles of "
        f"both halves are exchangeable.{groups}"
    )
    head_row = ["head", "sets with the true class", "classes in a set", "one class", "empty", "worst covered class"]
    return [Table(head_row, rows, caption)]


def _sets_row(data: ReportData, head: str) -> list[str]:
    """Return a head's row of the table."""
    predictions = data.predictions
    test = predictions.sample("test").rows
    # not from validation rows: networks and heads were chosen, or even fitted, on them
    sets = conformal.conformal_by_groups(
        predictions.probabilities(head, test),
        predictions.y[test],
        _halved(data)[1],
        alpha=ALPHA,
        seed=data.resampling.seed,
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


def _halved(data: ReportData) -> tuple[str, list[str]]:
    """Return "groups" or "tiles", which are divided into halves, and the name for each test row."""
    predictions = data.predictions
    tiles = predictions.tiles.iloc[predictions.sample("test").rows]
    if predictions.groups_known and tiles["group"].nunique() > 1:
        return "groups", tiles["group"].tolist()
    return "tiles", tiles["tile_id"].tolist()  # a tile has a row per seed and must not cover itself
