"""Recommend the cheapest of all heads and baselines that is not worse than the best on the test rows.

A head is recommended only if it beats the best baseline that needs no training of a network. Every statement rests on
the outcomes of pairs that are fixed before (`asked_pairs`), each decided by the same rule (`verdict.decide`).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

from pipeline.comparison.pairwise_tests import METRIC
from pipeline.comparison.predictions import Predictions
from pipeline.comparison.scores import FEW_UNITS, Resampling, Score
from pipeline.comparison.verdict import Pair, gain_text, head_pairs, judge_pairs, rope_text, units_needed
from pipeline.evaluation.bayesian_bootstrap import ROPE
from pipeline.markup.number_format import count, head_name, level_text, listing, number
from pipeline.names import COST_ORDER, UNTRAINED

CHANCE = "majority"
"""The baseline that uses no tile. It is recommended only where no other baseline was fitted."""

NOT_EARNED = (
    "The network has not earned its place: more tiles, longer training or another encoder (--init, --encoder) may help."
)

Code = Literal["no_head", "one_candidate", "too_few_units", "baseline", "best", "cheaper", "proven"]
"""no_head, one_candidate: nothing to compare. too_few_units: nothing can be decided. baseline: no head is better than
the best baseline. best: the recommended head has the highest macro-F1. cheaper: it is not worse than that one. proven:
it is better than the best baseline, which the one with the highest macro-F1 is not shown to be."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The comparison in words and numbers."""

    code: Code
    recommended: str | None
    """The head or baseline to use; None if none can be recommended."""

    best: str
    """The head or baseline with the highest macro-F1; the cheapest of equals."""

    baseline: str | None
    """The best baseline that needs no training of a network; None if there is none."""

    action: str
    """What to do, in one to three sentences; the first one is the answer."""

    ranking: str
    """Which head or baseline has the highest macro-F1."""

    asked: list[Pair]
    """The pairs that the recommendation rests on; p-values are adjusted for their number."""

    pairs: list[Pair]
    """Every pair of main heads once: each against the reference first; a family of its own for Holm."""

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
    scores: Mapping[tuple[str, str, str], Score],
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
    heads = predictions.main_heads
    value = {head: scores[head, "test", METRIC].value for head in predictions.heads}
    baseline = best_of(value, [head for head in UNTRAINED if head in value])
    compared = by_cost([head for head in value if head != CHANCE or baseline in (None, CHANCE)])
    best = best_of(value, compared) or CHANCE
    pairs = judge_pairs(predictions, resampling, head_pairs(heads), rope=rope, n_train=n_train)
    asked = pairs
    if heads and predictions.baselines:
        wanted = asked_pairs(compared, heads, best=best, baseline=baseline)
        asked = judge_pairs(predictions, resampling, wanted, rope=rope, n_train=n_train)
    names = listing([head_name(head) for head in compared if value[head] == value[best]])
    n_units = resampling.n_units(predictions.rows("test"))
    code: Code
    code, recommended, action = "no_head", None, "Only baselines were evaluated: there is no head to choose."
    if heads:
        code, recommended, action = _recommend(
            compared, heads, asked, best=best, baseline=baseline, value=value, n_units=n_units, resampling=resampling
        )
    return Verdict(
        code=code,
        recommended=recommended,
        best=best,
        baseline=baseline,
        action=action,
        ranking=f"Highest macro-F1 on the test rows: {names} ({number(value[best])}).",
        asked=asked,
        pairs=pairs,
        unit=resampling.unit,
        n_units=n_units,
        level=resampling.level,
        rope=rope,
        n_train=n_train,
    )


def by_cost(heads: Sequence[str]) -> list[str]:
    """Return heads in the order of their costs, the cheapest first; an unknown head comes last."""
    order = {head: i for i, head in enumerate(COST_ORDER)}
    return sorted(heads, key=lambda head: order.get(head, len(order)))


def best_of(value: Mapping[str, float], heads: Sequence[str]) -> str | None:
    """Return the head with the highest value, the cheapest of equals; None of no heads."""
    return max(by_cost(heads), key=lambda head: value[head], default=None)


def asked_pairs(
    compared: Sequence[str], heads: Sequence[str], *, best: str, baseline: str | None
) -> list[tuple[str, str]]:
    """Return the pairs (head, reference) that the recommendation rests on, each once.

    Args:
        compared: heads and baselines, the cheapest first.
        heads: the main heads.
        best: the one of `compared` with the highest macro-F1.
        baseline: the best baseline that needs no training of a network.
    """
    with_baseline = [(head, baseline) for head in dict.fromkeys([*heads, best]) if baseline not in (None, head)]
    cheaper = [(head, best) for head in compared[: compared.index(best)]]
    known = {frozenset(pair) for pair in with_baseline}
    return [*with_baseline, *(pair for pair in cheaper if frozenset(pair) not in known)]


