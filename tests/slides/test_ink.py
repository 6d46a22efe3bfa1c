"""Pen marks are found by colour, and no tissue is taken for ink."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.slides.base import Thumbnail
from pipeline.slides.ink import ink_mask
from pipeline.slides.tissue import find_tissue
from pipeline.tiles.synthetic.tiles import CLASSES, render_tile

REAL = Path(__file__).parents[2] / "../shared/data"
INKS = {
    "green": (20, 120, 90),
    "pale green": (110, 175, 160),
    "blue": (30, 60, 170),
    "pale blue": (60, 118, 204),
    "red": (200, 30, 40),
    "crimson": (220, 20, 60),
    "black": (25, 25, 28),
    "blue-black": (25, 30, 45),
}
UM = 2.0
"""um per px of the pictures here."""


def drawn(colour: tuple[int, int, int] | None, *, tissue: tuple[int, int, int] = (200, 120, 180)) -> np.ndarray:
    """Return glass (400, 400, 3) uint8 with tissue in the upper half and a stroke of 160 x 600 um in the lower."""
    rng = np.random.default_rng(0)
    pixels = np.full((400, 400, 3), 242.0)
    pixels[40:180, 40:360] = np.array(tissue) + rng.normal(0, 20, (140, 320, 1))
    if colour is not None:
        pixels[260:340, 50:350] = np.array(colour) + rng.normal(0, 6, (80, 300, 1))
    return np.clip(pixels + rng.normal(0, 1.5, (400, 400, 1)), 0, 255).astype(np.uint8)


def thumbnail(pixels: np.ndarray) -> Thumbnail:
    return Thumbnail(pixels, UM / 0.5, np.zeros(pixels.shape[:2], bool))


@pytest.mark.parametrize("ink", INKS)
def test_strokes_are_left_out_and_the_tissue_stays(ink: str) -> None:
    plain = find_tissue(thumbnail(drawn(None)), mpp=0.5, threshold=None)
    found = find_tissue(thumbnail(drawn(INKS[ink])), mpp=0.5, threshold=None)
    assert not plain.ink.any()
    assert found.ink[260:340, 50:350].mean() > 0.99
    assert not found.mask[220:].any()
    assert found.mask[:200].sum() == pytest.approx(plain.mask[:200].sum(), rel=0.005)
    assert not find_tissue(thumbnail(drawn(INKS[ink])), mpp=0.5, threshold=0.05).mask[220:].any()
    kept = find_tissue(thumbnail(drawn(INKS[ink])), mpp=0.5, threshold=None, keep_ink=True)
    assert not kept.ink.any()


@pytest.mark.parametrize(
    "colour",
    [
        (215, 110, 160),  # eosin
        (90, 50, 120),  # haematoxylin
        (60, 25, 80),  # a fold
        (190, 70, 90),  # blood
        (150, 160, 195),  # haematoxylin alone, as in immunohistochemistry
        (120, 75, 45),  # DAB
        (3, 3, 3),  # what scanners paint black
    ],
)
def test_colours_of_tissue_are_no_ink(colour: tuple[int, int, int]) -> None:
    assert not ink_mask(drawn(colour).astype(np.float32), UM).any()


def test_no_demo_tissue_is_taken_for_ink() -> None:
    for source in (1, 4, 7, 10):
        for label in CLASSES:
            tile = render_tile(label, source=source, tile_px=300, rng=np.random.default_rng(source))
            for step in (1, 5):
                assert not ink_mask(np.asarray(Image.fromarray(tile).reduce(step), np.float32), 0.5 * step).any(), label


@pytest.mark.skipif(not REAL.is_dir(), reason="the real tiles are not here")
@pytest.mark.parametrize(("folder", "px"), [("colorectal5", 224), ("idc_patches", 50), ("nct_crc_he", 224)])
@pytest.mark.parametrize("step", [4, 20])
def test_no_real_tissue_is_taken_for_ink(folder: str, px: int, step: int) -> None:
    """A mosaic of tiles at the scale of thumbnails."""
    files = sorted(file for file in (REAL / folder).rglob("*") if file.suffix in (".png", ".jpeg", ".jpg", ".tif"))
    files = files[:: max(1, len(files) // 144)][:144]
    side = px // step
    tiles = [np.asarray(Image.open(file).convert("RGB").resize((side, side), Image.Resampling.BOX)) for file in files]
    rows = [np.concatenate(tiles[i : i + 12], axis=1) for i in range(0, len(tiles) // 12 * 12, 12)]
    assert not ink_mask(np.concatenate(rows).astype(np.float32), 0.5 * step).any()
