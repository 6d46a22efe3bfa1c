"""Which head is best on the test rows, and whether the difference means anything, in plain sentences."""

import dataclasses
import itertools

import numpy as np

from pipeline.comparison.predictions import Predictions
from pipeline.comparison.scores import Resampling, Score
from pipeline.comparison.wording import count, head_name, is_number, level_text, listing, number, points
from pipeline.evaluation.intervals import Difference, paired_difference

METRIC = "macro_f1"
"""Decides which head is best: every class counts alike, however rare."""

FEW_UNITS = 5
"""Below this a percentile bootstrap has too few distinct resamples to conclude anything from."""

BASELINE = "softmax"
"""The network's own output: needs no second model, so another head must show a gain to be worth it."""


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two heads on the same test rows, the one with the higher macro-F1 first."""

    better: str
    other: str
    difference: Difference
    same_answers: bool
    """Whether both predict the same class for every test tile."""

    @property
    def distinguishable(self) -> bool:
        """Whether the interval excludes 0 and rests on enough units to be believed."""
        return self.excludes_zero and self.difference.n_units >= FEW_UNITS

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside the interval."""
        return self.difference.low > 0 or self.difference.high < 0


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The comparison in words."""

    best: str
    action: str
    """The one sentence a reader can act on."""

    sentences: list[str]
    """Which head is best, then one sentence for each pair."""


def judge(predictions: Predictions, scores: dict[tuple[str, str, str], Score], resampling: Resampling) -> Verdict:
    """Return the verdict on the test rows.

    Args:
        predictions: what the heads say.
        scores: as `scores.by_key` returns them.
        resampling: units and size of the bootstrap of the paired differences.
    """
    rows = predictions.rows("test")
    value = {head: scores[head, "test", METRIC].value for head in predictions.heads}
    ranked = sorted(predictions.heads, key=lambda head: -value[head])  # stable: equal heads in the file's order
    pairs = []
    for better, other in itertools.combinations(ranked, 2):
        predicted = predictions.predicted[better][rows], predictions.predicted[other][rows]
        difference = paired_difference(
            predictions.y[rows],
            *predicted,
            metric=METRIC,
            units=resampling.ids[rows],
            n_draws=resampling.n_draws,
            seed=resampling.seed,
            level=resampling.level,
        )
        pairs.append(Pair(better, other, difference, same_answers=bool(np.array_equal(*predicted))))
    n_units = resampling.n_units(rows)
    best = [head for head in ranked if value[head] == value[ranked[0]]]
    names = listing([head_name(head) for head in best])
    ranking = f"Highest macro-F1 on the test rows: {names} ({number(value[best[0]])})."
    action = _action(predictions.heads, pairs, resampling=resampling, n_units=n_units)
    return Verdict(best[0], action, [ranking, *(_sentence(pair, resampling) for pair in pairs)])


def _gain(pair: Pair) -> str:
    return f"{points(pair.difference.value)} points of macro-F1"


def _interval(pair: Pair) -> str:
    return f"{points(pair.difference.low)} to {points(pair.difference.high)}"


def _sentence(pair: Pair, resampling: Resampling) -> str:
    """Return one sentence: does the difference of a pair mean anything, and on how many units does that rest."""
    better, other, n_units = head_name(pair.better), head_name(pair.other), pair.difference.n_units
    units = count(n_units, resampling.unit)
    if pair.same_answers:
        return f"{better} and {other} give the same answer on every test tile."
    if not is_number(pair.difference.low):
        return (
            f"{better} is ahead of {other} by {_gain(pair)}; there is no interval (the test rows come from {units}), "
            "so nothing can be concluded."
        )
    basis = f" ({level_text(resampling.level)} interval {_interval(pair)}; {units})"
    few = f", but {units} are too few to conclude anything" if n_units < FEW_UNITS else ""
    if pair.excludes_zero:
        verb = "is ahead of" if few else "is better than"
        return f"{better} {verb} {other} by {_gain(pair)}{basis}{few}."
    few = few.replace("but", "and")
    return f"{better} and {other} are not distinguishable on these rows: difference {_gain(pair)}{basis}{few}."


def _action(heads: list[str], pairs: list[Pair], *, resampling: Resampling, n_units: int) -> str:
    """Return the sentence to act on: keep the baseline unless a head measurably beats it."""
    if len(heads) == 1:
        return f"Only {head_name(heads[0])} was evaluated: there is nothing to choose between."
    if n_units < FEW_UNITS:
        keep = f"; keep {head_name(BASELINE)}, which needs no second model" if BASELINE in heads else ""
        return f"No choice can be founded on {count(n_units, resampling.unit)} of test rows{keep}."
    if BASELINE not in heads:
        top = pairs[0]
        if top.distinguishable:
            return f"Use {head_name(top.better)}: it gains {_gain(top)} ({_interval(top)}) over {head_name(top.other)}."
        return "The two best heads are not distinguishable on these rows: take the one that is easier to keep."
    for pair in pairs:  # best head first
        if pair.other == BASELINE and pair.distinguishable:
            gain = f"{head_name(pair.better)} gains {_gain(pair)} ({_interval(pair)})"
            return f"{gain} over {head_name(BASELINE)}: use it where that is worth a second model file."
    beaten = [pair.other for pair in pairs if pair.better == BASELINE and pair.distinguishable]
    if len(beaten) == len(heads) - 1:
        return f"Use {head_name(BASELINE)}: it is better than {listing([head_name(head) for head in beaten])}."
    others = "the other head gains" if len(heads) == 2 else "the other heads gain"
    return f"Use {head_name(BASELINE)}: {others} nothing measurable."
