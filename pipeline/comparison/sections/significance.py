"""Write the sections on the differences of the main heads: the tests of each pair, and the accuracy in each group."""

import numpy as np

from pipeline.comparison.pairwise_tests import PairTests
from pipeline.comparison.per_group import GroupScores, score_groups
from pipeline.comparison.predictions import Predictions
from pipeline.comparison.recommendation import Verdict, rule_text
from pipeline.comparison.report_data import ReportData
from pipeline.comparison.verdict import Outcome, Pair, p_text, rope_text
from pipeline.evaluation.bootstrap import Difference
from pipeline.evaluation.significance import EXACT_UNITS, FLIP_DRAWS
from pipeline.markup.document import Block, Bullets, EmptySection, Section, Table, Text
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

GROUP_ROWS = 40
"""Groups in the report's table; per_group.csv holds all."""

ABOUT_BLOCKS = (
    "Tiles are dealt into 10,000 blocks by a hash of their names, and blocks are drawn: intervals over single tiles "
    "have the same width to 0.7 % (a standard deviation), a quarter of what 2000 draws leave open."
)
"""What replaces the bootstrap of single tiles for a very large number of tiles."""


def section(data: ReportData) -> Section:
    """Return every pair of main heads with all its tests, and what each of them assumes."""
    title, verdict = "Statistics of the differences", data.verdict
    if not verdict.asked:
        return Section(title, [Text("Fewer than two heads were evaluated: there is no pair to compare.")])
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
    n_tiles = data.predictions.n_tiles(data.predictions.rows("test"))
    basis = (
        f"First head less second, {count(n_tiles, 'test tile')}; the verdict is on the first and rests on "
        f"{count(verdict.n_units, verdict.unit)}."
    )
    families = {"The pairs that the recommendation rests on.": verdict.asked}
    if verdict.pairs and verdict.pairs is not verdict.asked:
        families["All pairs of heads, p adjusted for these pairs alone."] = verdict.pairs
    tables = [
        Table(head, [_pair_row(pair) for pair in pairs], f"{data.bias_note}{which} {basis}")
        for which, pairs in families.items()
    ]
    return Section(
        title, [Text(_headline(verdict.asked)), Text(rule_text(verdict)), *tables, Bullets(_assumptions(data))]
    )


def _headline(pairs: list[Pair]) -> str:
    """Return the number of pairs with each outcome."""
    n = {outcome: sum(pair.outcome == outcome for pair in pairs) for outcome in OUTCOMES}
    decided = n["better"] + n["worse"]
    return (
        f"{decided} of {count(len(pairs), 'pair')} {'differs' if decided == 1 else 'differ'} beyond chance, "
        f"{n['practically equal']} practically equal, {n['undecided']} undecided."
    )


OUTCOMES: tuple[Outcome, ...] = ("better", "worse", "practically equal", "undecided")


def _pair_row(pair: Pair) -> list[str]:
    tests = pair.tests
    probable = tests.superiority
    return [
        f"{head_name(tests.head)} - {head_name(tests.reference)}",
        points(tests.difference.value),
        _bounds(tests.by_group),
        _bounds(tests.by_tile),
        f"{p_text(tests.flip.p)} ({p_text(pair.holm_p)})",
        p_text(tests.mcnemar_p),
        p_text(tests.resampled.p),
        " / ".join(number(share, 2) for share in (probable.better, probable.equal, probable.worse)),
        pair.outcome,
    ]


def _bounds(difference: Difference | None) -> str:
    if difference is None or not is_number(difference.low):
        return NOT_AVAILABLE
    return f"{points(difference.low)} to {points(difference.high)}"


def _assumptions(data: ReportData) -> list[str]:
    """Return for each column what it assumes and where it fails."""
    verdict, predictions = data.verdict, data.predictions
    unit, tests = verdict.unit, [pair.tests for pair in verdict.asked]
    return [
        _about_groups(predictions, tests),
        (
            "Interval over tiles: assumes that tiles are independent. Tiles of one slide or patient are not, and then "
            "it is too narrow for a new source." + (f" {ABOUT_BLOCKS}" if predictions.tile_unit == "block" else "")
        ),
        _about_flips(unit, tests),
        (
            "McNemar p: exact, on accuracy, not macro-F1; assumes that tiles are independent, so that it is "
            "exploratory where groups matter." + _about_seeds(predictions)
        ),
        _about_parts(verdict, tests),
        (
            f"P(better / equal / worse): share of Bayesian-bootstrap draws over {unit}s in which the first head is "
            f"more than {rope_text(verdict.rope)} ahead, within that, or more than that behind. It knows only these "
            f"{unit}s; with few of them it is too certain. It decides nothing here."
        ),
        (
            "Practically equal is a claim at the level of each single pair, not adjusted for their number. All columns "
            "but Nadeau-Bengio compare these trained heads, not the ways to train them"
            + (": the seeds are pooled, and no interval shows how they differ." if _n_seeds(predictions) > 1 else ".")
        ),
    ]


