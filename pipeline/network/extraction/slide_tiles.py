"""Read the tiles of a slide when they are needed: no tile is ever written to disk."""

import numpy as np

from pipeline.errors import BadTile
from pipeline.network.batches import Item, TileSource
from pipeline.network.preprocess import Preprocess
from pipeline.slides.base import Slide
from pipeline.tiles.decoding import pixel_hash


class SlideTiles(TileSource):
    """Read squares of a slide as the network gets them; a region that cannot be decoded is a problem, never white.

    Args:
        slide: open; each process that reads opens it again.
        coords: (N, 2) int32, x and y of the upper left corners in level-0 px.
        side: side of a tile in level-0 px.
        preprocess: makes the network's input of a tile, which is read at its size and hashed before.
    """

    def __init__(self, slide: Slide, coords: np.ndarray, *, side: int, preprocess: Preprocess) -> None:
        self.slide, self.coords, self.side = slide, coords, side
        self.place, self.preprocess, self.size = slide.path, preprocess, preprocess.input_px

    def __len__(self) -> int:
        return len(self.coords)

    def name(self, row: int) -> str:
        """See `TileSource`."""
        x, y = self.coords[row]
        return f"{self.slide.path} at {x}, {y}"

    def __getitem__(self, row: int) -> Item:
        x, y = (int(value) for value in self.coords[row])
        try:
            pixels = self.slide.read_tile(x, y, self.side, self.preprocess.size)
        except BadTile as error:
            return row, np.zeros((self.size, self.size, 3), np.uint8), np.zeros(32, np.uint8), str(error)
        digest = np.frombuffer(pixel_hash(pixels), np.uint8)
        return row, self.preprocess.apply(pixels), digest, ""
