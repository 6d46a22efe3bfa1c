"""Score the heads of several runs on the same test rows, and choose the cheapest that is not worse than the best."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from pipeline.comparison.pairwise_tests import METRIC
from pipeline.comparison.recommendation import CHANCE, NOT_EARNED
from pipeline.comparison.robustness import Losses, measure_losses
from pipeline.comparison.runs import Candidate, Matched, Price
from pipeline.comparison.scores import FEW_UNITS, Resampling
from pipeline.comparison.verdict import Outcome, decide, units_needed
from pipeline.evaluation.bootstrap import Difference, bootstrap_metrics
from pipeline.evaluation.metrics import scalar_metrics
from pipeline.evaluation.significance import holm, sign_flip
from pipeline.markup.number_format import count, points
from pipeline.names import UNTRAINED

SCHEMA = "compare/1.0"

BEST = "best"
"""What `--against` is where every candidate is compared with the one of the highest macro-F1."""

Code = Literal["one_candidate", "too_few_units", "baseline", "best", "cheaper", "against_run"]
"""one_candidate: nothing to compare. too_few_units: nothing is decided. baseline: no head is shown to be better than a
baseline. best: no cheaper candidate is as good. cheaper: a cheaper one is not worse than the best. against_run:
a run was named to compare the others with."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of compare.csv; an undefined number is NaN."""

    run: str
    head: str
    """Empty where the value belongs to the run."""

    metric: str
    value: float
    low: float = math.nan
    high: float = math.nan
    against: str = ""
    """For a paired difference: "run/head" of the other head."""

    p: float = math.nan
    """Two-sided, of the sign-flip test over whole units."""

    holm_p: float = math.nan
    """p adjusted for the number of pairs."""

    outcome: str = ""
    n: int = 0
    """Test rows."""

    n_units: int = 0


@dataclasses.dataclass(frozen=True)
class RunPair:
    """Two candidates on the same rows; every difference is `candidate` less `reference`."""

    candidate: Candidate
    reference: Candidate
    macro_f1: Difference
    accuracy: Difference
    p: float
    holm_p: float
    outcome: Outcome


@dataclasses.dataclass(frozen=True)
class RunVerdict:
    """Which candidate to use."""

    code: Code
    best: Candidate
    chosen: Candidate
    sentence: str


@dataclasses.dataclass(frozen=True)
class RunTable:
    """Everything that compare.csv and compare.md are written from."""

    matched: Matched
    resampling: Resampling
    rope: float
    ranked: list[Candidate]
    """By macro-F1, the best first."""

    scores: Mapping[tuple[str, str, str], Row]
    """(run, head, metric) -> its row; "macro_f1[seed 0]" for single seeds."""

    pairs: Mapping[tuple[str, str], RunPair]
    """(run, head) -> its pair, for all candidates that have a reference."""

    losses: Mapping[str, Losses]
    """Run -> macro-F1 under corruptions, of the runs with robustness.csv."""

    verdict: RunVerdict

    @property
    def n_units(self) -> int:
        """Number of groups or tiles that the rows come from."""
        return self.resampling.n_units(np.arange(len(self.matched.y)))


def resampling_of(matched: Matched, *, n_draws: int, seed: int, level: float) -> Resampling:
    """Return the bootstrap: over groups where all runs keep them whole, else over tiles."""
    unit: Literal["group", "tile"] = "tile" if matched.group is None else "group"
    ids = matched.tile if matched.group is None else matched.group
    return Resampling(unit, ids, n_draws=n_draws, seed=seed, level=level)


