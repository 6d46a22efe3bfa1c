"""Write the sections on the cross-validation plan: its parts and seeds, and the random-split control."""

from typing import Literal

import numpy as np

from pipeline.comparison.predictions import Predictions
from pipeline.comparison.report_data import ReportData
from pipeline.comparison.scores import FEW_UNITS
from pipeline.evaluation.bootstrap import Difference, paired_counts
from pipeline.evaluation.metrics import confusion, scores_from_confusion
from pipeline.markup.document import Block, Bullets, EmptySection, Note, Section, Table, Text
from pipeline.markup.number_format import (
    NOT_AVAILABLE,
    count,
    head_name,
    interval,
    level_text,
    listing,
    number,
    points,
)

GapCode = Literal["biased_upwards", "undecided", "too_few_units"]

MOST_PARTS = 60
"""Parts that are listed one by one."""


def macro_f1(predictions: Predictions, head: str, rows: np.ndarray) -> float:
    """Return macro-F1 over the classes that occur in the rows, as in comparison.csv."""
    matrix = confusion(predictions.y[rows], predictions.predicted[head][rows], len(predictions.classes))
    return float(scores_from_confusion(matrix[None])["macro_f1"][0])


def parts(data: ReportData) -> Section | EmptySection:
    """Return the scores of every part of the plan, and how much seeds move the heads."""
    title, protocol, predictions = "Cross-validation plan", data.protocol, data.predictions
    if protocol is None:
        return EmptySection(title, "There is one split and one network.")
    seed, fold = (predictions.tiles[name].to_numpy() for name in ("seed", "fold"))
    heads = predictions.main_heads
    rows = []
    for part in protocol.parts:
        if part.arm != protocol.main_arm or part.inner:
            continue
        own = np.flatnonzero((seed == part.seed) & (fold == part.fold))
        lacking = "; ".join(f"{split} lacks {', '.join(names)}" for split, names in part.absent.items())
        counts = [str(part.n[name]) for name in ("train", "val", "test")]
        n_groups = str(len(part.test_groups)) if part.test_groups else NOT_AVAILABLE
        values = [number(macro_f1(predictions, head, own)) if len(own) else NOT_AVAILABLE for head in heads]
        rows.append([str(part.seed), str(part.fold), *counts, n_groups, *values, lacking or "-"])
    by_seed = []
    for each in protocol.seeds:
        own = np.flatnonzero(seed == each)
        by_seed.append([str(each), *(number(macro_f1(predictions, head, own)) for head in heads)])
    names = [head_name(head) for head in heads]
    folds = "" if protocol.n_folds == 1 or len(protocol.seeds) == 1 else " Folds are drawn again for every seed."
    if protocol.n_folds == len(predictions.group_code[1]):
        folds = " Every group is a fold."
    text = (
        f"{count(protocol.n_folds, 'fold')} and {count(len(protocol.seeds), 'seed')}, one network for each"
        + (f", with {protocol.n_inner} inner networks" if protocol.n_inner else "")
        + f". The plan was written before anything was trained (protocol.json).{folds}"
        + (" Inner networks share a row, which counts the tiles of the first one." if protocol.n_inner else "")
    )
    columns = ["seed", "fold", "train", "validation", "test", "test groups", *names, "classes absent"]
    caption = (
        f"{data.bias_note}Macro-F1 on the test rows of each part. Parts share training tiles, so that their spread is "
        "no interval; a class that is absent from a part's test rows does not count in its macro-F1."
    )
    blocks: list[Block] = [Text(text), Table(columns, rows[:MOST_PARTS], caption, left=2)]
    if len(rows) > MOST_PARTS:
        blocks.append(Text(f"{len(rows) - MOST_PARTS} more parts: see parts/*/predictions.csv."))
    if len(protocol.seeds) > 1:
        caption = (
            f"{data.bias_note}Macro-F1 of all test rows of a seed. If seeds differ more than heads do, one network "
            "does not decide the order of the heads."
        )
        blocks.append(Table(["seed", *names], by_seed, caption))
    return Section(title, blocks)


def random_control(data: ReportData) -> Section | EmptySection | None:
    """Return the scores of a random split on the same tiles; None if the protocol itself is random."""
    predictions, other = data.predictions, data.random_control
    title = "Random-split control"
    if predictions.protocol == "random":
        return None
    if other is None:
        option = "prepare --random-control" if data.protocol is not None else "prepare --folds 5 --random-control"
        return EmptySection(title, f"The plan has no random-split control; {option} adds it.")
    here, there = aligned(predictions, other)
    if not len(here):
        return EmptySection(title, "No tile was tested under both protocols with the same seed.")
    resampling = data.resampling
    rows: list[list[str]] = []
    gaps: dict[str, Difference] = {}
    for head in [*predictions.main_heads, *predictions.baselines]:
        if head not in other.heads:
            continue
        cells = [macro_f1(each, head, chosen) for each, chosen in ((other, there), (predictions, here))]
        of_control, own = other.predicted[head][there], predictions.predicted[head][here]
        units = resampling.ids[here]
        gap = resampling.difference(paired_counts(predictions.y[here], of_control, own, metric="macro_f1", units=units))
        gaps[head] = gap
        gap_text = points(gap.value) + interval(100 * gap.low, 100 * gap.high, 1)
        rows.append([head_name(head), *map(number, cells), gap_text])
    n_train = [each.details.get("n_train") for each in (other, predictions)]
    trained = " and ".join(number(n, 0) for n in n_train)
    caption = (
        f"Macro-F1 on the same {count(predictions.n_tiles(here), 'tile')}, tested once per seed under each protocol "
        f"with as many folds and epochs; the mean numbers of training tiles are {trained}. In parentheses: "
        f"{level_text(resampling.level)} paired bootstrap intervals over whole {resampling.unit}s."
    )
    limits = [
        "The gap mixes what the network and the heads gain from having seen tiles of the same source.",
        "Random-split scores hold for further tiles of these same sources; the others for new sources of this kind.",
        "Neither holds for another hospital or scanner, unless those are among the groups.",
    ]
    table = Table(["head", "random split", "held-out groups", "gap in points"], rows, caption)
    note = gap_sentence({head: gaps[head] for head in predictions.main_heads if head in gaps}, unit=resampling.unit)
    return Section(title, [Note(note), table, Bullets(limits)])


def gap_code(gap: Difference) -> GapCode:
    """Return whether the random split is biased upwards for a head, by the interval of the gap."""
    if gap.n_units < FEW_UNITS:
        return "too_few_units"
    return "biased_upwards" if gap.low > 0 else "undecided"


def gap_sentence(gaps: dict[str, Difference], *, unit: str) -> str:
    """Return how much the random split biases each main head upwards, or that this is undecided."""
    codes = {head: gap_code(gap) for head, gap in gaps.items()}
    units = count(next(iter(gaps.values())).n_units, unit)
    if "too_few_units" in codes.values():
        return f"Undecided how much the random split is biased upwards: {units} are too few."
    each = [
        f"{head_name(head)} {points(gap.value)} ({points(gap.low)} to {points(gap.high)})" for head, gap in gaps.items()
    ]
    biased = [head_name(head) for head, code in codes.items() if code == "biased_upwards"]
    start = f"The random split is biased upwards for {listing(biased)}" if biased else "Undecided whether it is biased"
    return f"{start}; gap in points of macro-F1: {', '.join(each)}; {units}."


def aligned(one: Predictions, other: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of both that are of the same tile and seed, in the order of the first."""
    place = other.places(one.row_key)
    here = np.flatnonzero(place >= 0)
    return here, place[here]
