"""Write the first sections of the report: the first screen, the results, the verdict, what was compared."""

from collections.abc import Mapping

import numpy as np

from pipeline.comparison.predictions import Predictions
from pipeline.comparison.report_data import ReportData
from pipeline.comparison.scores import FEW_UNITS
from pipeline.comparison.sections.transductive import transductive
from pipeline.markup.document import Block, Bullets, Figure, Note, Section, Table, Text
from pipeline.markup.number_format import NOT_AVAILABLE, count, head_name, interval, level_text, listing, number
from pipeline.names import FUSED, MEANS, RUN_ONLY, SPLITS
from pipeline.storage.protocol import Protocol

PROTOCOLS = {
    "random": "tiles were split at random within each class",
    "grouped": "whole groups were split, so that no group is in two splits",
    "logo": "each group was held out once, so that every tile is tested by networks trained without its group",
    "given": "the split was given with the data",
}
"""Protocol -> how the tiles were split."""

FIT_ON = {
    "train": "on embeddings of tiles that the network was trained on (--fit-on train). Those are better separated than "
    "embeddings of new tiles; see what the embeddings show.",
    "heldout": "on embeddings of the validation tiles, which the network was not trained on (--fit-on heldout).",
    "crossfit": "on every tile that is not a test tile, each embedded by an inner network that held it out. For a test "
    "tile the predictions of the inner networks are averaged, those of softmax too (--fit-on crossfit).",
}
"""Value of `--fit-on` -> which embeddings the heads were fitted on."""

DECIDE = {
    "argmax": "Every head and baseline decides for the class with the largest score (--decide argmax).",
    "balanced": "Every head and baseline divides its probabilities by a power of the class shares before it decides "
    "(--decide balanced). Cross-validation on the validation rows chose the power; the probabilities stay calibrated.",
}
"""Value of `--decide` -> how a class is chosen."""

FIT_ON_FROZEN = {"train": "on the training tiles (--fit-on train).", "heldout": "on the validation tiles."}
"""The same for a frozen encoder, which has seen no label of any tile."""

METRIC_ROWS = {
    "accuracy": ("accuracy", "share of tiles classified correctly"),
    "balanced_accuracy": ("balanced accuracy", "mean over the classes of the share of their tiles that is found"),
    "macro_f1": ("macro-F1", "mean over the classes of F1, which counts both missed and false calls; decides here"),
    "auroc_ovr": ("AUROC", "how well the probabilities rank each class above the others; 0.5 is chance; no interval"),
    "nll": ("NLL", "mean negative log-likelihood of the true class in nats; lower is better"),
    "brier": ("Brier score", "squared distance of the probabilities to the truth, 0 to 2; lower is better"),
    "ece": (
        "ECE",
        (
            "mean gap between confidence and accuracy; lower is better. Resampling inflates it, so that its interval "
            "may be above the value"
        ),
    ),
}
"""Metric -> its name and what it means, in the order of the main table."""

SPLIT_NAMES = {"train": "train", "val": "validation", "test": "test"}


def result(data: ReportData) -> Section:
    """Return the first screen: the recommendation, all scores on one axis, what was compared, and the warnings."""
    predictions = data.predictions
    warning = _warning(predictions)
    errors = [finding for finding in data.files.findings or [] if finding.severity == "error"]
    blocks: list[Block] = [Note(data.verdict.action), *_application(data), Text(_what(data)), data.figures["scores"]]
    blocks += [Note(warning)] if warning else []
    blocks += [Note(text) for text in transductive(predictions.details)]
    if errors:
        blocks.append(Note(f"The audit found {count(len(errors), 'error')} in the data, first: {errors[0].what}."))
    return Section("Result", [*blocks, *_network(data)])


def _application(data: ReportData) -> list[Text]:
    """Return the command that applies what is recommended to new tiles, if there is one."""
    head = data.verdict.recommended
    if head is None or head in RUN_ONLY or "pixels" in (data.encoder or {}):  # imported rows have no network
        return []
    untested = data.corrupted is not None and head not in set(data.corrupted["head"])
    notes = [Text("The section on robustness does not test it.")] if untested else []
    of_part = "" if data.protocol is None else ", where RUN is a folder in parts/, with one network"
    return [Text(f"For new tiles: python -m pipeline.predict --head {head} --tiles FOLDER --run RUN{of_part}."), *notes]