def build_table(matched: Matched, resampling: Resampling, *, rope: float, against: str = BEST) -> RunTable:
    """Score all candidates, test the pairs, and choose.

    Args:
        matched: the runs.
        resampling: units and size of the bootstrap.
        rope: differences of at most this much macro-F1 do not matter.
        against: `BEST`, or a run: every other candidate is compared with its same head.
    """
    scores: dict[tuple[str, str, str], Row] = {}
    for candidate in matched.candidates:
        scores |= {(row.run, row.head, row.metric): row for row in _score(matched, resampling, candidate)}
    value = [scores[each.run, each.head, METRIC].value for each in matched.candidates]
    ranked = [matched.candidates[i] for i in sorted(range(len(value)), key=lambda i: (-value[i], i))]
    references = {
        (each.run, each.head): ranked[0] if against == BEST else _same_head(matched, against, each.head)
        for each in matched.candidates
    }
    requested = [
        (each, reference)
        for each in matched.candidates
        if (reference := references[each.run, each.head]) is not None and reference is not each
    ]
    pairs = _compare(matched, resampling, requested, rope)
    return RunTable(
        matched,
        resampling,
        rope,
        ranked,
        scores,
        pairs,
        {name: measure_losses(rows, matched.classes, resampling) for name, rows in matched.corrupted.items()},
        choose(ranked, pairs, resampling, against=against),
    )


def _same_head(matched: Matched, run: str, head: str) -> Candidate | None:
    return next((each for each in matched.candidates if (each.run, each.head) == (run, head)), None)


def _score(matched: Matched, resampling: Resampling, candidate: Candidate) -> list[Row]:
    y, p, predicted = matched.y, candidate.p, candidate.predicted
    bounds = bootstrap_metrics(
        y,
        p,
        predicted,
        units=resampling.ids,
        n_draws=resampling.n_draws,
        seed=resampling.seed,
        level=resampling.level,
    )
    n_units = resampling.n_units(np.arange(len(y)))
    start = candidate.run, candidate.head
    rows = [
        Row(*start, metric, value, *bounds[metric], n=len(y), n_units=n_units)
        for metric, value in scalar_metrics(y, p, predicted).items()
    ]
    seeds = np.unique(matched.seed)
    for seed in seeds if len(seeds) > 1 else ():
        own = matched.seed == seed
        found = scalar_metrics(y[own], p[own], predicted[own])
        rows += [Row(*start, f"{name}[seed {seed}]", found[name], n=int(own.sum())) for name in ("accuracy", METRIC)]
    return rows


def _compare(
    matched: Matched,
    resampling: Resampling,
    requested: Sequence[tuple[Candidate, Candidate]],
    rope: float,
) -> dict[tuple[str, str], RunPair]:
    """Test each pair; p-values are adjusted for their number (Holm)."""
    y, units = matched.y, resampling.ids
    ps = [
        sign_flip(y, a.predicted, b.predicted, metric=METRIC, units=units, seed=resampling.seed).p for a, b in requested
    ]
    pairs = {}
    for (a, b), p, holm_p in zip(requested, ps, holm(np.array(ps)).tolist(), strict=True):
        macro_f1, accuracy = (
            resampling.difference(y, a.predicted, b.predicted, metric=metric, units=units)
            for metric in (METRIC, "accuracy")
        )
        same = bool(np.array_equal(a.predicted, b.predicted))
        outcome = decide(macro_f1, p=holm_p, level=resampling.level, rope=rope, same_predictions=same)
        pairs[a.run, a.head] = RunPair(a, b, macro_f1, accuracy, p, holm_p, outcome)
    return pairs


