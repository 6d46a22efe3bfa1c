"""Splits: complete, repeatable, stratified; and P7, no group in two of them."""

import itertools
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import BadInput
from pipeline.names import SPLITS
from pipeline.tiles.splits.holdout import grouped_split, random_split

NAMES = Path(__file__).parents[3] / "../shared/data/kather2016/names.txt"
TUTORIAL = (0.70, 0.15, 0.15)
quick = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))

fractions = st.tuples(st.integers(1, 30), st.integers(1, 30), st.integers(1, 30)).map(
    lambda n: (n[0] / sum(n), n[1] / sum(n), n[2] / sum(n))
)
seeds = st.integers(0, 2**32)


@st.composite
def grouped_tiles(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    """Labels and groups, with classes that stand in few groups as EMPTY does in Kather 2016."""
    n_groups = draw(st.integers(3, 14))
    rows: list[tuple[str, str]] = []
    for label in range(draw(st.integers(1, 5))):
        within = draw(st.lists(st.integers(0, n_groups - 1), min_size=1, max_size=n_groups, unique=True))
        rows += [(f"c{label}", f"g{group}") for group in within for _ in range(draw(st.integers(1, 3)))]
    rows += [("c0", f"g{group}") for group in range(n_groups)]
    return [label for label, _ in rows], [group for _, group in rows]


@quick
@given(st.lists(st.sampled_from("ABCD"), min_size=1, max_size=120), fractions, seeds)
def test_random_split_is_stratified_complete_and_repeatable(
    labels: list[str], shares: tuple[float, float, float], seed: int
) -> None:
    if min(Counter(labels).values()) < 3:
        with pytest.raises(BadInput, match=r"class '.' has \d tile"):
            random_split(labels, fractions=shares, seed=seed)
        return
    split = random_split(labels, fractions=shares, seed=seed)
    assert split == random_split(labels, fractions=shares, seed=seed)
    assert len(split) == len(labels)
    for label, n in Counter(labels).items():
        counts = Counter(s for s, of in zip(split, labels, strict=True) if of == label)
        assert set(counts) == set(SPLITS)  # every class in every split
        for name, share in zip(SPLITS, shares, strict=True):
            assert abs(counts[name] - share * n) <= 2  # rounded, and at least one


def test_random_split_of_the_tutorial() -> None:
    labels = ["A"] * 100 + ["B"] * 40
    split = random_split(labels, fractions=TUTORIAL, seed=0)
    assert Counter(split[:100]) == {"train": 70, "val": 15, "test": 15}
    assert Counter(split[100:]) == {"train": 28, "val": 6, "test": 6}
    assert split != random_split(labels, fractions=TUTORIAL, seed=1)


def test_a_classs_random_split_leaves_train_a_tile_however_shares_are_rounded() -> None:
    split = random_split(["A"] * 4, fractions=(0.2, 0.4, 0.4), seed=0)
    assert set(split) == set(SPLITS)


@pytest.mark.fault("group in two splits, class missing in one, too few groups")
@quick
@given(grouped_tiles(), seeds)
def test_p7_grouped_split_keeps_groups_whole_and_train_complete(tiles: tuple[list[str], list[str]], seed: int) -> None:
    labels, groups = tiles
    try:
        split = grouped_split(labels, groups, fractions=TUTORIAL, seed=seed)
    except BadInput:
        # refused only if it cannot be: train would need all groups but one or none for val and test
        assert not any(
            {la for la, g in zip(labels, groups, strict=True) if g not in out} == set(labels)
            for out in itertools.combinations(sorted(set(groups)), 2)
        )
        return
    where = dict(zip(groups, split, strict=True))
    assert [where[group] for group in groups] == split  # one split per group
    assert {la for la, s in zip(labels, split, strict=True) if s == "train"} == set(labels)
    assert set(where.values()) == set(SPLITS)
    order = np.random.default_rng(0).permutation(len(labels))
    again = grouped_split([labels[i] for i in order], [groups[i] for i in order], fractions=TUTORIAL, seed=seed)
    assert again == [split[i] for i in order]  # repeatable, and the rows' order does not matter


def test_classes_are_as_even_as_can_be() -> None:
    """Twenty equal groups of both classes: the asked shares are met exactly."""
    labels, groups = ["A", "B"] * 60, [f"s{i // 2 % 20}" for i in range(120)]
    for seed in range(5):
        split = grouped_split(labels, groups, fractions=TUTORIAL, seed=seed)
        for label in "AB":
            counts = Counter(s for s, of in zip(split, labels, strict=True) if of == label)
            assert counts == {"train": 42, "val": 9, "test": 9}


def test_few_groups_get_the_best_split_there_is_with_any_seed() -> None:
    """Six groups leave a search by single moves nowhere to go: all splits are tried."""
    labels = ["Z"] * 6 + ["X", "Y"]
    groups = [f"g{i}" for i in range(6)] + ["g0", "g1"]
    for seed in range(40):
        where = dict(zip(groups, grouped_split(labels, groups, fractions=TUTORIAL, seed=seed), strict=True))
        assert (where["g0"], where["g1"]) == ("train", "train")
        assert Counter(where.values()) == {"train": 2, "val": 2, "test": 2}


def test_a_class_in_train_is_worth_more_than_two_groups_in_test() -> None:
    """Three classes, each in a group of its own, of six groups: train needs three of them."""
    labels = ["Z"] * 6 + ["W", "X", "Y"]
    groups = [f"g{i}" for i in range(6)] + ["g0", "g1", "g2"]
    where = dict(zip(groups, grouped_split(labels, groups, fractions=TUTORIAL, seed=0), strict=True))
    assert {where["g0"], where["g1"], where["g2"]} == {"train"}
    assert set(where.values()) == set(SPLITS)


@pytest.mark.fault("group in two splits, class missing in one, too few groups")
def test_too_few_groups_are_an_error_that_says_what_to_do() -> None:
    with pytest.raises(BadInput, match=r"2 group\(s\) \(a, b\).*--protocol random"):
        grouped_split(["A", "B"], ["a", "b"], fractions=TUTORIAL, seed=0)


@pytest.mark.fault("group in two splits, class missing in one, too few groups")
def test_classes_that_cannot_all_be_in_train_are_named() -> None:
    labels, groups = ["A", "B", "C", "A", "A"], ["g0", "g1", "g2", "g1", "g2"]
    with pytest.raises(BadInput, match="no grouped split gives train the class") as caught:
        grouped_split(labels, groups, fractions=TUTORIAL, seed=0)
    assert "\n" not in str(caught.value)


def test_thousands_of_groups_are_split_evenly() -> None:
    rng = np.random.default_rng(0)
    labels = [f"c{k}" for k in rng.integers(0, 3, 3000)]
    split = grouped_split(labels, [f"g{i % 1500}" for i in range(3000)], fractions=TUTORIAL, seed=0)
    for label in ("c0", "c1", "c2"):
        counts = Counter(s for s, of in zip(split, labels, strict=True) if of == label)
        assert counts["train"] / counts.total() == pytest.approx(0.70, abs=0.01)
        assert counts["test"] / counts.total() == pytest.approx(0.15, abs=0.01)


@pytest.mark.skipif(not NAMES.is_file(), reason="../shared/data/kather2016/names.txt is not there")
def test_p7_all_5000_published_tiles() -> None:
    names = NAMES.read_text().split()
    labels = [name.split("/")[0] for name in names]
    groups = [re.findall(r"CRC-Prim-HE-(\d\d)", name)[0] for name in names]
    split = grouped_split(labels, groups, fractions=TUTORIAL, seed=0)
    where = dict(zip(groups, split, strict=True))
    assert len(where) == 10
    assert [where[group] for group in groups] == split
    assert min(Counter(where.values()).values()) >= 2
    assert len({label for label, s in zip(labels, split, strict=True) if s == "train"}) == 8
    shares = {name: n / 5000 for name, n in Counter(split).items()}
    assert 0.6 < shares["train"] < 0.8
    assert min(shares["val"], shares["test"]) > 0.1
    tutorial = Counter(zip(labels, random_split(labels, fractions=TUTORIAL, seed=0), strict=True))
    assert all(tutorial[label, "train"] == 437 for label in set(labels))
    assert all(tutorial[label, "test"] == 94 for label in set(labels))
