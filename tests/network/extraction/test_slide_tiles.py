"""Tiles of a slide: the slide is one source, whose colours are normalised by its own tiles."""

import dataclasses
from pathlib import Path
from typing import Any, cast

import numpy as np

from pipeline.errors import BadTile
from pipeline.network.extraction.slide_tiles import SlideTiles
from pipeline.network.preprocess import Preprocess
from pipeline.tiles.stain_normalisation import Source, SourceColours, Stains, fit_sources

TARGET = Stains((240.0, 240.0, 240.0), ((0.65, 0.7, 0.29), (0.27, 0.85, 0.45)), (1.5, 1.2))
COORDS = np.array([(16 * i, 0) for i in range(8)], np.int32)


@dataclasses.dataclass
class Stained:
    """A slide of random stains; its last tile cannot be decoded."""

    path = Path("slide.tiff")

    def read_tile(self, x: int, y: int, side: int, px: int) -> np.ndarray:
        if x == 16 * (len(COORDS) - 1):
            raise BadTile("lost")
        amounts = np.random.default_rng(x).gamma(2, 0.3, (px, px, 2))
        return np.rint(200 * np.exp(-amounts @ np.array(TARGET.vectors))).astype(np.uint8)


def test_the_slide_is_one_source() -> None:
    slide: Any = cast("Any", Stained())
    plain = SlideTiles(slide, COORDS, side=16, preprocess=Preprocess(24))
    raw = [plain[row][1] for row in range(7)]
    fits = fit_sources([Source()] * 8, range(8), lambda row: raw[row] if row < 7 else None)
    colours = SourceColours(fits, TARGET)
    tiles = SlideTiles(slide, COORDS, side=16, preprocess=Preprocess(24, stains=TARGET)).fit_colours()
    for row in range(7):
        np.testing.assert_array_equal(tiles[row][1], colours.apply(raw[row], Source()))
        assert (tiles[row][1] != raw[row]).any()
        assert tiles[row][2].tobytes() == plain[row][2].tobytes()  # the hash is of the stored pixels
    assert tiles[7][3] == "lost"