def not_worse(head: str, best: str, pairs: Sequence[Pair]) -> bool:
    """Return whether a head is the best one, or its pair with the best one does not show that it is worse."""
    outcome = {(pair.tests.head, pair.tests.reference): pair.outcome for pair in pairs}
    return outcome.get((head, best)) != "worse" and outcome.get((best, head)) != "better"


def _recommend(
    compared: Sequence[str],
    heads: Sequence[str],
    asked: Sequence[Pair],
    *,
    best: str,
    baseline: str | None,
    value: Mapping[str, float],
    n_units: int,
    resampling: Resampling,
) -> tuple[Code, str | None, str]:
    """Return the code, what to use, and the sentences to act on."""
    units = count(n_units, resampling.unit)
    if len(compared) == 1:
        return "one_candidate", best, f"Only {head_name(best)} was evaluated: there is nothing to choose."
    needed = units_needed(len(asked), level=resampling.level)
    if n_units < needed:
        why = f"{needed} are needed for {count(len(asked), 'comparison')}"
        action = (
            f"No choice can be based on {units} of test rows: {why}. {head_name(best)} has the highest macro-F1. "
            f"Test more {resampling.unit}s: --protocol logo tests each group once, or label tiles of more groups."
        )
        return "too_few_units", None, action
    gap = {frozenset((pair.tests.head, pair.tests.reference)): pair.tests.difference for pair in asked}
    beating = [pair.tests.head for pair in asked if pair.tests.reference == baseline and pair.outcome == "better"]
    if baseline is not None and not beating:
        top = best_of(value, heads) or best
        chosen = next(head for head in compared if head in UNTRAINED and not_worse(head, best, asked))
        use = (
            "Use it" if chosen == baseline else f"Use {head_name(chosen)}, the cheapest that is not worse than the best"
        )
        action = (
            f"None of the heads beats {head_name(baseline)}: the best head, {head_name(top)}, differs from it by "
            f"{gain_text(gap[frozenset((top, baseline))])}. {NOT_EARNED} {use} ({units})."
        )
        return "baseline", chosen, action
    if baseline is not None and best not in beating:
        chosen = best_of(value, beating) or best
        action = (
            f"Use {head_name(chosen)}: it beats the best baseline, {head_name(baseline)}, by "
            f"{gain_text(gap[frozenset((chosen, baseline))])}. {head_name(best)} has the highest macro-F1, but is not "
            f"shown to beat that baseline ({units})."
        )
        return "proven", chosen, action
    pool = by_cost(beating) if baseline is not None else list(compared)
    chosen = next(head for head in pool if not_worse(head, best, asked))
    beats = ""
    if baseline is not None:
        gain = gain_text(gap[frozenset((chosen, baseline))])
        beats = f" It beats the best baseline, {head_name(baseline)}, by {gain}."
    if chosen == best:
        others = [head for head in compared[: compared.index(best)] if head not in UNTRAINED]
        rest = "every cheaper head is worse or does not beat the baselines" if others else "no head is cheaper"
        return "best", best, f"Use {head_name(best)}: it has the highest macro-F1, and {rest} ({units}).{beats}"
    difference = gap[frozenset((chosen, best))]
    action = (
        f"Use {head_name(chosen)}: it is the cheapest head that is not worse than the best, {head_name(best)} "
        f"(difference {gain_text(difference)}; {units}).{beats}"
    )
    return "cheaper", chosen, action


def rule_text(verdict: Verdict) -> str:
    """Return the rule of the verdict in plain words, with the numbers it was used with."""
    unit, level, alpha = verdict.unit, level_text(verdict.level), round(1 - verdict.level, 12)
    return (
        f"The rule was fixed beforehand. With fewer than {FEW_UNITS} {unit}s nothing is decided (the smallest "
        f"two-sided sign-flip p of five is 0.0625). Two heads are practically equal if the whole {level} interval of "
        f"their difference is within {rope_text(verdict.rope)} either way, or if they predict the same class for every "
        "tile. "
        f"A head is better or worse if the sign-flip p over {unit}s, adjusted for the number of pairs (Holm), is below "
        f"{alpha:.3g} and the interval excludes 0. All else is undecided, which does not mean equal. "
        "Recommended is the cheapest that is not worse than the best. A head must also be better than the best "
        "baseline that needs no training of a network; without such a head a baseline is recommended."
    )
