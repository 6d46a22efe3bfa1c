"""Recommend the cheapest of all heads and baselines of a run that is about as good as the best on the test rows."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from pipeline.comparison.choice import Candidates, Code, by_cost, candidate_of
from pipeline.comparison.pairwise_tests import METRIC
from pipeline.comparison.predictions import Predictions
from pipeline.comparison.scores import FEW_UNITS, Resampling, Score
from pipeline.comparison.verdict import Pair, head_pairs, judge_pairs, rope_text
from pipeline.evaluation.bayesian_bootstrap import ROPE
from pipeline.markup.number_format import level_text, listing, number


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
    candidates = Candidates([candidate_of(head, value[head]) for head in by_cost(predictions.heads)])
    best, baseline = candidates.best, candidates.baseline
    pairs = judge_pairs(predictions, resampling, head_pairs(heads), rope=rope, n_train=n_train)
    asked = pairs
    if heads and predictions.baselines:
        asked = judge_pairs(predictions, resampling, candidates.asked_pairs(), rope=rope, n_train=n_train)
    names = listing([each.text for each in candidates.compared if each.value == best.value])
    n_units = resampling.n_units(predictions.rows("test"))
    choice = candidates.choose(asked, n_units=n_units, resampling=resampling)
    return Verdict(
        code=choice.code,
        recommended=choice.chosen,
        best=best.key,
        baseline=None if baseline is None else baseline.key,
        action=choice.action,
        ranking=f"Highest macro-F1 on the test rows: {names} ({number(best.value)}).",
        asked=asked,
        pairs=pairs,
        unit=resampling.unit,
        n_units=n_units,
        level=resampling.level,
        rope=rope,
        n_train=n_train,
    )


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
        "Recommended is the cheapest that is about as good as the best: practically equal, or undecided and within one "
        "standard error of the difference. A head must also be better than the "
        "best baseline that needs no training of a network; without such a head a baseline is recommended."
    )
