"""Read the tiles of a slide when they are needed: no tile is ever written to disk."""

import numpy as np

from pipeline.network.preprocess import Preprocess
from pipeline.network.tile_files import TileSource
from pipeline.slides.base import Slide
from pipeline.tiles.decoding import pixel_hash
from pipeline.tiles.stain_normalisation import Source


class SlideTiles(TileSource):
    """Read squares of a slide as the network gets them; a region that cannot be decoded is a problem, never white.

    The slide is one source.

    Args:
        slide: open; each process that reads opens it again.
        coords: (N, 2) int32, x and y of the upper left corners in level-0 px.
        side: side of a tile in level-0 px.
        preprocess: makes the network's input of a tile, which is read at its size and hashed before.
    """

    def __init__(self, slide: Slide, coords: np.ndarray, *, side: int, preprocess: Preprocess) -> None:
        super().__init__(slide.path, preprocess, [Source()] * len(coords))
        self.slide, self.coords, self.side = slide, coords, side

    def __len__(self) -> int:
        return len(self.coords)

    def name(self, row: int) -> str:
        """See `TileSource`."""
        x, y = self.coords[row]
        return f"{self.slide.path} at {x}, {y}"

    def read(self, row: int) -> tuple[np.ndarray, bytes]:
        """See `TileSource`."""
        x, y = (int(value) for value in self.coords[row])
        pixels = self.slide.read_tile(x, y, self.side, self.preprocess.size)
        return pixels, pixel_hash(pixels)
