"""Which head is best on the test rows, and whether the difference means anything, in plain sentences.

The rule, for each pair of main heads, on macro-F1 (`decide`): practically equal where the whole interval of the
difference lies within the region of practical equivalence; better or worse where the sign-flip p, adjusted for the
number of pairs, is below 1 - level and the interval excludes 0; undecided otherwise, and always with too few units.
"""

import dataclasses
import itertools
import math
from typing import Literal

import numpy as np

from pipeline.comparison.pairwise_tests import METRIC, Evidence, gather
from pipeline.comparison.predictions import Predictions
from pipeline.comparison.scores import Resampling, Score
from pipeline.evaluation.bayesian_bootstrap import ROPE
from pipeline.evaluation.bootstrap import Difference
from pipeline.evaluation.significance import holm
from pipeline.markup.number_format import count, head_name, is_number, level_text, listing, number, points

FEW_UNITS = 6
"""Below this nothing is decided: with five groups the smallest two-sided sign-flip p is 0.0625."""

BASELINE = "softmax"
"""The network's own output: needs no second model, so another head must show a gain to be worth it."""

Outcome = Literal["better", "worse", "practically equal", "undecided"]


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two main heads on the same test rows, judged."""

    evidence: Evidence
    holm_p: float
    """The sign-flip p, adjusted for the number of pairs."""

    outcome: Outcome
    """What `evidence.head` is beside `evidence.reference`."""

    sentence: str


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The comparison in words and figures."""

    best: str
    action: str
    """The one sentence a reader can act on."""

    sentences: list[str]
    """Which head is best, then one sentence for each pair."""

    pairs: list[Pair]
    """Every pair of main heads once: each against softmax first."""

    unit: Literal["group", "tile", "block"]
    """What the verdict rests on."""

    n_units: int
    """How many of them the test rows come from."""

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
        predictions: what the heads say.
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
    evidences = [
        gather(predictions, resampling, head=head, reference=reference, rope=rope, n_train=n_train)
        for head, reference in _in_order(heads)
    ]
    adjusted = holm(np.array([evidence.flip.p for evidence in evidences]))
    # What Holm's adjustment makes of the smallest p of all, were every pair as clear as its units allow.
    baseline = len(evidences) * min((evidence.flip.smallest_p for evidence in evidences), default=1.0)
    pairs = []
    for evidence, p in zip(evidences, adjusted.tolist(), strict=True):
        outcome = decide(
            evidence.difference, p=p, level=resampling.level, rope=rope, same_answers=evidence.same_answers
        )
        smallest_p = min(1.0, max(baseline, evidence.flip.smallest_p))
        test = f"sign-flip p {p_text(p)}" + (" after Holm" if len(evidences) > 1 else "")
        if outcome == "undecided" and smallest_p >= _alpha(resampling.level):
            test += f", and no smaller one than {p_text(smallest_p)} was possible"
        sentence = _sentence(evidence, outcome, test=test, resampling=resampling, rope=rope)
        pairs.append(Pair(evidence, p, outcome, sentence))
    return Verdict(
        best=ranked[0],
        action=_action(heads, ranked, pairs, resampling=resampling, n_units=n_units),
        sentences=[ranking, *(pair.sentence for pair in pairs)],
        pairs=pairs,
        unit=resampling.unit,
        n_units=n_units,
        level=resampling.level,
        rope=rope,
        n_train=n_train,
    )


def decide(difference: Difference, *, p: float, level: float, rope: float, same_answers: bool = False) -> Outcome:
    """Return the outcome for a head whose metric, less that of another head, is `difference`.

    Fewer than `FEW_UNITS` units decide nothing. Equal answers on every tile are practically equal. A
    difference that is both significant and surely small is practically equal.

    Args:
        difference: with its interval of coverage `level`.
        p: of the sign-flip over the same units, adjusted for the number of pairs.
        level: coverage of the interval; `p` must be below 1 - level.
        rope: differences of at most this size do not matter.
        same_answers: whether both heads say the same of every tile.
    """
    if difference.n_units < FEW_UNITS:
        return "undecided"
    if same_answers:
        return "practically equal"
    if -rope <= difference.low and difference.high <= rope:
        return "practically equal"
    if p < _alpha(level) and difference.low > 0:
        return "better"
    if p < _alpha(level) and difference.high < 0:
        return "worse"
    return "undecided"


