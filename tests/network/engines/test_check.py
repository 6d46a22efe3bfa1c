"""The check: how close an engine must be to plain fp32, and which changed classes count."""

import numpy as np
import pytest

from pipeline.network.engines.check import LEAST_COSINE, MARGIN, Agreement, agree

rng = np.random.default_rng(0)
FEATURES = rng.random((40, 16)).astype(np.float32)
LOGITS = rng.normal(size=(40, 3)).astype(np.float32)


def noise(share: float) -> np.ndarray:
    """Return noise with a share of the spread of the features."""
    made = rng.normal(size=FEATURES.shape)
    spread = np.linalg.norm(FEATURES - FEATURES.mean(axis=0))
    return (made * share * spread / np.linalg.norm(made)).astype(np.float32)


def test_the_same_answers_pass() -> None:
    found = agree((FEATURES, LOGITS), (FEATURES, LOGITS))
    assert found.cosine == pytest.approx(1)
    assert (found.changed, found.tiles, found.passes) == (0, 40, True)


@pytest.mark.parametrize(("share", "passes"), [(0.03, True), (0.06, False)])
def test_errors_are_weighed_by_the_features_spread(share: float, passes: bool) -> None:
    """Not by their size: an offset common to all tiles makes plain cosines look good."""
    found = agree((FEATURES + 100 + noise(share), LOGITS), (FEATURES + 100, LOGITS))
    assert found.passes is passes
    assert found.cosine == pytest.approx(1 - share**2 / 2, abs=3e-4)


def test_two_tiles_exchanged_fail() -> None:
    order = [1, 0, *range(2, 40)]
    assert agree((FEATURES[order], LOGITS), (FEATURES, LOGITS)).cosine < LEAST_COSINE


@pytest.mark.parametrize(("lead", "changed"), [(0.9 * MARGIN, 0), (1.1 * MARGIN, 1)])
def test_a_changed_class_counts_beyond_the_margin(lead: float, changed: int) -> None:
    reference = np.array([[5, 5 - lead, 0], [0, 0, 9]], np.float32)
    found = np.array([[5, 6, 0], [0, 0, 9]], np.float32)
    agreement = agree((FEATURES[:2], found), (FEATURES[:2], reference))
    assert agreement.changed == changed
    assert agreement.passes is (changed == 0)


def test_tiles_that_are_all_alike_are_compared_as_they_are() -> None:
    """Their deviations from the mean are rounding."""
    same = np.repeat(FEATURES[:1], 5, axis=0)
    rounded = same * (1 + 1e-6 * rng.normal(size=same.shape)).astype(np.float32)
    assert agree((rounded, LOGITS[:5]), (same, LOGITS[:5])).passes
    assert not agree((same[:, ::-1], LOGITS[:5]), (same, LOGITS[:5])).passes


def test_features_that_are_all_zero() -> None:
    nothing = np.zeros_like(FEATURES)
    assert agree((nothing, LOGITS), (nothing, LOGITS)).passes
    assert not agree((FEATURES, LOGITS), (nothing, LOGITS)).passes


def test_what_is_not_a_number_fails() -> None:
    broken = FEATURES.copy()
    broken[3, 3] = np.nan
    assert not agree((broken, LOGITS), (FEATURES, LOGITS)).passes


def test_it_is_told_in_words() -> None:
    assert str(Agreement(0.9987654, 2, 64)) == "cosine 0.99877 to fp32, 2 of 64 tiles in another class"
