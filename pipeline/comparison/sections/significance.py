"""The report's figures on the differences of the main heads: the tests of each pair, and the accuracy in each group."""

import csv
import dataclasses
import io

import numpy as np

from pipeline.comparison.pairwise_tests import Evidence
from pipeline.comparison.predictions import Predictions
from pipeline.comparison.report_data import ReportData
from pipeline.comparison.verdict import Pair, Verdict, p_text, rope_text, rule_text
from pipeline.evaluation.bootstrap import Difference
from pipeline.evaluation.significance import EXACT_UNITS, FLIP_DRAWS
from pipeline.evaluation.validate import FloatArray, IntArray
from pipeline.markup.document import Block, Bullets, Section, Table, Text
from pipeline.markup.number_format import (
    NOT_AVAILABLE,
    count,
    head_name,
    is_number,
    level_text,
    number,
    percent,
    points,
)
from pipeline.storage.csv_files import no_formula

GROUP_ROWS = 40
"""Groups in the report's table; per_group.csv holds all."""

ABOUT_BLOCKS = (
    "Tiles are dealt into 10,000 blocks by a hash of their names, and blocks are drawn: intervals over single tiles "
    "have the same width to 0.7 % (a standard deviation), a quarter of what 2000 draws leave open."
)
"""What stands for the bootstrap of single tiles where these are very many."""

CSV_COLUMNS = ("group", "head", "n", "accuracy", "n_classes")


def section(material: ReportData) -> Section:
    """Every pair of main heads with all its tests, and what each of them assumes."""
    title, verdict = "Statistics of the differences", material.verdict
    if not verdict.pairs:
        return Section(title, [Text("Fewer than two main heads were evaluated: there is no pair to compare.")])
    level = level_text(verdict.level)
    head = [
        "pair",
        "macro-F1 difference in points",
        f"{level} over groups",
        f"{level} over tiles",
        "sign-flip p (Holm)",
        "McNemar p",
        "Nadeau-Bengio p",
        "P(better / equal / worse)",
        "verdict",
    ]
    n_tiles = material.predictions.n_tiles(material.predictions.rows("test"))
    caption = (
        f"{material.flattering}First head less second, {count(n_tiles, 'test tile')}; the verdict is on the first and "
        f"rests on {count(verdict.n_units, verdict.unit)}."
    )
    return Section(
        title,
        [
            Text(rule_text(verdict)),
            Table(head, [_pair_row(pair) for pair in verdict.pairs], caption),
            Bullets(_assumptions(material)),
        ],
    )


def _pair_row(pair: Pair) -> list[str]:
    evidence = pair.evidence
    probable = evidence.superiority
    return [
        f"{head_name(evidence.head)} - {head_name(evidence.reference)}",
        points(evidence.difference.value),
        _bounds(evidence.by_group),
        _bounds(evidence.by_tile),
        f"{p_text(evidence.flip.p)} ({p_text(pair.holm_p)})",
        p_text(evidence.mcnemar_p),
        p_text(evidence.resampled.p),
        " / ".join(number(share, 2) for share in (probable.better, probable.equal, probable.worse)),
        pair.outcome,
    ]


def _bounds(difference: Difference | None) -> str:
    if difference is None or not is_number(difference.low):
        return NOT_AVAILABLE
    return f"{points(difference.low)} to {points(difference.high)}"


def _assumptions(material: ReportData) -> list[str]:
    """Return one sentence or two per column: what it assumes and where it fails."""
    verdict, predictions = material.verdict, material.predictions
    unit, evidences = verdict.unit, [pair.evidence for pair in verdict.pairs]
    return [
        _about_groups(predictions, evidences),
        (
            "Interval over tiles: takes tiles as independent. Tiles of one slide or patient are not, and then it is "
            "too narrow for a new source." + (f" {ABOUT_BLOCKS}" if predictions.tile_unit == "block" else "")
        ),
        _about_flips(unit, evidences),
        (
            "McNemar p: exact, on accuracy, not macro-F1; takes tiles as independent, so it is exploratory where "
            "groups matter." + _about_seeds(predictions)
        ),
        _about_parts(verdict, evidences),
        (
            f"P(better / equal / worse): share of Bayesian-bootstrap draws over {unit}s in which the first head is "
            f"more than {rope_text(verdict.rope)} ahead, within that, or more than that behind. It knows only the "
            f"{unit}s seen; with few of them it is surer than it should be. It decides nothing here."
        ),
        (
            "Practically equal is a claim at the level of each single pair, not adjusted for their number. All columns "
            "but Nadeau-Bengio compare these trained heads, not the ways to train them"
            + (": the seeds are pooled, and how they differ is in no interval." if _n_seeds(predictions) > 1 else ".")
        ),
    ]