def rule_text(verdict: Verdict) -> str:
    """Return the rule of `decide` in plain words, with the figures it was used with."""
    unit, level, alpha = verdict.unit, level_text(verdict.level), _alpha(verdict.level)
    return (
        f"The rule, fixed beforehand: with fewer than {FEW_UNITS} {unit}s nothing is decided (with five the smallest "
        f"two-sided sign-flip p is 0.0625). Two heads are practically equal where the whole {level} interval of their "
        f"difference lies within {rope_text(verdict.rope)} either way, or where they say the same of every tile. One "
        f"is better or worse where the sign-flip p over {unit}s, adjusted for the number of pairs (Holm), is below "
        f"{alpha:.3g} and the interval excludes 0. All else is undecided, which is not the same as equal."
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
    """Return every pair once as (head, reference); softmax is always the reference, whatever the scores say."""
    ordered = sorted(heads, key=lambda head: head != BASELINE)
    return [(head, reference) for reference, head in itertools.combinations(ordered, 2)]


def _gain(difference: Difference) -> str:
    return f"{points(difference.value)} points of macro-F1"


def _interval(difference: Difference) -> str:
    return f"{points(difference.low)} to {points(difference.high)}"


def _sentence(evidence: Evidence, outcome: Outcome, *, test: str, resampling: Resampling, rope: float) -> str:
    """Return one sentence: does the difference of a pair mean anything, and on how many units does that rest."""
    difference = evidence.difference
    head, reference = head_name(evidence.head), head_name(evidence.reference)
    units = count(difference.n_units, resampling.unit)
    if evidence.same_answers:
        if difference.n_units < FEW_UNITS:
            same = f"{head} and {reference} give the same answer on every test tile"
            return f"{same}, but {units} are too few to conclude anything."
        return f"{head} and {reference} are practically equal: the same answer on every test tile ({units})."
    undecided = f"Whether {head} is better than {reference} is undecided: difference {_gain(difference)}"
    if not is_number(difference.low):
        return f"{undecided}, but the test rows come from {units}, so there is no interval and nothing to conclude."
    interval = f"{level_text(resampling.level)} interval {_interval(difference)}"
    if difference.n_units < FEW_UNITS:
        return f"{undecided} ({interval}), but {units} are too few to conclude anything; {FEW_UNITS} are the least."
    basis = f"({interval}; {test}; {units})"
    if outcome == "undecided":
        return f"{undecided} {basis}."
    if outcome == "practically equal":
        within = f"the whole interval within {rope_text(rope)} either way"
        return f"{head} and {reference} are practically equal: difference {_gain(difference)}, {within} {basis}."
    return f"{head} is {outcome} than {reference}: difference {_gain(difference)} {basis}."


def _action(heads: list[str], ranked: list[str], pairs: list[Pair], *, resampling: Resampling, n_units: int) -> str:
    """Return the sentence to act on: keep the baseline unless a head measurably beats it."""
    if not heads:
        return "No head was evaluated, only baselines under it: there is nothing to choose between."
    if len(heads) == 1:
        return f"Only {head_name(heads[0])} was evaluated: there is nothing to choose between."
    no_second = f"{head_name(BASELINE)}, which needs no second model" if BASELINE in heads else ""
    if n_units < FEW_UNITS:
        keep = f"; keep {no_second}" if no_second else ""
        return f"No choice can be founded on {count(n_units, resampling.unit)} of test rows{keep}."
    if not no_second:
        return _action_without_baseline(ranked, pairs)
    against = {pair.evidence.head: pair for pair in pairs if pair.evidence.reference == BASELINE}
    for head in ranked:  # best first
        if head in against and against[head].outcome == "better":
            difference = against[head].evidence.difference
            gain = f"{head_name(head)} gains {_gain(difference)} ({_interval(difference)})"
            return f"{gain} over {head_name(BASELINE)}: use it where that is worth a second model file."
    outcomes = {pair.outcome for pair in against.values()}
    others = listing([head_name(head) for head in against])
    if outcomes == {"worse"}:
        return f"Use {head_name(BASELINE)}: it is better than {others}."
    if outcomes == {"practically equal"}:
        return f"Use {no_second}: {others} {'is' if len(against) == 1 else 'are'} practically equal to it."
    nothing = "the other head gains" if len(against) == 1 else "the other heads gain"
    return f"Use {no_second}: {nothing} nothing measurable."


def _action_without_baseline(ranked: list[str], pairs: list[Pair]) -> str:
    """Return the sentence to act on where no head is free of a second model."""
    top = next(pair for pair in pairs if {pair.evidence.head, pair.evidence.reference} == set(ranked[:2]))
    best, second = map(head_name, ranked[:2])
    if top.outcome in ("better", "worse"):
        gain = abs(top.evidence.difference.value)
        return f"Use {best}: it is better than {second} by {points(gain)} points of macro-F1."
    how = "practically equal" if top.outcome == "practically equal" else "not distinguishable"
    return f"The two best heads are {how} on these rows: take the one that is easier to keep."
