"""Choose the cheapest of several candidates that is about as good as the best: the rule of `report` and of `compare`.

A candidate is a head or a baseline of a run. A head is chosen only if it beats the best baseline that needs no training
of a network. Every statement rests on the outcomes of pairs that are fixed before (`asked_pairs`), each decided by the
same rule (`verdict.decide`).
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Literal, Protocol

from pipeline.comparison.scores import Resampling
from pipeline.comparison.verdict import Outcome, gain_text, units_needed
from pipeline.evaluation.bootstrap import Difference
from pipeline.markup.number_format import count, head_name, number
from pipeline.names import BASELINES, COST_ORDER, RUN_ONLY, UNTRAINED

CHANCE = "majority"
"""The baseline that uses no tile. It is chosen only where no other baseline was fitted."""

NOT_EARNED = (
    "The network brought no measurable gain here: more tiles, longer training or another encoder (--init, --encoder) "
    "may help."
)

NOT_FOR_NEW_TILES = (
    "It has no file: the command predict does not apply it to new tiles, and robustness does not test it."
)
"""What a recommended head or baseline lacks that is `run_only`."""

Code = Literal["no_head", "one_candidate", "too_few_units", "baseline", "best", "cheaper", "proven"]
"""no_head, one_candidate: nothing to compare. too_few_units: nothing can be decided. baseline: no head is better than
the best baseline. best: the chosen head has the highest macro-F1. cheaper: it is about as good as that one. proven: it
is better than the best baseline, which the one with the highest macro-F1 is not shown to be."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A head or a baseline that can be chosen."""

    key: str
    """Its name, other than that of every other candidate."""

    text: str
    """Its name in a sentence."""

    value: float
    """Macro-F1 on the test rows."""

    is_head: bool
    """Whether it is one of the main heads."""

    needs_no_training: bool
    """Whether it is a baseline that needs no training of a network."""

    is_chance: bool = False
    """Whether it is `CHANCE`."""

    run_only: bool = False
    """Whether it predicts the tiles of its run only (`names.RUN_ONLY`)."""


def candidate_of(head: str, value: float, *, key: str = "", text: str = "") -> Candidate:
    """Return a head or a baseline as a candidate; its key and text are its name unless others are given."""
    return Candidate(
        key or head,
        text or head_name(head),
        value,
        is_head=head not in BASELINES,
        needs_no_training=head in UNTRAINED,
        is_chance=head == CHANCE,
        run_only=head in RUN_ONLY,
    )


