"""Folds of tiles and groups, and what is held out of a training side."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import BadInput
from pipeline.tiles.splits.folds import fold_numbers, held_out


def tiles(n_groups: int, n_classes: int, *, seed: int) -> tuple[list[str], list[str]]:
    rng = np.random.default_rng(seed)
    groups = [f"g{group}" for group in range(n_groups) for _ in range(rng.integers(1, 9))]
    return [f"c{code}" for code in rng.integers(0, n_classes, len(groups))], groups


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 25), st.integers(2, 5), st.integers(2, 6), st.integers(0, 99))
def test_no_group_stands_in_two_folds_and_every_fold_has_one(
    n_groups: int, n_classes: int, n_folds: int, seed: int
) -> None:
    """P7."""
    labels, groups = tiles(n_groups, n_classes, seed=seed)
    if n_groups < n_folds:
        with pytest.raises(BadInput, match=f"{n_groups} group"):
            fold_numbers(labels, groups, n_folds=n_folds, seed=seed)
        return
    try:
        folds = fold_numbers(labels, groups, n_folds=n_folds, seed=seed)
    except BadInput:
        assert max(labels.count(label) for label in set(labels)) < n_folds
        return
    where = {group: {int(f) for f, g in zip(folds, groups, strict=True) if g == group} for group in set(groups)}
    assert all(len(found) == 1 for found in where.values())
    assert set(folds) <= set(range(n_folds))


def test_as_many_folds_as_groups_leave_each_group_out_once() -> None:
    labels, groups = tiles(7, 3, seed=1)
    folds = fold_numbers(labels, groups, n_folds=7, seed=5)
    assert [f"g{fold}" for fold in folds] == groups


def test_tiles_are_dealt_evenly_over_random_folds_and_seeds_differ() -> None:
    labels = ["a"] * 60 + ["b"] * 30
    folds = fold_numbers(labels, None, n_folds=3, seed=0)
    assert np.bincount(folds[:60]).tolist() == [20, 20, 20]
    assert np.bincount(folds[60:]).tolist() == [10, 10, 10]
    assert (folds != fold_numbers(labels, None, n_folds=3, seed=1)).any()
    np.testing.assert_array_equal(folds, fold_numbers(labels, None, n_folds=3, seed=0))


def test_held_out_takes_about_its_share_in_whole_groups() -> None:
    labels, groups = tiles(40, 3, seed=2)
    held = held_out(labels, groups, share=0.2, seed=0)
    assert 0.1 < held.mean() < 0.3
    assert not {g for g, h in zip(groups, held, strict=True) if h} & {
        g for g, h in zip(groups, held, strict=True) if not h
    }


def test_held_out_leaves_train_every_class_where_that_can_be_had() -> None:
    groups = ["rare"] * 8 + [f"g{i % 5}" for i in range(40)]
    labels = ["x"] * 8 + ["a", "b"] * 20
    for seed in range(10):
        held = held_out(labels, groups, share=0.2, seed=seed)
        assert not held[:8].any()
        assert held.any()


def test_one_group_cannot_be_held_out_of() -> None:
    with pytest.raises(BadInput, match="one group is left to train on"):
        held_out(["a", "b"], ["g", "g"], share=0.2, seed=0)
