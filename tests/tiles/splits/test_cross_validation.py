"""The plan: who is trained on what, chosen by what and tested on what."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import BadInput
from pipeline.tiles.splits.cross_validation import (
    Part,
    SplitOptions,
    absent_classes,
    check_parts,
    make_parts,
)


def parts_of(labels: list[str], groups: list[str] | None, n_folds: int, *seeds: int, inner: int = 0) -> list[Part]:
    return make_parts(labels, groups, SplitOptions(None, n_folds, seeds, inner), n_folds=n_folds)


def make_tiles(n_groups: int, seed: int) -> tuple[list[str], list[str]]:
    rng = np.random.default_rng(seed)
    groups = [f"g{i}" for i in range(n_groups) for _ in range(rng.integers(6, 20))]
    return [f"c{code}" for code in rng.integers(0, 3, len(groups))], groups


@pytest.mark.fault("group in two splits, class missing in one, too few groups")
@settings(deadline=None, max_examples=25)
@given(st.integers(12, 18), st.integers(2, 4), st.sampled_from([0, 2, 3]), st.integers(0, 50))
def test_no_group_crosses_a_split_and_every_tile_is_tested_once_per_seed(
    n_groups: int, n_folds: int, n_inner: int, seed: int
) -> None:
    """P7."""
    labels, groups = make_tiles(n_groups, seed)
    parts = parts_of(labels, groups, n_folds, seed, seed + 1, inner=n_inner)
    assert len(parts) == 2 * n_folds * max(1, n_inner)
    assert len({part.name for part in parts}) == len(parts)
    for part in parts:
        sides = {where: {g for g, s in zip(groups, part.split, strict=True) if s == where} for where in set(part.split)}
        assert set(sides) == {"train", "val", "test"}
        assert not sides["train"] & sides["val"]
        assert not sides["test"] & (sides["train"] | sides["val"])
    for each in (seed, seed + 1):
        tested = sum((np.array(p.split) == "test").astype(int) for p in parts if p.seed == each and not p.inner)
        assert (tested == 1).all()


def test_inner_networks_hold_out_every_training_tile_once() -> None:
    labels, groups = make_tiles(12, 0)
    parts = parts_of(labels, groups, 3, 0, inner=3)
    for fold in range(3):
        own = [np.array(part.split) for part in parts if part.fold == fold]
        held = sum((split == "val").astype(int) for split in own)
        np.testing.assert_array_equal(held, (own[0] != "test").astype(int))


def test_too_few_groups_for_inner_networks_are_told_with_the_fold() -> None:
    with pytest.raises(BadInput, match="fold 0, for --inner 4: 2 group"):
        parts_of(["a", "b"] * 9, ["x", "y", "z"] * 6, 3, 0, inner=4)


def test_the_random_arm_has_its_own_name_and_splits_single_tiles() -> None:
    labels, groups = make_tiles(8, 1)
    parts = parts_of(labels, None, 4, 3)
    assert {part.arm for part in parts} == {"random"}
    assert any(len({s for g, s in zip(groups, parts[0].split, strict=True) if g == group}) > 1 for group in groups)


def test_seeds_draw_other_folds() -> None:
    labels, groups = make_tiles(12, 2)
    parts = parts_of(labels, groups, 3, 0, 1)
    assert [p.split for p in parts if p.seed == 0] != [p.split for p in parts if p.seed == 1]


def test_a_class_in_one_group_is_absent_where_that_group_is_tested_and_listed() -> None:
    groups = [f"g{i % 4}" for i in range(40)] + ["g0"] * 5
    labels = ["a", "a", "a", "a", "b", "b", "b", "b"] * 5 + ["rare"] * 5
    parts = parts_of(labels, groups, 4, 0)
    holes = [absent_classes(part, labels) for part in parts]
    assert holes[0]["train"] == ["rare"]
    assert all("test" in hole and hole["test"] == ["rare"] for hole in holes[1:])
    check_parts(parts, labels)


def test_a_part_without_two_classes_to_train_on_is_refused_by_name() -> None:
    part = Part("grouped", 0, 1, None, ["train", "train", "val", "test"])
    with pytest.raises(BadInput, match="grouped-seed0-fold1 has 1 class"):
        check_parts([part], ["a", "a", "b", "b"])