def _what(data: ReportData) -> str:
    """Return the sentence on the heads, the data set, its groups and the split."""
    predictions, details = data.predictions, data.predictions.details
    n_groups = len(predictions.group_code[1])
    groups = f" from {count(n_groups, 'group')} (sources, slides or patients)" if predictions.groups_known else ""
    is_plan = data.protocol is not None
    noun, of_part = ("tested tile", ", from the embeddings of each part's network") if is_plan else ("tile", "")
    return (
        f"{listing(data.head_names)} classify the same tiles{of_part}. Data set: "
        f"{details.get('dataset', 'n/a')}, {count(predictions.n_tiles(np.arange(len(predictions.y))), noun)} of "
        f"{count(len(predictions.classes), 'class')}{groups}; "
        f"{PROTOCOLS.get(predictions.protocol, predictions.protocol)}."
    )


def compared(data: ReportData) -> Section:
    """Return which rows, networks and tiles the scores rest on."""
    predictions, details = data.predictions, data.predictions.details
    blocks: list[Block] = (
        [Text(_of_plan(data.protocol))]
        if data.protocol is not None
        else [Text("Scores are of the test rows; the other rows fitted and chose."), _rows_table(predictions)]
    )
    fitted = [head for head in predictions.main_heads if head != "softmax" and head not in MEANS]
    fit_on = (FIT_ON if data.encoder is None else FIT_ON_FROZEN).get(str(details.get("fit_on")))
    if fit_on and fitted:
        verb = "is" if len(fitted) == 1 else "are"
        blocks.append(Text(f"{listing([head_name(head) for head in fitted])} {verb} fitted {fit_on}"))
    if fused := [head_name(head) for head in predictions.main_heads if head in FUSED and head not in MEANS]:
        verb = "takes" if len(fused) == 1 else "take"
        blocks.append(Text(f"{listing(fused)} also {verb} the tile's colour histogram and hand-crafted features."))
    blocks += [Text(DECIDE[rule])] if (rule := str(details.get("decide"))) in DECIDE else []
    n_skipped = details.get("n_skipped") or 0
    if n_skipped:
        blocks.append(Text(f"{count(n_skipped, 'tile')} could not be read and are not in this report."))
    if "figures/classes.png" in data.files.figures:
        blocks.append(Figure("figures/classes.png", "Sample tiles of each class", "Sample tiles of each class."))
    return Section("What was compared", blocks)


def _network(data: ReportData) -> list[Block]:
    """Return what a reader would not expect of the network: an encoder, start weights."""
    start = data.files.start_weights
    blocks: list[Block] = [] if data.encoder is None else [Note(_encoder_text(data.encoder))]
    if start:
        blocks.append(Note(f"Not from scratch: the training started from the weights {start}."))
    return blocks


def _encoder_text(facts: Mapping[str, object]) -> str:
    """Return what is known of a frozen encoder: its weights, their licence, and what it was trained on."""
    name = ":".join(str(facts[key]) for key in ("library", "name") if facts.get(key)) or "unknown"
    digest = facts.get("weights_sha256")
    weights = f", weights {facts.get('weights')} (sha256 {str(digest)[:12]})" if digest else ""
    licence = facts.get("licence")
    seen = (
        f"Its weights were trained on {facts['trained_on']}."
        if facts.get("trained_on")
        else "Which images its weights were trained on is not known: it may have seen the test tiles."
    )
    unseen = " They were imported: that a row shows the tile of its name is not proved." if "pixels" in facts else ""
    return (
        f"The embeddings are those of a frozen encoder, {name}{weights}, licence "
        f"{licence or 'not known'}.{unseen} It was not trained on these tiles' labels. It has no softmax layer: "
        f"logistic regression on its embeddings takes that place. {seen}"
    )


def _rows_table(predictions: Predictions) -> Table:
    """Return the number of tiles, groups and classes of each split."""
    rows = []
    for split in SPLITS:
        chosen = predictions.rows(split)
        split_groups = predictions.n_groups(split)
        n_classes = len(np.unique(predictions.y[chosen]))
        groups_cell = NOT_AVAILABLE if split_groups is None else str(split_groups)
        rows.append([SPLIT_NAMES[split], str(len(chosen)), groups_cell, f"{n_classes} of {len(predictions.classes)}"])
    return Table(["rows", "tiles", "groups", "classes"], rows)


def _of_plan(protocol: Protocol) -> str:
    """Return the sentence on folds and seeds."""
    folds = f"{count(protocol.n_folds, 'fold')}, each tested by a network that did not see it, "
    return (
        f"{folds if protocol.n_folds > 1 else 'One split '}for each of {count(len(protocol.seeds), 'seed')}. The test "
        "rows of all parts are pooled, and all results below are on these rows. A tile that was tested under several "
        "seeds is several rows, but one tile to every interval and test."
    )


