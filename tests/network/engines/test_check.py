"""The check: how close an engine must be to plain fp32, and which changed classes count."""

import numpy as np
import pytest

from pipeline.network.engines.check import LEAST_COSINE, LEAST_RESOLUTION, Agreement, agree

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


def outputs(fp32: list[list[float]], engine: list[list[float]]) -> tuple[np.ndarray, np.ndarray]:
    """Return logits (N, K) of fp32 and of an engine; a hundred more tiles far from any border keep their cosine."""
    far = [[20.0, 0.0, 0.0], [0.0, 20.0, 0.0]] * 50
    return np.array(far + fp32, np.float32), np.array(far + engine, np.float32)


@pytest.mark.parametrize(("margin", "passes"), [(0.9 * LEAST_RESOLUTION, True), (1.1 * LEAST_RESOLUTION, False)])
def test_a_changed_class_counts_beyond_the_least_resolution(margin: float, passes: bool) -> None:
    reference, found = outputs([[5, 5 - margin, 0]], [[5 - margin, 5, 0]])
    features = np.resize(FEATURES, (len(reference), 16))
    agreement = agree((features, found), (features, reference))
    assert (agreement.changed, agreement.tiles, agreement.passes) == (1, 101, passes)
    assert agreement.margin == pytest.approx(margin, abs=1e-6)
    assert agreement.resolution == LEAST_RESOLUTION


@pytest.mark.parametrize(("error", "passes"), [(0.3, True), (0.2, False)])
def test_a_changed_class_counts_beyond_the_errors_of_unchanged_tiles(error: float, passes: bool) -> None:
    """A margin of 0.25 is within rounding where the margin of a tile that keeps its class is off by 0.3."""
    fp32 = [[5, 4.75, 0], [0, 7, 2]]
    reference, found = outputs(fp32, [[4.7, 4.9, 0], [0, 7 - error / 2, 2 + error / 2]])
    features = np.resize(FEATURES, (len(reference), 16))
    agreement = agree((features, found), (features, reference))
    assert agreement.changed == 1
    assert agreement.margin == pytest.approx(0.25)
    assert agreement.resolution == pytest.approx(error, abs=1e-5)
    assert agreement.passes is passes


def test_the_margin_is_that_over_the_class_of_the_engine() -> None:
    """Another class may be nearer to fp32's own."""
    reference, found = outputs([[5, 4.99, 0]], [[5, 4.99, 6]])
    features = np.resize(FEATURES, (len(reference), 16))
    agreement = agree((features, found), (features, reference))
    assert agreement.margin == pytest.approx(5)
    assert not agreement.passes


def test_the_errors_of_a_changed_tile_do_not_excuse_it() -> None:
    reference, found = outputs([[5, 3, 0]], [[3, 5, 0]])
    features = np.resize(FEATURES, (len(reference), 16))
    agreement = agree((features, found), (features, reference))
    assert (agreement.margin, agreement.resolution, agreement.passes) == (2, LEAST_RESOLUTION, False)


def test_one_class_has_no_margin() -> None:
    assert agree((FEATURES, LOGITS[:, :1]), (FEATURES, LOGITS[:, :1])).passes


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


@pytest.mark.parametrize("part", [0, 1])
def test_what_is_not_a_number_fails(part: int) -> None:
    broken = [FEATURES.copy(), LOGITS.copy()]
    broken[part][3, 2] = np.nan
    assert not agree((broken[0], broken[1]), (FEATURES, LOGITS)).passes


def test_its_text_has_all_numbers() -> None:
    assert str(Agreement(0.9987654, 0, 64, 0, 0.1)) == "cosine 0.99877 to fp32, 0 of 64 tiles in another class"
    text = str(Agreement(0.9987654, 2, 64, 0.1526, 0.2101))
    assert all(number in text for number in ("0.99877", "2 of 64", "0.153", "0.210"))
