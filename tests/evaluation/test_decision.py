"""Decisions corrected for the class shares: the rule, and the choice of its strength by cross-validation."""

import math

import numpy as np
import pytest

from pipeline.evaluation.decision import STRENGTHS, choose_prior_correction, decided, log_shares


def test_the_half_prior_moves_the_threshold_to_half_of_its_log_odds() -> None:
    shares = np.log([0.8, 0.2])
    threshold = 1 / (1 + math.exp(-0.5 * math.log(0.2 / 0.8)))  # 1/3
    p1 = np.array([threshold - 0.01, threshold + 0.01])
    p = np.column_stack([1 - p1, p1])
    assert decided(p, 0.5 * shares).tolist() == [0, 1]
    assert decided(p, 0 * shares).tolist() == [0, 0]
    assert decided(np.array([[1.0, 0.0]]), shares).tolist() == [0]


def test_shares_count_one_more_row_of_each_class() -> None:
    assert np.exp(log_shares(np.array([0, 0, 1]), 3)).tolist() == pytest.approx([3 / 6, 2 / 6, 1 / 6])


def overlapping(n: int, *, seed: int, rare: float) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return scores of two overlapping classes, one of them rare."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < rare).astype(np.int64)
    x = rng.normal(size=n) + 1.5 * y
    log_odds = 1.5 * x - 1.5**2 / 2 + math.log(rare / (1 - rare))
    return np.column_stack([np.zeros(n), log_odds]), y, [f"g{i % 20}" for i in range(n)]


def test_a_rare_class_gets_a_correction_and_equal_classes_get_none() -> None:
    rare = choose_prior_correction(*overlapping(3000, seed=0, rare=0.1), method="temperature", seed=0)
    assert rare.strength in (0.5, 0.75)
    assert rare.macro_f1[str(rare.strength)] > rare.macro_f1["0.0"] + 0.02
    assert list(rare.macro_f1) == [str(strength) for strength in STRENGTHS]
    assert np.exp(rare.log_prior).tolist() == pytest.approx([0.9, 0.1], abs=0.02)
    scores, y, groups = overlapping(3000, seed=0, rare=0.5)
    y[:] = np.arange(len(y)) % 2
    scores[:, 1] = np.where(y == 1, 2.0, -2.0)  # no overlap: every strength is as good
    assert choose_prior_correction(scores, y, groups, method="temperature", seed=0).strength == 0.0


def test_a_single_row_leaves_nothing_to_choose_by() -> None:
    found = choose_prior_correction([[0.0, 1.0]], np.array([1]), ["g"], method="temperature", seed=0)
    assert (found.strength, found.macro_f1) == (0.0, {})
