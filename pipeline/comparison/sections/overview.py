"""The first part of the report: what was compared, the main table, the verdict."""

import numpy as np

from pipeline.comparison.predictions import Predictions
from pipeline.comparison.report_data import ReportData
from pipeline.comparison.verdict import FEW_UNITS
from pipeline.markup.document import Block, Bullets, Figure, Note, Section, Table, Text
from pipeline.markup.number_format import NOT_AVAILABLE, count, head_name, interval, level_text, listing, number
from pipeline.names import SPLITS
from pipeline.storage.protocol import Protocol

FIT_ON = {
    "train": "on embeddings of tiles the network was trained on (--fit-on train); how much further apart these lie "
    "than others stands under what the embeddings know.",
    "heldout": "on embeddings of the validation tiles, which the network was not trained on (--fit-on heldout).",
    "crossfit": "on every tile of the training side, each embedded by an inner network that "
    "held it out; what the inner networks say of a test tile, softmax too, is averaged (--fit-on crossfit).",
}
"""What `--fit-on` means for the figures."""

METRIC_ROWS = {
    "accuracy": ("accuracy", "share of tiles named rightly"),
    "balanced_accuracy": ("balanced accuracy", "mean over the classes of the share of their tiles that is found"),
    "macro_f1": ("macro-F1", "mean over the classes of F1, which punishes both missed and false calls; decides here"),
    "auroc_ovr": ("AUROC", "how well the probabilities rank each class before the rest; 0.5 is chance; no interval"),
    "nll": ("NLL", "mean negative log-likelihood of the true class in nats; lower is better"),
    "brier": ("Brier score", "squared distance of the probabilities to the truth, 0 to 2; lower is better"),
    "ece": (
        "ECE",
        (
            "mean gap between confidence and accuracy; lower is better; resampling inflates it, so that its "
            "interval may lie above the value"
        ),
    ),
}
"""Metric -> its name and what it means, in the order of the main table."""


STAIN_METHODS = {"macenko": "Macenko et al. 2009", "reinhard": "Reinhard et al. 2001, in CIELAB"}
"""Method of normalisation -> its source."""

SPLIT_NAMES = {"train": "train", "val": "validation", "test": "test"}


def compared(material: ReportData) -> Section:
    """Say what was compared on which rows, and what makes the figures better than they are."""
    predictions, details = material.predictions, material.predictions.details
    protocols = {
        "random": "tiles were split at random within each class",
        "grouped": "whole groups were split, so that no group stands on two sides",
        "logo": "groups were left out whole and in turn, so that every tile is tested by networks trained without its "
        "group",
        "given": "the split was given with the data",
    }
    n_groups = len(predictions.group_code[1])
    groups = f" from {count(n_groups, 'group')} (sources, slides or patients)" if predictions.groups_known else ""
    is_plan = material.protocol is not None
    noun, of_part = ("tested tile", ", from the embeddings of each part's network") if is_plan else ("tile", "")
    blocks: list[Block] = [
        Text(
            f"{listing(material.head_names)} answer for the same tiles{of_part}. Data set: "
            f"{details.get('dataset', 'n/a')}, {count(predictions.n_tiles(np.arange(len(predictions.y))), noun)} of "
            f"{count(len(predictions.classes), 'class')}{groups}; "
            f"{protocols.get(predictions.protocol, predictions.protocol)}."
        )
    ]
    warning = _warning(predictions)
    blocks += [Note(warning)] if warning else []
    errors = [finding for finding in material.context.findings or [] if finding["severity"] == "error"]
    if errors:
        blocks.append(Note(f"The audit found {count(len(errors), 'error')} in the data, first: {errors[0]['what']}."))
    blocks += [Text(_of_plan(material.protocol))] if material.protocol is not None else [_rows_table(predictions)]
    fit_on, fitted = FIT_ON.get(str(details.get("fit_on"))), [h for h in predictions.main_heads if h != "softmax"]
    if fit_on and fitted:
        verb = "is" if len(fitted) == 1 else "are"
        blocks.append(Text(f"{listing([head_name(head) for head in fitted])} {verb} fitted {fit_on}"))
    blocks += _network(material)
    n_skipped = details.get("n_skipped") or 0
    if n_skipped:
        blocks.append(Text(f"{count(n_skipped, 'tile')} could not be read and count nowhere in this report."))
    if "figures/classes.png" in material.context.figures:
        blocks.append(Figure("figures/classes.png", "Sample tiles of each class", "Sample tiles of each class."))
    return Section("What was compared", blocks)


def _network(material: ReportData) -> list[Block]:
    """Say what a reader would not expect of the network: start weights, stain normalisation."""
    start, stain = material.context.start_weights, material.context.stain
    blocks: list[Block] = []
    if start:
        blocks.append(Note(f"Not from scratch: the training started from the weights {start}."))
    if stain:
        blocks.append(
            Text(
                f"Every tile is normalised in stain before the network sees it ({STAIN_METHODS.get(stain, stain)}), to "
                "a target fitted on the training tiles; baselines without this network see the tiles as they are."
            )
        )
    return blocks