def _about_groups(predictions: Predictions, evidences: list[Evidence]) -> str:
    by_group = evidences[0].by_group
    if by_group is None:
        return "Interval over groups: n/a, because groups (slides, patients) are not known."
    if by_group.n_units < 2:
        return "Interval over groups: n/a, because the test rows come from one group."
    random = (
        " The split was random, so that these groups were also trained on: no interval here speaks of a new one, and "
        "the verdict rests on tiles."
        if predictions.protocol == "random"
        else ""
    )
    return (
        f"Interval over groups: percentile bootstrap of whole groups ({by_group.n_units}), widened for few groups "
        "(Hesterberg 2015); takes the groups as a random sample of those to come. In simulations of clustered tiles, "
        "95 % intervals from 6 groups on held the truth in 90 to 96 % of cases, the less so the more one group "
        f"holds of all tiles; below 6 it is too narrow.{random}"
    )


def _about_flips(unit: str, evidences: list[Evidence]) -> str:
    inexact = [evidence for evidence in evidences if not evidence.flip.exact]
    how = (
        f"all swaps were tried where at most {EXACT_UNITS} {unit}s differ, else {FLIP_DRAWS} random ones"
        if inexact
        else "exact, all swaps were tried"
    )
    return (
        f"Sign-flip p: how often a swap of the two heads' answers in whole {unit}s gives so large a difference of "
        f"macro-F1 ({how}); in parentheses adjusted for {count(len(evidences), 'pair')} (Holm). It takes the {unit}s "
        "as independent, and the heads as interchangeable in each if neither is better."
    )


def _about_seeds(predictions: Predictions) -> str:
    n_seeds = _n_seeds(predictions)
    return f" The largest p of {n_seeds} seeds is shown." if n_seeds > 1 else ""


def _n_seeds(predictions: Predictions) -> int:
    return len(np.unique(predictions.tiles["seed"].to_numpy()[predictions.rows("test")]))


def _about_parts(verdict: Verdict, evidences: list[Evidence]) -> str:
    n_parts = evidences[0].resampled.n_parts
    if n_parts < 2:
        return "Nadeau-Bengio p: n/a, because there is one part (one seed, one fold)."
    if verdict.n_train is None:
        return "Nadeau-Bengio p: n/a, because the number of training tiles is not known."
    undefined = [evidence for evidence in evidences if not is_number(evidence.resampled.p)]
    without = " n/a where all parts differ by the same amount." if undefined else ""
    return (
        f"Nadeau-Bengio p: t over {n_parts} parts (seed, fold), corrected for the training tiles that they share; asks "
        "about the ways to train, on data of this size. Its correction is a rule of thumb, and macro-F1 of a part "
        f"leaves out the classes that are absent from it.{without}"
    )