def _warning(predictions: Predictions) -> str | None:
    """Return what makes the scores of this split better than those on a new patient's tiles; None if nothing does."""
    tiles = predictions.tiles
    is_test = tiles["split"] == "test"
    shared = sorted(set(tiles.loc[is_test, "group"].unique()) & set(tiles.loc[~is_test, "group"].unique()) - {""})
    if predictions.protocol == "random":
        return (
            "Random split: tiles of one slide or patient are in both train and test, so that these scores are biased "
            "upwards. Expect clearly lower scores on tiles of a new source."
        )
    if not predictions.groups_known:
        return (
            "Groups (slides, patients) are not known: if tiles of one slide are in both train and test, these scores "
            "are biased upwards."
        )
    if shared:
        names = listing(shared) if len(shared) <= 5 else ", ".join([*shared[:5], "..."])
        return f"Test rows share {count(len(shared), 'group')} with train or validation ({names}): biased upwards."
    return None


def results(data: ReportData) -> Section:
    """Return the main table, what its intervals rest on and what its rows mean."""
    predictions, rows = data.predictions, []
    for metric, (name, _) in METRIC_ROWS.items():
        cells = []
        for head in predictions.main_heads:
            score = data.scores[head, "test", metric]
            cells.append(number(score.value) + interval(score.low, score.high))
        rows.append([name, *cells])
    headline = "Only baselines were evaluated."
    if predictions.main_heads:
        head, best = data.best_head, data.scores[data.best_head, "test", "macro_f1"]
        bounds = interval(best.low, best.high)
        accuracy = data.value(head, "test", "accuracy")
        headline = (
            f"{head_name(head)} has the highest macro-F1, {number(best.value)}{bounds}, with accuracy {accuracy}."
        )
    caption = f"{data.bias_note}Test rows ({data.test_rows}). {interval_basis(data)}"
    return Section(
        "Results on the test rows",
        [
            Text(headline),
            Table(["metric", *data.head_names], rows, caption),
            Bullets([f"{name}: {meaning}." for name, meaning in METRIC_ROWS.values()]),
        ],
    )


def interval_basis(data: ReportData) -> str:
    """Return the sentence on what the intervals in parentheses are, or why there are none."""
    resampling, predictions = data.resampling, data.predictions
    n_units = resampling.n_units(predictions.rows("test"))
    how = f"{level_text(resampling.level)} expanded percentile bootstrap intervals ({resampling.n_draws} draws)"
    if n_units < 2:
        return (
            f"No intervals (n/a): the test rows come from one {resampling.unit}, which does not show how much the next "
            "one would differ."
        )
    if resampling.unit == "group":
        few = f" {n_units} groups are too few to decide anything." if n_units < FEW_UNITS else ""
        return f"In parentheses: {how} over {n_units} whole groups, widened for few groups (Hesterberg).{few}"
    why = (
        "because the split is random: they hold for further tiles of these same sources, not for a new source"
        if predictions.protocol == "random"
        else "because groups are not known: they are too narrow if tiles of one slide resemble each other"
    )
    units = "single tiles" if resampling.unit == "tile" else f"{n_units} blocks of tiles dealt at random"
    return f"In parentheses: {how} over {units}, {why}."


def verdict(data: ReportData) -> Section:
    """Return how certain the recommendation is."""
    predictions = data.predictions
    caveats = []
    if len(predictions.rows("val")):
        fitted_on = "the network was trained on" if data.encoder is None else "the heads were fitted on"
        caveats.append(
            f"The validation rows chose {'the epoch, ' if data.encoder is None else ''}the hyper-parameters and the "
            "calibration, so that scores on them are biased upwards (n/a: heads that were fitted on them). Training "
            f"scores are of tiles that {fitted_on} and do not hold for new tiles."
        )
    if data.protocol is None and data.encoder is None:
        caveats.append(
            "All results rest on one trained network: another seed moves all heads together, often by more than the "
            "heads differ (prepare --seeds 3, --folds 5)."
        )
    if len(data.verdict.asked) > 1:
        caveats.append(
            "The sign-flip p is adjusted for the number of pairs (Holm); intervals and 'practically equal' are for "
            "each pair alone. The best head and the best baseline are chosen on these test rows, which makes both "
            "look a little better than they are."
        )
    splits = [split for split in SPLITS if len(predictions.rows(split))]
    baseline = data.verdict.baseline
    rows = [
        [head_name(head), *(data.value(head, split, "macro_f1") for split in splits)]
        for head in [*predictions.main_heads, *([baseline] if baseline is not None else [])]
    ]
    return Section(
        "Verdict",
        [
            Text(data.verdict.ranking),
            Bullets([pair.sentence for pair in data.verdict.asked] or ["One head: no pair to compare."]),
            Text("A point is a percentage point of macro-F1. The intervals are of the paired differences."),
            Table(["macro-F1", *(SPLIT_NAMES[split] for split in splits)], rows, data.bias_note.strip()),
            *([Bullets(caveats)] if caveats else []),
        ],
    )