class Judged(Protocol):
    """Two candidates on the same rows, and the decision."""

    @property
    def head(self) -> str:
        """Key of the candidate that is compared."""

    @property
    def reference(self) -> str:
        """Key of the other one."""

    @property
    def difference(self) -> Difference:
        """Macro-F1 of `head` less that of `reference`."""

    @property
    def outcome(self) -> Outcome:
        """The decision for `head` compared with `reference`."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """What to use."""

    code: Code
    chosen: str | None
    """Key of the candidate to use; None if none can be chosen."""

    action: str
    """What to do, in one to three sentences; the first one is the answer."""


@dataclasses.dataclass(frozen=True)
class Candidates:
    """All candidates, the cheapest first."""

    everyone: Sequence[Candidate]

    @property
    def compared(self) -> list[Candidate]:
        """The candidates without `CHANCE`, unless that is the best baseline; the cheapest first."""
        baseline = self.baseline
        return [each for each in self.everyone if not each.is_chance or each is baseline]

    @property
    def heads(self) -> list[Candidate]:
        """The main heads, the cheapest first."""
        return [each for each in self.everyone if each.is_head]

    @property
    def baseline(self) -> Candidate | None:
        """The best baseline that needs no training of a network; None if there is none."""
        return best_of([each for each in self.everyone if each.needs_no_training])

    @property
    def best(self) -> Candidate:
        """The candidate with the highest macro-F1, the cheapest of equals."""
        best = best_of(self.compared)
        assert best is not None, "there is a candidate"  # noqa: S101
        return best

    def asked_pairs(self) -> list[tuple[str, str]]:
        """Return the pairs (head, reference) of keys that the choice rests on, each once.

        They are each head, and the best candidate, with the best baseline; and each cheaper candidate with the best.
        Where all candidates are heads, they are all pairs.
        """
        compared, best, baseline = self.compared, self.best, self.baseline
        if not self.heads:
            return []
        if len(self.heads) == len(compared):
            return [(head.key, reference.key) for reference, head in itertools.combinations(compared, 2)]
        wanted = [] if baseline is None else [(each.key, baseline.key) for each in [*self.heads, best]]
        wanted += [(each.key, best.key) for each in compared[: compared.index(best)]]
        asked = dict[frozenset[str], tuple[str, str]]()
        for pair in wanted:
            if len(set(pair)) == 2:
                asked.setdefault(frozenset(pair), pair)
        return list(asked.values())

    def choose(self, asked: Sequence[Judged], *, n_units: int, resampling: Resampling) -> Choice:
        """Return what to use.

        Args:
            asked: the outcome of each of `asked_pairs`.
            n_units: number of units of `resampling` that the test rows come from.
            resampling: unit and level of the intervals.
        """
        found = self._choose(asked, n_units=n_units, resampling=resampling)
        if any(each.run_only for each in self.everyone if each.key == found.chosen):
            return dataclasses.replace(found, action=f"{found.action} {NOT_FOR_NEW_TILES}")
        return found

    def _choose(self, asked: Sequence[Judged], *, n_units: int, resampling: Resampling) -> Choice:
        compared, heads, best, baseline = self.compared, self.heads, self.best, self.baseline
        if not heads:
            return Choice("no_head", None, "Only baselines were evaluated: there is no head to choose.")
        if len(compared) == 1:
            return Choice("one_candidate", best.key, f"Only {best.text} was evaluated: there is nothing to choose.")
        units, needed = count(n_units, resampling.unit), units_needed(len(asked), level=resampling.level)
        if n_units < needed:
            action = (
                f"No choice can be based on {units} of test rows: {needed} are needed for "
                f"{count(len(asked), 'comparison')}. {best.text} has the highest macro-F1. "
                f"Test more {resampling.unit}s: --protocol logo tests each group once, or label tiles of more groups."
            )
            return Choice("too_few_units", None, action)
        if baseline is None:
            return self._cheapest(compared, asked, units=units)
        proven = {pair.head for pair in asked if pair.reference == baseline.key and pair.outcome == "better"}
        beating = [each for each in compared if each.key in proven]
        if not beating:
            return self._baseline(asked, baseline, units=units)
        if best not in beating:
            chosen = best_of(beating) or best
            action = (
                f"Use {chosen.text}: it beats the best baseline, {baseline.text}, by "
                f"{_gain(asked, chosen, baseline)}. {best.text} has the highest macro-F1, but is not shown to beat "
                f"that baseline ({units})."
            )
            return Choice("proven", chosen.key, action)
        return self._cheapest(beating, asked, units=units)

    def _baseline(self, asked: Sequence[Judged], baseline: Candidate, *, units: str) -> Choice:
        """Return the choice where no head beats the best baseline: the cheapest baseline that is about as good."""
        best = self.best
        top = best_of(self.heads) or best
        tested = self.compared[: self.compared.index(best) + 1]
        suited = (each for each in tested if each.needs_no_training and about_as_good(each, best, asked))
        chosen = next(suited, baseline)
        use = f"Use {chosen.text}"
        if chosen is not baseline:
            use += f" (macro-F1 {number(chosen.value)}): it is cheaper than {best.text} ({number(best.value)}) and "
            use += f"about as good, difference {_gain(asked, chosen, best)}"
        action = (
            f"None of the heads beats {baseline.text}: the best head, {top.text}, differs from it by "
            f"{_gain(asked, top, baseline)}. {NOT_EARNED} {use} ({units})."
        )
        return Choice("baseline", chosen.key, action)

    def _cheapest(self, pool: Sequence[Candidate], asked: Sequence[Judged], *, units: str) -> Choice:
        """Return the choice of the cheapest in `pool`, which has the best, that is about as good as the best."""
        best, baseline = self.best, self.baseline
        chosen = next(each for each in pool if about_as_good(each, best, asked))
        beats = ""
        if baseline is not None:
            beats = f" It beats the best baseline, {baseline.text}, by {_gain(asked, chosen, baseline)}."
        if chosen is best:
            cheaper = self.compared[: self.compared.index(best)]
            is_cheapest = all(each.needs_no_training for each in cheaper)
            beats_too = "" if baseline is None else " and beats the best baseline"
            rest = "no head is cheaper" if is_cheapest else f"no cheaper head is about as good{beats_too}"
            return Choice(
                "best", best.key, f"Use {best.text}: it has the highest macro-F1, and {rest} ({units}).{beats}"
            )
        action = (
            f"Use {chosen.text}: it is the cheapest head that is about as good as the best, {best.text} "
            f"(difference {_gain(asked, chosen, best)}; {units}).{beats}"
        )
        return Choice("cheaper", chosen.key, action)


def by_cost(heads: Sequence[str]) -> list[str]:
    """Return heads in the order of their costs, the cheapest first; an unknown head comes last.

    Every ranking sorts heads by cost first, so that the cheapest of equals is the best one everywhere.
    """
    order = {head: i for i, head in enumerate(COST_ORDER)}
    return sorted(heads, key=lambda head: order.get(head, len(order)))


def best_of(candidates: Sequence[Candidate]) -> Candidate | None:
    """Return the candidate with the highest value, the first of equals; None of no candidates."""
    return max(candidates, key=lambda each: each.value, default=None)


def about_as_good(candidate: Candidate, best: Candidate, asked: Sequence[Judged]) -> bool:
    """Return whether a candidate is the best one, practically equal to it, or within one standard error of it.

    The one-standard-error rule (Hastie, Tibshirani and Friedman 2009, "The Elements of Statistical Learning", 7.10) on
    the paired difference. One that is not shown to be worse can still be far below the best if the groups are few.
    """
    if candidate.key == best.key:
        return True
    pair = _pair(asked, candidate, best)
    if pair.outcome in ("better", "worse"):
        return (pair.outcome == "better") == (pair.head == candidate.key)
    loss = pair.difference.value if pair.head == best.key else -pair.difference.value
    return pair.outcome == "practically equal" or loss <= pair.difference.standard_error


def _pair(asked: Sequence[Judged], one: Candidate, other: Candidate) -> Judged:
    """Return the pair of two candidates."""
    return next(pair for pair in asked if {pair.head, pair.reference} == {one.key, other.key})


def _gain(asked: Sequence[Judged], one: Candidate, other: Candidate) -> str:
    """Return the difference of the pair of two candidates with its interval."""
    return gain_text(_pair(asked, one, other).difference)