def _about_groups(predictions: Predictions, tests: list[PairTests]) -> str:
    by_group = tests[0].by_group
    if by_group is None:
        return "Interval over groups: n/a, because groups (slides, patients) are not known."
    if by_group.n_units < 2:
        return "Interval over groups: n/a, because the test rows come from one group."
    random = (
        " The split was random, so that the network was trained on these groups too: no interval here holds for a new "
        "group, and the verdict rests on tiles."
        if predictions.protocol == "random"
        else ""
    )
    return (
        f"Interval over groups: percentile bootstrap of whole groups ({by_group.n_units}), widened for few groups "
        "(Hesterberg 2015); assumes that the groups are a random sample of future groups. In simulations of clustered "
        "tiles, 95 % intervals from 6 groups on held the truth in 90 to 96 % of cases, the less so the more one group "
        f"holds of all tiles; below 6 it is too narrow.{random}"
    )


def _about_flips(unit: str, tests: list[PairTests]) -> str:
    is_sampled = any(not each.flip.exact for each in tests)
    how = (
        f"all swaps were tried if at most {EXACT_UNITS} {unit}s differ, else {FLIP_DRAWS} random ones"
        if is_sampled
        else "exact, all swaps were tried"
    )
    return (
        f"Sign-flip p: how often a swap of the two heads' predictions in whole {unit}s gives so large a difference of "
        f"macro-F1 ({how}); in parentheses adjusted for {count(len(tests), 'pair')} (Holm). It assumes that the "
        f"{unit}s are independent, and that the heads are interchangeable in each if neither is better."
    )


def _about_seeds(predictions: Predictions) -> str:
    n_seeds = _n_seeds(predictions)
    return f" The largest p of {n_seeds} seeds is shown." if n_seeds > 1 else ""


def _n_seeds(predictions: Predictions) -> int:
    return len(np.unique(predictions.tiles["seed"].to_numpy()[predictions.rows("test")]))


def _about_parts(verdict: Verdict, tests: list[PairTests]) -> str:
    n_parts = tests[0].resampled.n_parts
    if n_parts < 2:
        return "Nadeau-Bengio p: n/a, because there is one part (one seed, one fold)."
    if verdict.n_train is None:
        return "Nadeau-Bengio p: n/a, because the number of training tiles is not known."
    undefined = [each for each in tests if not is_number(each.resampled.p)]
    without = " n/a if all parts differ by the same amount." if undefined else ""
    return (
        f"Nadeau-Bengio p: t over {n_parts} parts (seed, fold), corrected for the training tiles that they share; it "
        "compares the ways to train, on data of this size. Its correction is a rule of thumb, and macro-F1 of a part "
        f"omits the classes that are absent from it.{without}"
    )


def per_group(data: ReportData) -> Section | EmptySection:
    """Return the accuracy of every main head in every test group, and in how many groups each head is ahead."""
    title, predictions = "Group by group", data.predictions
    if not predictions.groups_known:
        return EmptySection(title, "Groups (slides, patients) are not known.")
    heads, groups = predictions.main_heads, score_groups(predictions)
    order = np.argsort(-groups.n_tiles, kind="stable")
    rows = [
        [groups.names[i], str(groups.n_tiles[i]), *(number(groups.accuracy[head][i]) for head in heads)]
        for i in order[:GROUP_ROWS]
    ]
    best = data.best_head
    low, high = groups.accuracy[best].min(), groups.accuracy[best].max()
    headline = (
        f"Accuracy of {head_name(best)} is {number(low)} to {number(high)} over {count(len(order), 'test group')}."
    )
    n_seeds = _n_seeds(predictions)
    pooled = f", {n_seeds} seeds pooled" if n_seeds > 1 else ""
    caption = (
        f"{data.bias_note}Accuracy on the test tiles of each group{pooled}, largest group first. Accuracy, because a "
        "group seldom holds all classes, and macro-F1 over other classes in each group cannot be compared; in groups "
        "of few tiles it varies by chance."
    )
    blocks: list[Block] = [Text(headline), Table(["group", "tiles", *map(head_name, heads)], rows, caption)]
    if len(order) > GROUP_ROWS:
        blocks.append(Text(f"{count(len(order) - GROUP_ROWS, 'more group')} in per_group.csv."))
    largest = int(order[0])
    share = percent(groups.n_tiles[largest] / groups.n_tiles.sum())
    wins = [_wins(pair, groups) for pair in data.verdict.pairs]
    blocks.append(Bullets([*wins, f"The largest group, {groups.names[largest]}, holds {share} of the test tiles."]))
    return Section(title, blocks)


def _wins(pair: Pair, groups: GroupScores) -> str:
    """Return in how many groups each head of a pair is ahead, and whether that disagrees with the pooled scores."""
    head, reference = pair.tests.head, pair.tests.reference
    a, b = groups.accuracy[head], groups.accuracy[reference]
    won, lost, n = int((a > b).sum()), int((a < b).sum()), len(a)
    pooled = {"accuracy": groups.pooled[head] - groups.pooled[reference], "macro-F1": pair.tests.difference.value}
    against = [name for name, difference in pooled.items() if difference * (won - lost) < 0]
    disagree = (
        f" The count of groups and the pooled {' and '.join(against)} disagree: large groups, and rare classes in "
        "macro-F1, have more weight in the pooled score."
        if against
        else ""
    )
    return (
        f"{head_name(head)} is ahead of {head_name(reference)} in {won} of {count(n, 'group')}, behind in {lost}, "
        f"level in {n - won - lost}; pooled difference {points(pooled['accuracy'])} points of accuracy, "
        f"{points(pooled['macro-F1'])} of macro-F1.{disagree}"
    )
