"""Letters join exactly the heads that are not shown to differ."""

import itertools

import numpy as np
import pytest

from pipeline.comparison.runs.match import RunHead
from pipeline.comparison.runs.pairs import MOST_HEADS, RunPair, letters
from pipeline.evaluation.bootstrap import Difference

KEYS = ["r/a", "r/b", "r/c", "r/d", "r/e"]


def pairs_with(different: set[tuple[str, str]]) -> list[RunPair]:
    """Return all pairs of `KEYS`, the lower rank first, some of which differ."""
    heads = {key: RunHead("r", key[2:], np.zeros(1, int), np.ones((1, 1)), 0.0) for key in KEYS}
    gap = Difference(0.0, 0.0, 0.0, 9, standard_error=0.0)
    return [
        RunPair(heads[low], heads[high], gap, 1.0, 1.0, "worse" if (high, low) in different else "undecided")
        for high, low in itertools.combinations(KEYS, 2)
    ]


@pytest.mark.parametrize(
    ("different", "expected"),
    [
        (set(), ["a"] * 5),
        ({("r/a", "r/e")}, ["a", "ab", "ab", "ab", "b"]),
        ({("r/a", "r/c"), ("r/a", "r/d"), ("r/a", "r/e"), ("r/b", "r/e")}, ["a", "ab", "bc", "bc", "c"]),
        (set(itertools.combinations(KEYS, 2)), list("abcde")),
    ],
)
def test_letters_of_ranked_heads(different: set[tuple[str, str]], expected: list[str]) -> None:
    assert list(letters(KEYS, pairs_with(different)).values()) == expected


@pytest.mark.parametrize("seed", range(20))
def test_two_heads_share_a_letter_exactly_if_they_are_not_different(seed: int) -> None:
    rng = np.random.default_rng(seed)
    everything = list(itertools.combinations(KEYS, 2))
    different = {pair for pair in everything if rng.random() < 0.5}
    found = letters(KEYS, pairs_with(different))
    for pair in everything:
        one, other = (set(found[key]) for key in pair)
        assert bool(one & other) is (pair not in different)
    columns = [{key for key in KEYS if letter in found[key]} for letter in set("".join(found.values()))]
    assert not any(one < other for one, other in itertools.permutations(columns, 2)), "no letter is redundant"


def test_without_end_there_are_no_letters() -> None:
    keys = [f"r/{i}" for i in range(MOST_HEADS + 1)]
    assert set(letters(keys, []).values()) == {""}