def _rows_table(predictions: Predictions) -> Table:
    """Return how many tiles, groups and classes each split has."""
    names = {
        "train": "train",
        "val": "validation",
        "test": "test",
    }
    rows = []
    for split in SPLITS:
        chosen = predictions.rows(split)
        split_groups = predictions.n_groups(split)
        n_classes = len(np.unique(predictions.y[chosen]))
        groups_cell = NOT_AVAILABLE if split_groups is None else str(split_groups)
        rows.append([names[split], str(len(chosen)), groups_cell, f"{n_classes} of {len(predictions.classes)}"])
    return Table(["rows", "tiles", "groups", "classes"], rows)


def _of_plan(protocol: Protocol) -> str:
    """Return the sentence on folds and seeds."""
    folds = f"{count(protocol.n_folds, 'fold')}, each tested by a network trained on the others, "
    return (
        f"{folds if protocol.n_folds > 1 else 'One split '}for each of {count(len(protocol.seeds), 'seed')}; the test "
        "rows of all parts are pooled, and everything below is of these rows. A tile that was tested under several "
        "seeds counts as often, but is one tile to every interval and test."
    )


def _warning(predictions: Predictions) -> str | None:
    """Return what makes the figures of this split better than those on a new patient's tiles, if anything does."""
    tiles = predictions.tiles
    is_test = tiles["split"] == "test"
    shared = sorted(set(tiles.loc[is_test, "group"].unique()) & set(tiles.loc[~is_test, "group"].unique()) - {""})
    if predictions.protocol == "random":
        return (
            "Random split: tiles of one slide or patient stand in both train and test, so that these figures "
            "flatter; on tiles of a new source expect clearly lower ones."
        )
    if not predictions.groups_known:
        return (
            "Groups (slides, patients) are not known: tiles of one slide may stand in both train and test, and "
            "then these figures flatter."
        )
    if shared:
        names = listing(shared) if len(shared) <= 5 else ", ".join([*shared[:5], "..."])
        return f"Test rows share {count(len(shared), 'group')} with train or validation ({names}): figures flatter."
    return None


def results(material: ReportData) -> Section:
    """The main table, with what its intervals rest on and what its rows mean."""
    predictions, rows = material.predictions, []
    for metric, (name, _) in METRIC_ROWS.items():
        cells = []
        for head in predictions.main_heads:
            score = material.scores[head, "test", metric]
            cells.append(number(score.value) + interval(score.low, score.high))
        rows.append([name, *cells])
    caption = f"{material.flattering}Test rows ({material.test_rows}). {interval_basis(material)}"
    return Section(
        "Results on the test rows",
        [
            Table(["metric", *material.head_names], rows, caption),
            Bullets([f"{name}: {meaning}." for name, meaning in METRIC_ROWS.values()]),
        ],
    )


def interval_basis(material: ReportData) -> str:
    """Return the sentence on what the intervals in brackets are, or why there are none."""
    resampling, predictions = material.resampling, material.predictions
    n_units = resampling.n_units(predictions.rows("test"))
    how = f"{level_text(resampling.level)} expanded percentile bootstrap intervals ({resampling.n_draws} draws)"
    if n_units < 2:
        return (
            f"No intervals (n/a): the test rows come from one {resampling.unit}, which says nothing about how much the "
            "next one would differ."
        )
    if resampling.unit == "group":
        few = f" {n_units} groups are too few to decide anything." if n_units < FEW_UNITS else ""
        return f"In parentheses: {how} over whole groups, {n_units} of them, widened for few groups (Hesterberg).{few}"
    why = (
        "because the split is random: they say how the figures vary over further tiles of these same sources, nothing "
        "about a new one"
        if predictions.protocol == "random"
        else "because groups are not known: they are too narrow where tiles of one slide resemble each other"
    )
    units = "single tiles" if resampling.unit == "tile" else f"{n_units} blocks of tiles dealt at random"
    return f"In parentheses: {how} over {units}, {why}."


def verdict(material: ReportData) -> Section:
    """Which head to use, and how sure that is."""
    predictions = material.predictions
    caveats = []
    if len(predictions.rows("val")):
        caveats.append(
            "The validation rows chose the epoch, the hyper-parameters and the calibration, so that figures on them "
            "flatter (n/a: heads that were fitted on them); the training figures are of tiles the network was trained "
            "on and say nothing about new ones."
        )
    if material.protocol is None:
        caveats.append(
            "Everything rests on one trained network: another seed moves all heads together, often by more than "
            "the heads differ (prepare --seeds 3, --folds 5)."
        )
    if len(predictions.main_heads) > 2:
        caveats.append(
            "The sign-flip p is adjusted for the number of pairs (Holm); intervals and 'practically equal' are of each "
            "pair alone."
        )
    splits = [split for split in SPLITS if len(predictions.rows(split))]
    rows = [
        [head_name(head), *(material.value(head, split, "macro_f1") for split in splits)]
        for head in predictions.main_heads
    ]
    sentences = material.verdict.sentences
    return Section(
        "Verdict",
        [
            Note(material.verdict.action),
            Text(sentences[0]),
            Bullets(sentences[1:] or ["One head: no pair to compare."]),
            Text("A point is a percentage point of macro-F1; the intervals are of the paired differences."),
            Table(["macro-F1", *(SPLIT_NAMES[split] for split in splits)], rows, material.flattering.strip()),
            *([Bullets(caveats)] if caveats else []),
        ],
    )
