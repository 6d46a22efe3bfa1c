"""Tissue is found by colour: none on glass, all of a picture full of it, with fat and gaps; damage is never dropped."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.slides.base import Thumbnail
from pipeline.slides.tissue import THRESHOLDS, closed, find_tissue, saturation, tissue_shares, white_balanced
from pipeline.tiles.synthetic.tiles import CLASSES, render_tile


def thumbnail(pixels: np.ndarray, downsample: float = 8.0) -> Thumbnail:
    """Return a thumbnail that could be decoded."""
    return Thumbnail(pixels, downsample, np.zeros(pixels.shape[:2], bool))


def drawn(label: str, source: int, n: int = 4) -> np.ndarray:
    """Return n x n demo tiles of a class, made 5 times smaller, (15 n, 15 n, 3) uint8."""
    rows = []
    for i in range(n):
        tiles = [
            render_tile(label, source=source, tile_px=75, rng=np.random.default_rng([i, j, source])) for j in range(n)
        ]
        rows.append(np.concatenate(tiles, axis=1))
    return np.asarray(Image.fromarray(np.concatenate(rows)).reduce(5))


@pytest.mark.parametrize("source", [3, 4, 7])
def test_glass_is_no_tissue_and_tissue_is(source: int) -> None:
    """Stains and white balances of the demo's sources; 7 is yellowish."""
    glass, tumor, fat = (drawn(label, source) for label in ("08_EMPTY", "01_TUMOR", "07_ADIPOSE"))
    both = np.concatenate([glass, tumor, glass])
    found = find_tissue(thumbnail(both), mpp=0.5, threshold=None)
    mask, threshold = found.mask, found.threshold
    assert not found.ink.any()
    side = len(glass)
    assert THRESHOLDS[0] <= threshold <= THRESHOLDS[1]
    assert mask[side + 3 : 2 * side - 3].mean() > 0.99
    assert mask[: side - 15].mean() < 0.03
    assert find_tissue(thumbnail(glass), mpp=0.5, threshold=None).mask.mean() < 0.03
    assert find_tissue(thumbnail(tumor), mpp=0.5, threshold=None).mask.mean() > 0.97
    with_fat = find_tissue(thumbnail(np.concatenate([glass, fat, tumor, glass])), mpp=0.5, threshold=None).mask
    assert with_fat[side + 10 : 2 * side].mean() > 0.7


def test_black_is_no_tissue() -> None:
    """A scanner's edge has no colour that means anything."""
    pixels = np.full((40, 40, 3), 240, np.uint8)
    pixels[:, :20] = (12, 0, 3)
    assert not saturation(white_balanced(pixels))[:, :18].any()


def test_a_threshold_of_the_user_is_taken_as_it_is() -> None:
    pixels = np.full((40, 40, 3), 200, np.uint8)
    pixels[:, 20:] = (200, 150, 180)  # saturation 0.25
    for threshold, share in ((0.2, 0.5), (0.3, 0.0)):
        found = find_tissue(thumbnail(pixels, 1000), mpp=0.5, threshold=threshold)
        assert found.threshold == threshold
        assert found.mask.mean() == pytest.approx(share, abs=0.06)


def test_what_could_not_be_decoded_counts_as_tissue() -> None:
    unreadable = np.zeros((40, 40), bool)
    unreadable[10:20, 10:20] = True
    found = find_tissue(Thumbnail(np.full((40, 40, 3), 240, np.uint8), 8, unreadable), mpp=0.5, threshold=None)
    assert np.array_equal(found.mask, unreadable)


def test_gaps_are_closed_and_outlines_stay() -> None:
    mask = np.zeros((60, 60), bool)
    mask[20:40, 20:40] = True
    mask[28:32, 28:32] = False
    whole = closed(mask, 4.0)
    assert whole[28:32, 28:32].all()
    assert whole.sum() == 400
    assert not closed(np.zeros((9, 9), bool), 3.0).any()
    edge = np.zeros((30, 30), bool)
    edge[:, 0] = True
    assert np.array_equal(closed(edge, 5.0), edge)  # the border of the picture closes nothing


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1000), side=st.integers(1, 9), step=st.integers(1, 5))
def test_shares_are_those_counted_px_by_px(seed: int, side: int, step: int) -> None:
    mask = np.random.default_rng(seed).random((23, 31)) < 0.4
    x, y = np.arange(0, 31 - side + 1, step), np.arange(0, 23 - side + 1, step)
    expected = [[mask[top : top + side, left : left + side].mean() for left in x] for top in y]
    np.testing.assert_allclose(tissue_shares(mask, x.astype(float), y.astype(float), side), expected, atol=1e-6)


def test_shares_of_squares_between_pixels() -> None:
    mask = np.array([[1, 0], [0, 0]], bool)
    found = tissue_shares(mask, np.array([0.0, 0.5, 1.0]), np.array([0.5]), 1.0)
    np.testing.assert_allclose(found, [[0.5, 0.25, 0]])


def test_every_class_of_the_demo_but_glass_is_tissue() -> None:
    for label in CLASSES[:6]:
        assert find_tissue(thumbnail(drawn(label, 3, n=3)), mpp=0.5, threshold=None).mask.mean() > 0.8, label
