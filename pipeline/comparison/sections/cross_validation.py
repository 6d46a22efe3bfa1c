"""The report's sections on the plan: its parts and seeds, and what a random split would have shown."""

import numpy as np

from pipeline.comparison.predictions import Predictions
from pipeline.comparison.report_data import ReportData
from pipeline.comparison.verdict import FEW_UNITS
from pipeline.evaluation.bootstrap import Difference, paired_difference
from pipeline.evaluation.metrics import confusion, scores_from_confusion
from pipeline.markup.document import Block, Bullets, Note, Section, Table, Text
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

MOST_PARTS = 60
"""Parts that are listed one by one."""


def macro_f1(predictions: Predictions, head: str, rows: np.ndarray) -> float:
    """Return macro-F1 over the classes that occur in the rows, as in comparison.csv."""
    matrix = confusion(predictions.y[rows], predictions.predicted[head][rows], len(predictions.classes))
    return float(scores_from_confusion(matrix[None])["macro_f1"][0])


def parts(material: ReportData) -> Section:
    """How every part of the plan came out, and how far seeds move the heads."""
    protocol, predictions = material.protocol, material.predictions
    if protocol is None:
        return Section("The plan", [Text("One split, one network: see the first section.")])
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
    folds = "" if protocol.n_folds == 1 or len(protocol.seeds) == 1 else " Folds are drawn anew for every seed."
    if protocol.n_folds == len(predictions.group_code[1]):
        folds = " Every group is a fold."
    text = (
        f"Written before anything was trained (protocol.json): {count(protocol.n_folds, 'fold')} and "
        f"{count(len(protocol.seeds), 'seed')}, a network of its own for each"
        + (f", with {protocol.n_inner} inner networks" if protocol.n_inner else "")
        + "."
        + folds
        + (" Inner networks share a row, which counts the tiles of the first of them." if protocol.n_inner else "")
    )
    columns = ["seed", "fold", "train", "validation", "test", "test groups", *names, "classes absent"]
    caption = (
        f"{material.flattering}Macro-F1 on the test rows of each part. Parts share training tiles, so that their "
        "spread is no interval; a class that is absent from a part's test rows does not count in its macro-F1."
    )
    blocks: list[Block] = [Text(text), Table(columns, rows[:MOST_PARTS], caption, left=2)]
    if len(rows) > MOST_PARTS:
        blocks.append(Text(f"{len(rows) - MOST_PARTS} more parts: see parts/*/predictions.csv."))
    if len(protocol.seeds) > 1:
        caption = (
            f"{material.flattering}Macro-F1 of all test rows of a seed: where seeds differ more than heads do, the "
            "heads' order is not settled by one network."
        )
        blocks.append(Table(["seed", *names], by_seed, caption))
    return Section("The plan", blocks)


def random_control(material: ReportData) -> Section | None:
    """What the random split shows on the same tiles; None where it is the protocol itself."""
    predictions, other = material.predictions, material.random_control
    title = "What a random split would have shown"
    if predictions.protocol == "random":
        return None
    if other is None:
        asked = "prepare --random-control" if material.protocol is not None else "prepare --folds 5 --random-control"
        return Section(
            title, [Text(f"n/a: there is no random-split control of this plan; it is asked for by {asked}.")]
        )
    here, there = aligned(predictions, other)
    if not len(here):
        return Section(title, [Text("n/a: no tile was tested under both protocols with the same seed.")])
    resampling = material.resampling
    rows: list[list[str]] = []
    gaps: dict[str, Difference] = {}
    for head in [*predictions.main_heads, *predictions.baselines]:
        if head not in other.heads:
            continue
        cells = [macro_f1(each, head, chosen) for each, chosen in ((other, there), (predictions, here))]
        gap = paired_difference(
            predictions.y[here],
            other.predicted[head][there],
            predictions.predicted[head][here],
            metric="macro_f1",
            units=resampling.ids[here],
            n_draws=resampling.n_draws,
            seed=resampling.seed,
            level=resampling.level,
        )
        gaps[head] = gap
        fall = points(gap.value) + interval(100 * gap.low, 100 * gap.high, 1)
        rows.append([head_name(head), *map(number, cells), fall])
    n_train = [each.details.get("n_train") for each in (other, predictions)]
    trained = " against ".join(number(n, 0) for n in n_train)
    caption = (
        f"Macro-F1 on the same {count(predictions.n_tiles(here), 'tile')}, tested once per "
        f"seed under each protocol with as many folds and epochs; on average {trained} tiles were trained "
        f"on. In parentheses: {level_text(resampling.level)} paired bootstrap intervals over whole {resampling.unit}s."
    )
    limits = [
        "The gap mixes what the network and the heads gain from having seen tiles of the same source.",
        "The random figures hold for further tiles of these same sources; the others for new sources of this kind.",
        "Neither stands for another hospital or scanner, unless those are among the groups.",
    ]
    table = Table(["head", "random split", "held-out groups", "gap in points"], rows, caption)
    note = gap_sentence({head: gaps[head] for head in predictions.main_heads if head in gaps}, unit=resampling.unit)
    return Section(title, [Note(note), table, Bullets(limits)])


def gap_sentence(gaps: dict[str, Difference], *, unit: str) -> str:
    """Return how much the random split flatters each main head, or that this is undecided."""
    n_units = next(iter(gaps.values())).n_units
    if n_units < FEW_UNITS:
        return f"How much the random split flatters is undecided: {count(n_units, unit)} are too few."
    each = [
        f"{head_name(head)} {points(gap.value)} ({points(gap.low)} to {points(gap.high)})" for head, gap in gaps.items()
    ]
    sure = [head_name(head) for head, gap in gaps.items() if gap.low > 0]
    start = f"The random split flatters {listing(sure)}" if sure else "Whether the random split flatters is undecided"
    return f"{start}; gap in points of macro-F1: {', '.join(each)}; {count(n_units, unit)}."


def aligned(one: Predictions, other: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of both that are of the same tile and seed, in the order of the first."""
    place = other.places(one.row_key)
    here = np.flatnonzero(place >= 0)
    return here, place[here]
