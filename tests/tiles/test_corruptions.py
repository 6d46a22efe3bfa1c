"""Corruptions are what they say: fixed, visible, of the tile's shape; and nothing else is changed."""

import numpy as np
import pytest
from skimage.color import hed2rgb, rgb2hed

from pipeline.tiles import corruptions
from pipeline.tiles.corruptions import CORRUPTIONS

NAMES = list(CORRUPTIONS)


@pytest.fixture
def tile() -> np.ndarray:
    """A pink tile with dark nuclei, 40 x 40 px."""
    rng = np.random.default_rng(3)
    pixels = rng.normal((225, 170, 200), 12, (40, 40, 3))
    for row, column in rng.integers(2, 37, (14, 2)):
        pixels[row - 2 : row + 3, column - 2 : column + 3] = rng.normal((95, 70, 140), 8, (5, 5, 3))[:5, :5]
    return np.clip(pixels, 0, 255).astype(np.uint8)


@pytest.mark.fault("pixels that are no numbers")
@pytest.mark.parametrize("name", NAMES)
def test_every_corruption_is_deterministic_and_leaves_its_input_alone(name: str, tile: np.ndarray) -> None:
    before = tile.copy()
    out = CORRUPTIONS[name].apply(tile)
    assert out.dtype == np.uint8
    assert out.shape == tile.shape
    assert out.flags.c_contiguous
    np.testing.assert_array_equal(out, CORRUPTIONS[name].apply(tile.copy()))
    np.testing.assert_array_equal(tile, before)
    assert not np.shares_memory(out, tile)


@pytest.mark.parametrize("name", NAMES)
def test_every_corruption_changes_a_tile_but_keeps_it_recognisable(name: str, tile: np.ndarray) -> None:
    out = CORRUPTIONS[name].apply(tile)
    assert (out != tile).any()
    upright = np.rot90(out, -1) if name == "rotation" else out
    assert 0 <= abs(upright.astype(float) - tile).mean() < 60
    nucleus = tile.sum(axis=2) < 400
    assert upright[nucleus].mean() < upright[~nucleus].mean() - 20


@pytest.mark.fault("stain estimation on a white tile")
@pytest.mark.fault("pixels that are no numbers")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("level", [0, 255])
@pytest.mark.parametrize("shape", [(1, 1), (7, 7), (64, 64)])
def test_the_ends_of_the_scale_do_not_wrap_around(name: str, level: int, shape: tuple[int, int]) -> None:
    """A uint8 overflow would turn white into black."""
    out = CORRUPTIONS[name].apply(np.full((*shape, 3), level, np.uint8))
    assert out.shape == (*shape, 3)
    assert abs(out.astype(int) - level).max() <= 64


def test_rotation_is_exact(tile: np.ndarray) -> None:
    out = corruptions.rotation(tile)
    np.testing.assert_array_equal(out[-1 - 5, 9], tile[9, 5])
    for _ in range(3):
        out = corruptions.rotation(out)
    np.testing.assert_array_equal(out, tile)
    assert corruptions.rotation(tile[:10]).shape == (40, 10, 3)


def test_colour_shift_and_brightness_by_hand() -> None:
    pixels = np.array([[[100, 200, 50], [0, 4, 250]]], np.uint8)
    np.testing.assert_array_equal(corruptions.colour_shift(pixels), [[[102, 202, 55], [12, 0, 255]]])
    np.testing.assert_array_equal(corruptions.brightness(pixels), [[[75, 150, 38], [0, 3, 188]]])


def test_stain_change_scales_the_stains(monkeypatch: pytest.MonkeyPatch, tile: np.ndarray) -> None:
    monkeypatch.setattr(corruptions, "STAIN", (1.0, 1.0, 1.0))
    np.testing.assert_array_equal(corruptions.stain_change(tile), tile)
    monkeypatch.undo()
    amounts = np.zeros((1, 3, 3))
    amounts[0, :, :2] = [(0.10, 0.05), (0.02, 0.12), (0.15, 0.0)]
    pixels = np.rint(255 * hed2rgb(amounts)).astype(np.uint8)
    expected = 255 * hed2rgb(rgb2hed(pixels) * np.array(corruptions.STAIN))
    np.testing.assert_allclose(corruptions.stain_change(pixels), expected, atol=1.5)  # rgb2hed cuts off rounding
    white = np.full((2, 2, 3), 255, np.uint8)
    np.testing.assert_array_equal(corruptions.stain_change(white), white)  # no stain, nothing to scale


def test_blur_grows_with_the_tile_and_keeps_the_mean() -> None:
    for side in (50, 200):
        pixels = np.zeros((side, side, 3), np.uint8)
        pixels[:, side // 2 :] = 200
        out = corruptions.blur(pixels)
        assert abs(out.mean() - pixels.mean()) < 1
        edge = out[0, :, 0].astype(float)
        spread = np.diff(edge) / 200
        at = np.arange(side - 1)
        sigma = np.sqrt((spread * at**2).sum() - (spread * at).sum() ** 2)
        assert sigma == pytest.approx(side / 100, abs=0.12)


def test_half_resolution_halves_it() -> None:
    checkers = np.indices((12, 12)).sum(axis=0) % 2 * 255
    grey = corruptions.half_resolution(np.repeat(checkers[..., None], 3, axis=2).astype(np.uint8))
    assert set(np.unique(grey)) <= {127, 128}
    flat = np.full((13, 9, 3), 77, np.uint8)
    np.testing.assert_array_equal(corruptions.half_resolution(flat), flat)


def test_jpeg_loses_fine_detail_only(tile: np.ndarray) -> None:
    out = corruptions.jpeg(tile).astype(float)
    assert 2 < abs(out - tile).mean() < 20
    assert abs(out.mean(axis=(0, 1)) - tile.mean(axis=(0, 1))).max() < 6


def test_descriptions_carry_the_numbers_that_are_used() -> None:
    assert all(corruption.apply.__name__ == name for name, corruption in CORRUPTIONS.items())
    assert CORRUPTIONS["colour_shift"].description.endswith("times 0.90, 1.05, 1.10 and moved by +12, -8, +0 of 255")
    assert "1.3 and eosin times 0.7" in CORRUPTIONS["stain_change"].description
    assert "quality 30" in CORRUPTIONS["jpeg"].description
    assert "sigma 1 %" in CORRUPTIONS["blur"].description
