"""What embeddings know of the source, and how separable their classes are."""

import numpy as np
import pytest

from pipeline.heads.base import Rows
from pipeline.heads.probes import separability, source_probe

PARAMS = {"kernel": "linear", "C": 0.1}


def rows(*, source_strength: float, class_strength: float = 2.0, n: int = 120, n_groups: int = 4) -> Rows:
    rng = np.random.default_rng(0)
    group, y = np.arange(n) % n_groups, (np.arange(n) // n_groups) % 2
    features = rng.normal(size=(n, 10))
    features[:, 0] += class_strength * y
    features[np.arange(n), 2 + group] += source_strength
    logits = np.column_stack([1 - y, y]).astype(np.float32)
    return Rows(features.astype(np.float32), logits, y, np.array([f"s{g}" for g in group]))


def test_a_source_that_shows_is_named_and_one_that_does_not_is_not() -> None:
    plain, strong = (source_probe(rows(source_strength=s), PARAMS, seed=0) for s in (0.0, 6.0))
    assert strong["accuracy"] > 0.95
    assert plain["accuracy"] < 0.45
    assert plain["chance"] == plain["chance_balanced"] == 0.25
    assert (plain["n_groups"], plain["n_tiles"]) == (4, 120)


def test_groups_too_small_or_unknown_give_the_reason() -> None:
    few = rows(source_strength=1.0, n=12, n_groups=4)
    assert "fewer than two" in source_probe(few, PARAMS, seed=0)["reason"]
    unknown = Rows(few.features, few.logits, few.y, np.array([""] * 12))
    assert source_probe(unknown, PARAMS, seed=0)["reason"] == "groups are not known"


def test_scatter_ratio_by_hand() -> None:
    features = np.array([[0, 0], [2, 0], [10, 0], [12, 0]], np.float32)
    found = separability(Rows(features, np.array([[1, 0], [1, 0], [0, 1], [1, 0]], np.float32), np.array([0, 0, 1, 1])))
    assert found["scatter_ratio"] == pytest.approx((4 * 25) / 4)  # means 1 and 11 about 6; two pairs 1 from theirs
    assert found["accuracy"] == 0.75
    assert separability(Rows(features[:1], np.zeros((1, 2), np.float32), np.array([0])))["scatter_ratio"] is None
