"""Decide which head or baseline to use, and whether the differences on the test rows mean anything.

The rule for each pair, on macro-F1 (`decide`): practically equal if the whole interval of the difference is within the
region of practical equivalence; better or worse if the sign-flip p, adjusted for the number of pairs, is below
1 - level and the interval excludes 0; undecided otherwise, and always with too few units. `recommendation` chooses by
these outcomes.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from pipeline.comparison.pairwise_tests import PairTests, compare_pair
from pipeline.comparison.predictions import Predictions
from pipeline.comparison.scores import FEW_UNITS, Resampling
from pipeline.evaluation.bayesian_bootstrap import ROPE
from pipeline.evaluation.bootstrap import Difference
from pipeline.evaluation.significance import holm
from pipeline.markup.number_format import count, head_name, is_number, level_text, number, points
from pipeline.names import REFERENCES

Outcome = Literal["better", "worse", "practically equal", "undecided"]


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two heads on the same test rows, and the decision."""

    tests: PairTests
    holm_p: float
    """The sign-flip p, adjusted for the number of pairs."""

    outcome: Outcome
    """Of `tests.head` compared with `tests.reference`."""

    sentence: str

    @property
    def head(self) -> str:
        """The head that is compared."""
        return self.tests.head

    @property
    def reference(self) -> str:
        """The head that it is compared with."""
        return self.tests.reference

    @property
    def difference(self) -> Difference:
        """Macro-F1 of `head` less that of `reference`."""
        return self.tests.difference


def judge_pairs(
    predictions: Predictions,
    resampling: Resampling,
    pairs: Sequence[tuple[str, str]],
    *,
    rope: float = ROPE,
    n_train: float | None = None,
) -> list[Pair]:
    """Return the decision for each pair (head, reference); p-values are adjusted for the number of these pairs.

    Args:
        predictions: of all heads.
        resampling: units and size of the bootstrap of the paired differences.
        pairs: names of heads.
        rope: differences of at most this much macro-F1 do not matter.
        n_train: mean number of training tiles of a part (seed, fold), for the corrected resampled t.
    """
    tests = [
        compare_pair(predictions, resampling, head=head, reference=reference, rope=rope, n_train=n_train)
        for head, reference in pairs
    ]
    adjusted = holm(np.array([each.flip.p for each in tests]))
    # the adjusted p of the clearest pair if every pair were as clear as its units allow
    smallest = len(tests) * min((each.flip.smallest_p for each in tests), default=1.0)
    judged = []
    for each, p in zip(tests, adjusted.tolist(), strict=True):
        outcome = decide(
            each.difference, p=p, level=resampling.level, rope=rope, same_predictions=each.same_predictions
        )
        smallest_p = min(1.0, max(smallest, each.flip.smallest_p))
        test = f"sign-flip p {p_text(p)}" + (" after Holm" if len(tests) > 1 else "")
        if outcome == "undecided" and smallest_p >= _alpha(resampling.level):
            test += f", and no smaller one than {p_text(smallest_p)} was possible"
        judged.append(Pair(each, p, outcome, _sentence(each, outcome, test=test, resampling=resampling, rope=rope)))
    return judged


def head_pairs(heads: Sequence[str]) -> list[tuple[str, str]]:
    """Return every pair once as (head, reference); the head of `REFERENCES` is one, whatever the scores are."""
    ordered = sorted(heads, key=lambda head: head not in REFERENCES)
    return [(head, reference) for reference, head in itertools.combinations(ordered, 2)]


def decide(difference: Difference, *, p: float, level: float, rope: float, same_predictions: bool = False) -> Outcome:
    """Return the outcome for the difference of a metric between a head and another one.

    Fewer than `FEW_UNITS` units decide nothing. Equal predictions for every tile are practically equal. A
    difference that is significant but certainly small is practically equal.

    Args:
        difference: with its interval of coverage `level`.
        p: of the sign-flip over the same units, adjusted for the number of pairs.
        level: coverage of the interval; `p` must be below 1 - level.
        rope: differences of at most this size do not matter.
        same_predictions: whether both heads predict the same class for every tile.
    """
    if difference.n_units < FEW_UNITS:
        return "undecided"
    if same_predictions:
        return "practically equal"
    if -rope <= difference.low and difference.high <= rope:
        return "practically equal"
    if p < _alpha(level) and difference.low > 0:
        return "better"
    if p < _alpha(level) and difference.high < 0:
        return "worse"
    return "undecided"


def units_needed(n_pairs: int, *, level: float) -> int:
    """Return the fewest units with which so many pairs can be decided.

    The smallest two-sided sign-flip p of n units is 2^(1 - n), and Holm multiplies it by the number of pairs.
    """
    return max(FEW_UNITS, math.floor(math.log2(max(1, n_pairs) / _alpha(level))) + 2)


def rope_text(rope: float) -> str:
    """Return a difference of macro-F1 that does not matter, e.g. "1 point"."""
    return f"{100 * rope:.4g} point{'' if math.isclose(rope, 0.01) else 's'}"


def p_text(p: float) -> str:
    """Return a p-value with three decimals, "<0.001" below them, "n/a" where it is undefined."""
    return "<0.001" if is_number(p) and p < 0.001 else number(p)


def gain_text(difference: Difference) -> str:
    """Return a difference with its interval, e.g. "1.2 points of macro-F1 (0.3 to 2.0)"."""
    return f"{_gain(difference)} ({_interval(difference)})"


def _alpha(level: float) -> float:
    """Return 1 - level without the rounding that would put 0.05 below 1 - 0.95."""
    return round(1 - level, 12)


def _gain(difference: Difference) -> str:
    return f"{points(difference.value)} points of macro-F1"


def _interval(difference: Difference) -> str:
    return f"{points(difference.low)} to {points(difference.high)}"


def _sentence(tests: PairTests, outcome: Outcome, *, test: str, resampling: Resampling, rope: float) -> str:
    """Return one sentence: whether the difference of a pair means anything, and on how many units that rests."""
    difference = tests.difference
    head, reference = head_name(tests.head), head_name(tests.reference)
    units = count(difference.n_units, resampling.unit)
    if tests.same_predictions:
        if difference.n_units < FEW_UNITS:
            same = f"{head} and {reference} predict the same class for every test tile"
            return f"{same}, but {units} are too few to conclude anything."
        return f"{head} and {reference} are practically equal: the same prediction for every test tile ({units})."
    undecided = f"Undecided whether {head} is better than {reference}: difference {_gain(difference)}"
    if not is_number(difference.low):
        return f"{undecided}, but the test rows come from {units}: there is no interval and nothing to conclude."
    interval = f"{level_text(resampling.level)} interval {_interval(difference)}"
    if difference.n_units < FEW_UNITS:
        return f"{undecided} ({interval}), but {units} are too few to conclude anything."
    basis = f"({interval}; {test}; {units})"
    if outcome == "undecided":
        return f"{undecided} {basis}."
    if outcome == "practically equal":
        within = f"the whole interval within {rope_text(rope)} either way"
        return f"{head} and {reference} are practically equal: difference {_gain(difference)}, {within} {basis}."
    return f"{head} is {outcome} than {reference}: difference {_gain(difference)} {basis}."
