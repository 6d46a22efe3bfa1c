"""Test pairs of heads of several runs, and mark with letters which heads are not different."""

import dataclasses
import itertools
import string
from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.comparison.pairwise_tests import METRIC
from pipeline.comparison.runs.match import Matched, RunHead
from pipeline.comparison.scores import Resampling
from pipeline.comparison.verdict import Outcome, decide
from pipeline.evaluation.bootstrap import Difference, paired_counts
from pipeline.evaluation.significance import SignFlip, holm, sign_flip

MOST_HEADS = 60
"""With more heads no letters are given: their number can grow exponentially."""


@dataclasses.dataclass(frozen=True)
class RunPair:
    """Two heads on the same rows."""

    candidate: RunHead
    other: RunHead
    difference: Difference
    """Macro-F1 of `candidate` less that of `other`."""

    p: float
    holm_p: float
    """p adjusted for the pairs that were requested together."""

    outcome: Outcome

    @property
    def head(self) -> str:
        """Key of the head that is compared."""
        return self.candidate.key

    @property
    def reference(self) -> str:
        """Key of the head that it is compared with."""
        return self.other.key


@dataclasses.dataclass
class PairTests:
    """The tests of pairs on matched rows; each pair is tested once, whatever the families it belongs to."""

    matched: Matched
    resampling: Resampling
    rope: float
    _tested: dict[tuple[str, str], tuple[Difference, SignFlip]] = dataclasses.field(default_factory=dict)

    def judge(self, pairs: Sequence[tuple[RunHead, RunHead]]) -> list[RunPair]:
        """Return the decision for each pair (head, reference); p-values are adjusted for these pairs (Holm)."""
        tested = [self._test(*pair) for pair in pairs]
        adjusted = holm(np.array([flip.p for _, flip in tested])).tolist()
        judged = []
        for (one, other), (difference, flip), holm_p in zip(pairs, tested, adjusted, strict=True):
            same = bool(np.array_equal(one.predicted, other.predicted))
            level = self.resampling.level
            outcome = decide(difference, p=holm_p, level=level, rope=self.rope, same_predictions=same)
            judged.append(RunPair(one, other, difference, flip.p, holm_p, outcome))
        return judged

    def _test(self, one: RunHead, other: RunHead) -> tuple[Difference, SignFlip]:
        key = (one.key, other.key)
        if key not in self._tested:
            y, units = self.matched.y, self.resampling.ids
            counts = paired_counts(y, one.predicted, other.predicted, metric=METRIC, units=units)
            self._tested[key] = self.resampling.difference(counts), sign_flip(counts, seed=self.resampling.seed)
        return self._tested[key]


def all_pairs(ranked: Sequence[RunHead]) -> list[tuple[RunHead, RunHead]]:
    """Return every pair once: the head of the lower rank with that of the higher rank."""
    return [(low, high) for high, low in itertools.combinations(ranked, 2)]


def letters(ranked: Sequence[str], pairs: Sequence[RunPair]) -> Mapping[str, str]:
    """Return key -> letters; two heads share a letter exactly if their pair does not show a difference.

    The insert-and-absorb algorithm of Piepho 2004, "An algorithm for a letter-based representation of all-pairwise
    comparisons", Journal of Computational and Graphical Statistics 13(2).

    Args:
        ranked: keys of the heads, the best first; the first letter is that of the best.
        pairs: all pairs of these heads.
    """
    if len(ranked) > MOST_HEADS:
        return dict.fromkeys(ranked, "")
    columns = [frozenset(ranked)]
    for pair in pairs:
        if pair.outcome in ("better", "worse"):
            split = [{pair.head, pair.reference} <= column for column in columns]
            parts = [column for column, is_split in zip(columns, split, strict=True) if not is_split]
            for column, is_split in zip(columns, split, strict=True):
                if is_split:
                    parts += [column - {pair.head}, column - {pair.reference}]
            unique = list(dict.fromkeys(parts))
            columns = [column for column in unique if not any(column < other for other in unique)]
    columns.sort(key=lambda column: sorted(ranked.index(key) for key in column))
    alphabet = string.ascii_lowercase + string.ascii_uppercase
    if len(columns) > len(alphabet):
        return dict.fromkeys(ranked, "")
    return {
        key: "".join(letter for letter, column in zip(alphabet, columns, strict=False) if key in column)
        for key in ranked
    }
