"""Decide which head is best on the test rows, and whether the difference means anything.

The rule for each pair of main heads, on macro-F1 (`decide`): practically equal if the whole interval of the difference
is within the region of practical equivalence; better or worse if the sign-flip p, adjusted for the number of pairs, is
below 1 - level and the interval excludes 0; undecided otherwise, and always with too few units.
"""

import dataclasses
import itertools
import math
from typing import Literal

import numpy as np

from pipeline.comparison.pairwise_tests import METRIC, PairTests, compare_pair
from pipeline.comparison.predictions import Predictions
from pipeline.comparison.scores import FEW_UNITS, Resampling, Score
from pipeline.evaluation.bayesian_bootstrap import ROPE
from pipeline.evaluation.bootstrap import Difference
from pipeline.evaluation.significance import holm
from pipeline.markup.number_format import count, head_name, is_number, level_text, listing, number, points

REFERENCE = "softmax"
"""The network's own head. It needs no second model, so another head must be better to be worth one."""

Outcome = Literal["better", "worse", "practically equal", "undecided"]

Code = Literal["no_head", "one_head", "too_few_units", "switch", "keep", "equal", "undecided"]
"""no_head, one_head: nothing to compare. too_few_units: nothing is decided. switch: a head is better than softmax, or
than the next head where softmax was not evaluated. keep: softmax is better than all others. equal: the heads are
practically equal to softmax (or the best two to each other). undecided: no head is shown to be better."""


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two main heads on the same test rows, and the decision."""

    tests: PairTests
    holm_p: float
    """The sign-flip p, adjusted for the number of pairs."""

    outcome: Outcome
    """Of `tests.head` compared with `tests.reference`."""

    sentence: str


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The comparison in words and numbers."""

    code: Code
    recommended: str | None
    """The head to use; None if none can be recommended."""

    best: str
    """The head with the highest macro-F1."""

    action: str
    """The one sentence a reader can act on."""

    sentences: list[str]
    """Which head is best, then one sentence for each pair."""

    pairs: list[Pair]
    """Every pair of main heads once: each against softmax first."""

    unit: Literal["group", "tile", "block"]
    """What the verdict rests on."""

    n_units: int
    """Number of groups or tiles that the test rows come from."""

    level: float
    rope: float
    n_train: float | None
    """Mean number of training tiles of a part; None where it is not known."""


def judge(
    predictions: Predictions,
    scores: dict[tuple[str, str, str], Score],
    resampling: Resampling,
    *,
    rope: float = ROPE,
    n_train: float | None = None,
) -> Verdict:
    """Return the verdict on the test rows.

    Args:
        predictions: of all heads.
        scores: as `scores.by_key` returns them.
        resampling: units and size of the bootstrap of the paired differences.
        rope: differences of at most this much macro-F1 do not matter.
        n_train: mean number of training tiles of a part (seed, fold), for the corrected resampled t.
    """
    n_units = resampling.n_units(predictions.rows("test"))
    heads = predictions.main_heads
    value = {head: scores[head, "test", METRIC].value for head in heads or predictions.heads}
    ranked = sorted(value, key=lambda head: -value[head])  # stable: equal heads in the file's order
    names = listing([head_name(head) for head in ranked if value[head] == value[ranked[0]]])
    ranking = f"Highest macro-F1 on the test rows: {names} ({number(value[ranked[0]])})."
    tests = [
        compare_pair(predictions, resampling, head=head, reference=reference, rope=rope, n_train=n_train)
        for head, reference in _in_order(heads)
    ]
    adjusted = holm(np.array([each.flip.p for each in tests]))
    # the adjusted p of the clearest pair if every pair were as clear as its units allow
    smallest = len(tests) * min((each.flip.smallest_p for each in tests), default=1.0)
    pairs = []
    for each, p in zip(tests, adjusted.tolist(), strict=True):
        outcome = decide(
            each.difference, p=p, level=resampling.level, rope=rope, same_predictions=each.same_predictions
        )
        smallest_p = min(1.0, max(smallest, each.flip.smallest_p))
        test = f"sign-flip p {p_text(p)}" + (" after Holm" if len(tests) > 1 else "")
        if outcome == "undecided" and smallest_p >= _alpha(resampling.level):
            test += f", and no smaller one than {p_text(smallest_p)} was possible"
        sentence = _sentence(each, outcome, test=test, resampling=resampling, rope=rope)
        pairs.append(Pair(each, p, outcome, sentence))
    code, recommended, action = _action(ranked if heads else [], pairs, units=count(n_units, resampling.unit))
    return Verdict(
        code=code,
        recommended=recommended,
        best=ranked[0],
        action=action,
        sentences=[ranking, *(pair.sentence for pair in pairs)],
        pairs=pairs,
        unit=resampling.unit,
        n_units=n_units,
        level=resampling.level,
        rope=rope,
        n_train=n_train,
    )


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


