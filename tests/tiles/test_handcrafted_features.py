"""Features worked out by hand, and that they are finite for every tile there can be."""

import warnings

import numpy as np
import pytest
from skimage.color import rgb2hsv

from pipeline.tiles.handcrafted_features import (
    CHANNELS,
    GLCM_DISTANCES,
    HANDCRAFTED_NAMES,
    N_COLOURS,
    STATISTICS,
    colour_histogram,
    handcrafted_features,
)


def flat(colour: tuple[int, int, int], height: int = 12, width: int = 12) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


def named(pixels: np.ndarray) -> dict[str, float]:
    return dict(zip(HANDCRAFTED_NAMES, handcrafted_features(pixels).tolist(), strict=True))


def checkerboard(low: int, high: int, n: int = 16) -> np.ndarray:
    board = np.where(np.indices((n, n)).sum(axis=0) % 2 == 0, low, high).astype(np.uint8)
    return np.repeat(board[..., None], 3, axis=-1)


def test_names_are_unique_and_match_the_columns() -> None:
    assert len(set(HANDCRAFTED_NAMES)) == len(HANDCRAFTED_NAMES) == len(handcrafted_features(flat((1, 2, 3)))) == 107
    assert HANDCRAFTED_NAMES[: len(STATISTICS)] == tuple(f"red_{name}" for name in STATISTICS)


def test_colours_fall_into_their_cells() -> None:
    pixels = flat((0, 0, 0), 4, 4)
    pixels[0] = (255, 40, 96)  # cells 7, 1 and 3 of eight
    found = colour_histogram(pixels)
    assert found.shape == (N_COLOURS,)
    assert found.dtype == np.float32
    assert found[7 * 64 + 1 * 8 + 3] == pytest.approx(np.sqrt(4 / 16))
    assert found[0] == pytest.approx(np.sqrt(12 / 16))
    assert (found > 0).sum() == 2
    assert np.linalg.norm(found) == pytest.approx(1)


def test_bounds_of_the_cells() -> None:
    for value in (0, 31, 32, 223, 224, 255):
        assert colour_histogram(flat((value, 0, 0)))[64 * (value // 32)] == 1


def test_a_constant_tile() -> None:
    found = named(flat((200, 120, 180)))
    for channel in CHANNELS:
        assert found[f"{channel}_std"] == pytest.approx(0, abs=1e-6)
        assert found[f"{channel}_skewness"] == 0
        assert found[f"{channel}_p5"] == found[f"{channel}_p95"] == pytest.approx(found[f"{channel}_mean"], rel=1e-5)
    assert found["red_mean"] == pytest.approx(200 / 255)
    assert found["value_mean"] == pytest.approx(200 / 255)
    assert found["saturation_mean"] == pytest.approx(80 / 200)
    assert found["lbp8_1px_8"] == found["lbp16_2px_16"] == 1, "all neighbours are as bright as the centre"
    for distance in GLCM_DISTANCES:
        assert found[f"glcm_contrast_{distance}px"] == found[f"glcm_dissimilarity_{distance}px"] == 0
        assert found[f"glcm_homogeneity_{distance}px"] == found[f"glcm_energy_{distance}px"] == 1


def test_a_checkerboard() -> None:
    """Grey levels 0 and 8 of 32: side neighbours differ by 8, corner neighbours not at all."""
    found = named(checkerboard(0, 64))
    assert found["red_mean"] == pytest.approx(32 / 255)
    assert found["red_std"] == pytest.approx(32 / 255, rel=1e-5)
    assert found["red_skewness"] == pytest.approx(0, abs=1e-5)
    assert (found["red_p25"], found["red_p75"]) == (0, pytest.approx(64 / 255))
    assert found["glcm_contrast_1px"] == pytest.approx((64 + 0 + 64 + 0) / 4)
    assert found["glcm_dissimilarity_1px"] == pytest.approx((8 + 0 + 8 + 0) / 4)
    assert found["glcm_homogeneity_1px"] == pytest.approx((1 / 65 + 1 + 1 / 65 + 1) / 4)
    assert found["glcm_energy_1px"] == pytest.approx(np.sqrt(0.5), abs=0.01)
    assert found["glcm_correlation_1px"] == pytest.approx(0, abs=0.01)
    assert found["glcm_contrast_2px"] == found["glcm_contrast_4px"] == 0
    assert found["glcm_correlation_2px"] == pytest.approx(1)
    assert sum(found[f"lbp8_1px_{i}"] for i in range(10)) == pytest.approx(1)


def test_a_skewed_channel_has_a_positive_skewness() -> None:
    pixels = flat((10, 10, 10), 10, 10)
    pixels[0, 0] = 255  # one of 100: (1 - 2 q) / sqrt(q (1 - q)) at q = 0.01
    assert named(pixels)["red_skewness"] == pytest.approx(0.98 / np.sqrt(0.0099), rel=1e-4)


def test_hue_is_that_of_scikit_image_turned_by_half_a_circle() -> None:
    rng = np.random.default_rng(0)
    for colour in rng.integers(0, 256, (40, 3)):
        found = named(flat(tuple(colour)))
        hue, saturation, value = rgb2hsv(np.uint8([[colour]]))[0, 0]
        assert abs((found["hue_mean"] - hue) % 1 - 0.5) < 1e-5
        assert found["saturation_mean"] == pytest.approx(saturation, abs=1e-6)
        assert found["value_mean"] == pytest.approx(value, abs=1e-6)


def test_stains_are_told_apart() -> None:
    blue, pink = named(flat((110, 90, 170))), named(flat((235, 150, 190)))
    assert blue["haematoxylin_mean"] > 2 * pink["haematoxylin_mean"]
    assert pink["eosin_mean"] > blue["eosin_mean"]


def test_texture_does_not_depend_on_where_the_tile_ends() -> None:
    """A border that counts as black would tell small tiles from large ones."""
    small, large = named(flat((180, 90, 120), 7, 50)), named(flat((180, 90, 120), 64, 64))
    assert small == pytest.approx(large, abs=1e-5)


@pytest.mark.fault("stain estimation on a white tile")
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 3), (4, 4), (7, 50), (50, 7), (33, 33)])
def test_every_tile_gives_finite_numbers_without_a_warning(shape: tuple[int, int]) -> None:
    """Warnings are errors while other threads decode."""
    rng = np.random.default_rng(1)
    tiles = [flat(colour, *shape) for colour in ((0, 0, 0), (255, 255, 255), (255, 0, 0), (3, 200, 7))]
    tiles += [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for _ in range(3)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for tile in tiles:
            found = handcrafted_features(tile)
            assert found.dtype == np.float32
            assert np.isfinite(found).all()
            assert np.linalg.norm(colour_histogram(tile)) == pytest.approx(1, abs=1e-5)


def test_the_tile_is_left_as_it_is_and_may_be_read_only() -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    before = pixels.copy()
    pixels.flags.writeable = False
    first, second = handcrafted_features(pixels), handcrafted_features(pixels)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(pixels, before)