def per_group(material: ReportData) -> Section:
    """The accuracy of every main head in every test group, and which head wins how many groups."""
    title, predictions = "Group by group", material.predictions
    if not predictions.groups_known:
        return Section(title, [Text("n/a: groups (slides, patients) are not known.")])
    heads, groups = predictions.main_heads, _groups(predictions)
    order = np.argsort(-groups.n_tiles, kind="stable")
    rows = [
        [groups.names[i], str(groups.n_tiles[i]), *(number(groups.accuracy[head][i]) for head in heads)]
        for i in order[:GROUP_ROWS]
    ]
    n_seeds = _n_seeds(predictions)
    pooled = f", {n_seeds} seeds pooled" if n_seeds > 1 else ""
    caption = (
        f"{material.flattering}Accuracy on the test tiles of each group{pooled}, largest group first. Accuracy, "
        "because a group seldom holds all classes, and macro-F1 over other classes in each group could not be "
        "compared; in groups of few tiles it scatters by chance."
    )
    blocks: list[Block] = [Table(["group", "tiles", *map(head_name, heads)], rows, caption)]
    if len(order) > GROUP_ROWS:
        blocks.append(Text(f"And {count(len(order) - GROUP_ROWS, 'more group')} (in per_group.csv)."))
    largest = int(order[0])
    share = percent(groups.n_tiles[largest] / groups.n_tiles.sum())
    wins = [_wins(pair, groups) for pair in material.verdict.pairs]
    blocks.append(Bullets([*wins, f"The largest group, {groups.names[largest]}, holds {share} of the test tiles."]))
    return Section(title, blocks)


def per_group_csv(predictions: Predictions) -> str:
    """Return per_group.csv: one row for each test group and head, baselines too; no rows where groups are not known.

    Columns: group; head; n, the distinct tiles; accuracy of all their answers, seeds pooled; n_classes, how
    many classes the group's tiles are of.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    if predictions.groups_known:
        groups = _groups(predictions)
        for i, name in enumerate(groups.names):
            for head in predictions.heads:
                accuracy = f"{groups.accuracy[head][i]:.10g}"
                writer.writerow([no_formula(name), head, groups.n_tiles[i], accuracy, groups.n_classes[i]])
    return out.getvalue()


@dataclasses.dataclass(frozen=True)
class _Groups:
    """The G test groups, in the order of their names."""

    names: list[str]
    n_tiles: IntArray
    n_classes: IntArray
    accuracy: dict[str, FloatArray]
    """Head -> (G,) share of right answers."""

    pooled: dict[str, float]
    """Head -> share of right answers on all test rows."""


def _groups(predictions: Predictions) -> _Groups:
    rows = predictions.rows("test")
    of_rows, all_names = predictions.group_code
    present, code = np.unique(of_rows[rows], return_inverse=True)
    n_codes = 1 + int(predictions.tile_code.max())
    tiles = np.unique(code.astype(np.int64) * n_codes + predictions.tile_code[rows]) // n_codes
    classes = np.unique(code * len(predictions.classes) + predictions.y[rows]) // len(predictions.classes)
    hits = {head: predictions.predicted[head][rows] == predictions.y[rows] for head in predictions.heads}
    return _Groups(
        names=[all_names[each] for each in present],
        n_tiles=np.bincount(tiles),
        n_classes=np.bincount(classes),
        accuracy={head: np.bincount(code, weights=hit) / np.bincount(code) for head, hit in hits.items()},
        pooled={head: float(hit.mean()) for head, hit in hits.items()},
    )


def _wins(pair: Pair, groups: _Groups) -> str:
    """Return in how many groups each head of a pair is ahead, and whether that goes against the pooled figures."""
    head, reference = pair.evidence.head, pair.evidence.reference
    a, b = groups.accuracy[head], groups.accuracy[reference]
    won, lost, n = int((a > b).sum()), int((a < b).sum()), len(a)
    pooled = {"accuracy": groups.pooled[head] - groups.pooled[reference], "macro-F1": pair.evidence.difference.value}
    against = [name for name, difference in pooled.items() if difference * (won - lost) < 0]
    disagree = (
        f" The count of groups and the pooled {' and '.join(against)} disagree: large groups, and rare classes in "
        "macro-F1, weigh more in the pooled figure."
        if against
        else ""
    )
    return (
        f"{head_name(head)} is ahead of {head_name(reference)} in {won} of {count(n, 'group')}, behind in {lost}, "
        f"level in {n - won - lost}; pooled difference {points(pooled['accuracy'])} points of accuracy, "
        f"{points(pooled['macro-F1'])} of macro-F1.{disagree}"
    )