def rule_text(verdict: Verdict) -> str:
    """Return the rule of `decide` in plain words, with the numbers it was used with."""
    unit, level, alpha = verdict.unit, level_text(verdict.level), _alpha(verdict.level)
    return (
        f"The rule was fixed beforehand. With fewer than {FEW_UNITS} {unit}s nothing is decided (the smallest "
        f"two-sided sign-flip p of five is 0.0625). Two heads are practically equal if the whole {level} interval of "
        f"their difference is within {rope_text(verdict.rope)} either way, or if they predict the same class for every "
        "tile. "
        f"A head is better or worse if the sign-flip p over {unit}s, adjusted for the number of pairs (Holm), is below "
        f"{alpha:.3g} and the interval excludes 0. All else is undecided, which does not mean equal."
    )


def rope_text(rope: float) -> str:
    """Return a difference of macro-F1 that does not matter, e.g. "1 point"."""
    return f"{100 * rope:.4g} point{'' if math.isclose(rope, 0.01) else 's'}"


def p_text(p: float) -> str:
    """Return a p-value with three decimals, "<0.001" below them, "n/a" where it is undefined."""
    return "<0.001" if is_number(p) and p < 0.001 else number(p)


def _alpha(level: float) -> float:
    """Return 1 - level without the rounding that would put 0.05 below 1 - 0.95."""
    return round(1 - level, 12)


def _in_order(heads: list[str]) -> list[tuple[str, str]]:
    """Return every pair once as (head, reference); softmax is always the reference, whatever the scores are."""
    ordered = sorted(heads, key=lambda head: head != REFERENCE)
    return [(head, reference) for reference, head in itertools.combinations(ordered, 2)]


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
        return f"{undecided} ({interval}), but {units} are too few to conclude anything; {FEW_UNITS} are needed."
    basis = f"({interval}; {test}; {units})"
    if outcome == "undecided":
        return f"{undecided} {basis}."
    if outcome == "practically equal":
        within = f"the whole interval within {rope_text(rope)} either way"
        return f"{head} and {reference} are practically equal: difference {_gain(difference)}, {within} {basis}."
    return f"{head} is {outcome} than {reference}: difference {_gain(difference)} {basis}."


def _action(ranked: list[str], pairs: list[Pair], *, units: str) -> tuple[Code, str | None, str]:
    """Return the code, the head to use and the sentence to act on: keep softmax unless a head is better.

    Args:
        ranked: main heads, the one with the highest macro-F1 first.
        pairs: all pairs of them.
        units: number of units as text.
    """
    if not ranked:
        return "no_head", None, "Only baselines were evaluated: there is no head to choose."
    if len(ranked) == 1:
        return "one_head", ranked[0], f"Only {head_name(ranked[0])} was evaluated: there is no other head to choose."
    keep = f"{head_name(REFERENCE)}, which needs no second model" if REFERENCE in ranked else ""
    if pairs[0].tests.difference.n_units < FEW_UNITS:
        rest = f"; keep {keep}" if keep else ""
        return "too_few_units", REFERENCE if keep else None, f"No choice can be based on {units} of test rows{rest}."
    if not keep:
        return _action_without_softmax(ranked, pairs)
    against = {pair.tests.head: pair for pair in pairs if pair.tests.reference == REFERENCE}
    for head in ranked:  # best first
        if head in against and against[head].outcome == "better":
            difference = against[head].tests.difference
            gain = f"{head_name(head)} gains {_gain(difference)} ({_interval(difference)})"
            action = f"{gain} over {head_name(REFERENCE)}: use it if that is worth a second model file."
            return "switch", head, action
    outcomes = {pair.outcome for pair in against.values()}
    others = listing([head_name(head) for head in against])
    if outcomes == {"worse"}:
        return "keep", REFERENCE, f"Use {head_name(REFERENCE)}: it is better than {others}."
    if outcomes == {"practically equal"}:
        verb = "is" if len(against) == 1 else "are"
        return "equal", REFERENCE, f"Use {keep}: {others} {verb} practically equal to it."
    nothing = "the other head is" if len(against) == 1 else "the other heads are"
    return "undecided", REFERENCE, f"Use {keep}: {nothing} not shown to be better."


def _action_without_softmax(ranked: list[str], pairs: list[Pair]) -> tuple[Code, str | None, str]:
    """Return what `_action` does where every head needs a second model."""
    top = next(pair for pair in pairs if {pair.tests.head, pair.tests.reference} == set(ranked[:2]))
    best, second = map(head_name, ranked[:2])
    if top.outcome in ("better", "worse"):
        gain = abs(top.tests.difference.value)
        return "switch", ranked[0], f"Use {best}: it is better than {second} by {points(gain)} points of macro-F1."
    code: Code = "equal" if top.outcome == "practically equal" else "undecided"
    how = "practically equal" if code == "equal" else "not distinguishable"
    return code, None, f"The two best heads are {how} on these rows: choose the one that is easier to maintain."