def choose(
    ranked: Sequence[Candidate],
    pairs: Mapping[tuple[str, str], RunPair],
    resampling: Resampling,
    *,
    against: str = BEST,
) -> RunVerdict:
    """Return the verdict: the cheapest candidate that is not worse than the best, by the outcome of their pair.

    Costs are compared by floating point operations of the network, then by the kind of head, never by time.

    Args:
        ranked: candidates by macro-F1, the best first.
        pairs: (run, head) -> its pair with the reference.
        resampling: units and level of the intervals.
        against: `BEST`, or the run that the pairs are with.
    """
    best, n_units = ranked[0], resampling.n_units(np.arange(len(resampling.ids)))
    units = count(n_units, resampling.unit)
    if len(ranked) == 1:
        return RunVerdict("one_candidate", best, best, f"Only {best.text} was given: there is nothing to compare.")
    needed = FEW_UNITS if against != BEST else units_needed(len(pairs), level=resampling.level)
    if n_units < needed:
        why = f"{needed} are needed for {count(len(pairs), 'comparison')}"
        sentence = f"No choice can be made on {units} of test rows: {why}. {best.text} has the highest macro-F1."
        return RunVerdict("too_few_units", best, best, sentence)
    if against != BEST:
        by_outcome = {
            outcome: [p.candidate.text for p in pairs.values() if p.outcome == outcome] for outcome in OUTCOMES
        }
        parts = [f"{outcome}: {', '.join(names) or 'none'}" for outcome, names in by_outcome.items()]
        sentence = f"Compared with {against} on {units}, {'; '.join(parts)}."
        return RunVerdict("against_run", best, best, sentence)
    as_good = [pair.candidate for pair in pairs.values() if pair.outcome != "worse" and pair.candidate.head != CHANCE]
    chosen = min([best, *as_good], key=lambda each: (each.cost, ranked.index(each)))
    if chosen.head in UNTRAINED and any(each.head not in UNTRAINED for each in ranked):
        sentence = (
            f"Use {chosen.text}, which needs no training of a network: it is the cheapest that is not worse than the "
            f"best, {best.text} ({units}). {NOT_EARNED}"
        )
        return RunVerdict("baseline", best, chosen, sentence)
    if chosen is best:
        rest = "every cheaper one is worse" if any(each.cost < best.cost for each in ranked) else "none is cheaper"
        sentence = f"Use {best.text}: it has the highest macro-F1, and {rest} ({units})."
        return RunVerdict("best", best, best, sentence)
    pair = pairs[chosen.run, chosen.head]
    gap = pair.macro_f1
    bounds = f"{points(gap.low)} to {points(gap.high)}"
    sentence = (
        f"Use {chosen.text}: it is the cheapest that is not worse than the best, {best.text} "
        f"(difference {points(gap.value)} points of macro-F1, interval {bounds}, {pair.outcome}; {units})."
    )
    return RunVerdict("cheaper", best, chosen, sentence)


OUTCOMES: tuple[Outcome, ...] = ("better", "worse", "practically equal", "undecided")


def rows_of(table: RunTable) -> list[Row]:
    """Return all rows of compare.csv: costs of each run, then scores, differences and corruptions of each head."""
    rows = []
    for run, price in table.matched.prices.items():
        rows += [Row(run, "", name, value) for name, value in numbers(price).items()]
    for candidate in table.matched.candidates:
        start = candidate.run, candidate.head
        rows += [row for key, row in table.scores.items() if key[:2] == start]
        pair = table.pairs.get(start)
        if pair is not None:
            against = f"{pair.reference.run}/{pair.reference.head}"
            for metric in ("macro_f1", "accuracy"):
                gap: Difference = getattr(pair, metric)
                found = Row(*start, f"{metric}_difference", gap.value, gap.low, gap.high, against=against)
                if metric == METRIC:
                    found = dataclasses.replace(found, p=pair.p, holm_p=pair.holm_p, outcome=pair.outcome)
                rows.append(dataclasses.replace(found, n=len(table.matched.y), n_units=gap.n_units))
        losses = table.losses.get(candidate.run)
        if losses is not None and candidate.head in losses.heads:
            for name in losses.corruptions:
                loss = losses.loss[candidate.head, name]
                rows.append(Row(*start, f"macro_f1[{name}]", losses.score[candidate.head, name]))
                rows.append(Row(*start, f"macro_f1_loss[{name}]", loss.value, loss.low, loss.high))
    return rows


def numbers(price: Price) -> dict[str, float]:
    """Return the known costs that are numbers."""
    found = {name: getattr(price, name) for name in ("tile_px", "parameters", "dimension", "gflops", "train_seconds")}
    return {name: float(value) for name, value in found.items() if value is not None}
