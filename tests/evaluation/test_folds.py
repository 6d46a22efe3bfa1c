import numpy as np
import pytest

from pipeline.evaluation.folds import assign_folds


def test_groups_stay_whole_and_folds_are_alike():
    groups = [f"g{i % 11}" for i in range(200)] + ["large"] * 40
    fold, unit = assign_folds(np.zeros(240, dtype=int), groups, seed=0, folds=5)
    assert unit == "group"
    assert all(len({fold[i] for i in range(240) if groups[i] == name}) == 1 for name in set(groups))
    sizes = np.bincount(fold)
    assert len(sizes) == 5
    assert sizes.min() >= 36


def test_fewer_groups_than_folds():
    fold, unit = assign_folds(np.zeros(6, dtype=int), ["a", "a", "b", "b", "c", "c"], seed=0, folds=5)
    assert (unit, sorted(set(fold))) == ("group", [0, 1, 2])


@pytest.mark.parametrize("groups", [["one"] * 20, [""] * 20, ["a"] * 10 + [""] * 10])
def test_tiles_are_dealt_evenly_from_the_classes_where_groups_cannot_be(groups):
    y = np.array([0] * 10 + [1] * 10)
    fold, unit = assign_folds(y, groups, seed=0, folds=5)
    assert unit == "tile"
    assert all((np.bincount(fold[y == code]) == 2).all() for code in (0, 1))


def test_a_single_row_and_two():
    assert assign_folds(np.array([0]), ["a"], seed=0, folds=5)[0].tolist() == [0]
    assert sorted(assign_folds(np.array([0, 1]), ["", ""], seed=0, folds=5)[0]) == [0, 1]


def test_the_seed_decides():
    y, groups = np.zeros(30, dtype=int), [f"g{i}" for i in range(30)]
    first, again, other = (assign_folds(y, groups, seed=seed, folds=3)[0].tolist() for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize(("groups", "folds"), [(["a"], 5), (["a", "b"], 1)])
def test_wrong_arguments(groups, folds):
    with pytest.raises(ValueError, match="at least 2 folds"):
        assign_folds(np.array([0, 1]), groups, seed=0, folds=folds)
