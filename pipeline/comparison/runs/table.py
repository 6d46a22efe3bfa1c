"""Score the heads of several runs on the same test rows, compare them, and choose."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from pipeline.comparison import choice
from pipeline.comparison.choice import Candidates, candidate_of
from pipeline.comparison.pairwise_tests import METRIC
from pipeline.comparison.robustness import Losses, measure_losses
from pipeline.comparison.runs.margin import read_margin
from pipeline.comparison.runs.match import Matched, RunHead
from pipeline.comparison.runs.pairs import PairTests, RunPair, all_pairs, letters
from pipeline.comparison.scores import Resampling
from pipeline.comparison.verdict import Outcome, units_needed
from pipeline.errors import BadInput
from pipeline.evaluation.metrics import scalar_metrics
from pipeline.evaluation.robustness_margin import RobustnessMargin
from pipeline.markup.number_format import count

BEST = "best"
"""What `--against` is where no run is named: the rule of the report chooses."""

OUTCOMES: tuple[Outcome, ...] = ("better", "worse", "practically equal", "undecided")


@dataclasses.dataclass(frozen=True)
class Score:
    """A metric of a head; a bound that is undefined is NaN."""

    value: float
    low: float = math.nan
    high: float = math.nan
    n: int = 0
    """Test rows."""


@dataclasses.dataclass(frozen=True)
class RunVerdict:
    """Which head to use."""

    code: choice.Code | Literal["against_run"]
    """against_run: a run was named to compare the others with."""

    best: RunHead
    chosen: RunHead | None
    sentence: str


@dataclasses.dataclass(frozen=True)
class RunTable:
    """Everything that compare.csv and compare.md are written from."""

    matched: Matched
    resampling: Resampling
    rope: float
    ranked: list[RunHead]
    """By macro-F1, the best first."""

    scores: Mapping[tuple[str, str], Score]
    """(key of a head, metric) -> its score; "macro_f1[seed 0]" for single seeds."""

    asked: list[RunPair]
    """The pairs that the verdict rests on, or those with the same head of the named run."""

    every: list[RunPair]
    """All pairs; a family of its own for Holm."""

    letters: Mapping[str, str]
    """Key of a head -> the letters that it shares with heads that are not shown to differ."""

    losses: Mapping[str, Losses]
    """Run -> macro-F1 under corruptions, of the runs with robustness.csv."""

    margins: Mapping[str, RobustnessMargin | str]
    """Run -> robustness of its embeddings against the source, or why that is not known."""

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


def build_table(
    matched: Matched, folders: Mapping[str, Path], resampling: Resampling, *, rope: float, against: str = BEST
) -> RunTable:
    """Score all heads, test the pairs, and choose.

    Args:
        matched: the runs.
        folders: run -> its folder.
        resampling: units and size of the bootstrap.
        rope: differences of at most this much macro-F1 do not matter.
        against: `BEST`, or a run: every other head is compared with its same head.

    Raises:
        BadArtifact: an embeddings file breaks its schema.
        BadInput: no other run has a head of the named run.
    """
    reference = {head.head: head for head in matched.heads if head.run == against}
    others = [head for head in matched.heads if head.run != against and head.head in reference]
    if against != BEST and not others:
        raise BadInput(f"--against {against}: no other run has one of its heads ({', '.join(reference)})")
    scores = {(head.key, name): score for head in matched.heads for name, score in _score(matched, resampling, head)}
    value = {head.key: scores[head.key, METRIC].value for head in matched.heads}
    ranked = sorted(matched.heads, key=lambda head: (-value[head.key], head.cost))
    tests = PairTests(matched, resampling, rope)
    every = tests.judge(all_pairs(ranked))
    by_key = {head.key: head for head in matched.heads}
    if against == BEST:
        cheapest_first = sorted(matched.heads, key=lambda head: head.cost)
        candidates = Candidates(
            [candidate_of(head.head, value[head.key], key=head.key, text=head.text) for head in cheapest_first]
        )
        asked = tests.judge([(by_key[head], by_key[reference]) for head, reference in candidates.asked_pairs()])
        n_units = resampling.n_units(np.arange(len(matched.y)))
        found = candidates.choose(asked, n_units=n_units, resampling=resampling)
        chosen = None if found.chosen is None else by_key[found.chosen]
        verdict = RunVerdict(found.code, by_key[candidates.best.key], chosen, found.action)
    else:
        asked = tests.judge([(head, reference[head.head]) for head in others])
        verdict = _against(asked, ranked, resampling, run=against)
    return RunTable(
        matched,
        resampling,
        rope,
        ranked,
        scores,
        asked,
        every,
        letters([head.key for head in ranked], every),
        {name: measure_losses(rows, matched.classes, resampling) for name, rows in matched.corrupted.items()},
        {name: read_margin(folder, seed=resampling.seed) for name, folder in folders.items()},
        verdict,
    )


def _score(matched: Matched, resampling: Resampling, head: RunHead) -> list[tuple[str, Score]]:
    """Return metric -> score, and those of single seeds if there are several."""
    y, p, predicted = matched.y, head.p, head.predicted
    bounds = resampling.intervals(y, p, predicted)
    scores = [(name, Score(value, *bounds[name], n=len(y))) for name, value in scalar_metrics(y, p, predicted).items()]
    seeds = np.unique(matched.seed)
    for seed in seeds if len(seeds) > 1 else ():
        own = matched.seed == seed
        found = scalar_metrics(y[own], p[own], predicted[own])
        scores += [(f"{name}[seed {seed}]", Score(found[name], n=int(own.sum()))) for name in ("accuracy", METRIC)]
    return scores


def _against(asked: Sequence[RunPair], ranked: Sequence[RunHead], resampling: Resampling, *, run: str) -> RunVerdict:
    """Return how many heads are better and worse than the same head of the named run."""
    n_units, best = resampling.n_units(np.arange(len(resampling.ids))), ranked[0]
    if n_units < (needed := units_needed(len(asked), level=resampling.level)):
        few = f"No choice can be based on {count(n_units, resampling.unit)} of test rows: {needed} are needed."
        return RunVerdict("too_few_units", best, None, few)
    names = {outcome: [pair.candidate.text for pair in asked if pair.outcome == outcome] for outcome in OUTCOMES}
    parts = [f"{outcome}: {', '.join(found) or 'none'}" for outcome, found in names.items()]
    sentence = f"Compared with {run} on {count(n_units, resampling.unit)}, {'; '.join(parts)}."
    return RunVerdict("against_run", best, None, sentence)
