"""Read the tiles of a slide when they are needed: no tile is ever written to disk."""

import numpy as np

from pipeline.errors import BadTile
from pipeline.network.batches import Item, TileSource, network_input
from pipeline.slides.base import Slide
from pipeline.tiles.decoding import pixel_hash
from pipeline.tiles.stain_normalisation import Stain


class SlideTiles(TileSource):
    """Read squares of a slide as the network gets them; a region that cannot be decoded is a problem, never white.

    Args:
        slide: open; each process that reads opens it again.
        coords: (N, 2) int32, x and y of the upper left corners in level-0 px.
        side: side of a tile in level-0 px.
        size: side of the returned tiles in px.
        stain: target that tiles are normalised to, after they were hashed.
    """

    def __init__(self, slide: Slide, coords: np.ndarray, *, side: int, size: int, stain: Stain | None = None) -> None:
        self.slide, self.coords, self.side, self.size = slide, coords, side, size
        self.place, self.stain = slide.path, stain

    def __len__(self) -> int:
        return len(self.coords)

    def name(self, row: int) -> str:
        """See `TileSource`."""
        x, y = self.coords[row]
        return f"{self.slide.path} at {x}, {y}"

    def __getitem__(self, row: int) -> Item:
        x, y = (int(value) for value in self.coords[row])
        try:
            pixels = self.slide.read_tile(x, y, self.side, self.size)
        except BadTile as error:
            return row, np.zeros((self.size, self.size, 3), np.uint8), np.zeros(32, np.uint8), str(error)
        digest = np.frombuffer(pixel_hash(pixels), np.uint8)
        return row, network_input(pixels, self.size, self.stain), digest, ""
