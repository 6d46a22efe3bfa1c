"""From tiles to cells: a map has one cell per step of the stride, and overlapping tiles share in it.

A cell's probabilities are the mean of those of the tiles that cover it, weighted by the part of the cell that each
covers; its class is the likeliest of that mean. Where the stride is the tile's side, a cell is a tile.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from pipeline.errors import BadInput
from pipeline.evaluation.validate import FloatArray, IntArray, NumberArray
from pipeline.storage.embeddings.slide_info import SlideInfo

MOST_CELLS = 20_000_000
"""Cells of a map; 100,000 x 100,000 px at a stride of 32 px have half as many."""

SPARSE_VALUES, CELLS_PER_TILE = 20_000_000, 200
"""Probabilities of a map that are always allowed (80 MB), and beyond these cells for each tile: two tiles at the ends
of a slide must not cost what a whole slide does, for a file that says so may be a stranger's."""

MOST_STEPS = 64
"""Strides per side of a tile."""

LEAST_MPP, MOST_MPP = 1e-3, 1e3
"""Micrometres per px of any microscope, and far beyond."""

LEAST_COVERED = 0.5
"""Share of what one tile in its own place would cover of a cell; with less, the cell belongs to the tiles' fringe."""

NONE, MISSING = -1, -2
"""In place of a class code: no tile lies there (glass, or never looked at); its tiles could not be read."""


@dataclasses.dataclass(frozen=True)
class Grid:
    """Where the cells of a map lie, in level-0 px."""

    left: int
    """x of the first column's left edge."""

    top: int
    side: int
    """Of a cell: the stride."""

    n_rows: int
    n_columns: int
    width: int
    """Of the slide: cells end at its border."""

    height: int
    mpp: float
    """Micrometres per px of level 0."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.n_rows, self.n_columns

    @property
    def x_edges(self) -> IntArray:
        """Left edges of the columns and the right edge of the last, (C + 1,)."""
        return np.minimum(self.left + self.side * np.arange(self.n_columns + 1, dtype=np.int64), self.width)

    @property
    def y_edges(self) -> IntArray:
        """Likewise of the rows, (R + 1,)."""
        return np.minimum(self.top + self.side * np.arange(self.n_rows + 1, dtype=np.int64), self.height)

    @property
    def areas_mm2(self) -> FloatArray:
        """Area of each cell, (R, C)."""
        return np.outer(np.diff(self.y_edges), np.diff(self.x_edges)) * (self.mpp / 1000) ** 2

    def columns_at(self, x: FloatArray) -> IntArray:
        """Return the columns (M,) that x lies in, -1 outside of the grid."""
        column = np.floor((x - self.left) / self.side).astype(np.int64)
        return np.where((column >= 0) & (column < self.n_columns), column, -1)

    def rows_at(self, y: FloatArray) -> IntArray:
        """Return the rows (M,) that y lies in, -1 outside of the grid."""
        row = np.floor((y - self.top) / self.side).astype(np.int64)
        return np.where((row >= 0) & (row < self.n_rows), row, -1)


def grid_of(coords: np.ndarray, slide: SlideInfo, n_classes: int) -> Grid:
    """Return the grid of a slide's tiles.

    Args:
        coords: (N, 2) level-0 x and y of the upper left corners, N >= 1.
        slide: what the tiles are.
        n_classes: K.

    Raises:
        BadInput: far more cells, or far more overlap, than a map can have; no possible scale.
    """
    if not LEAST_MPP <= slide.mpp <= MOST_MPP:
        raise BadInput(f"{slide.slide}: {slide.mpp:g} um per px cannot be true: extract the slide with --mpp")
    left, top = (int(value) for value in coords.min(axis=0))
    right, bottom = (int(value) + slide.patch_size_level0 for value in coords.max(axis=0))
    n_columns, n_rows = -(-(right - left) // slide.stride_level0), -(-(bottom - top) // slide.stride_level0)
    n_cells = n_rows * n_columns
    most = min(MOST_CELLS, max(SPARSE_VALUES // n_classes, CELLS_PER_TILE * len(coords)))
    if n_cells > most or slide.patch_size_level0 > MOST_STEPS * slide.stride_level0:
        raise BadInput(
            f"{slide.slide}: tiles of {slide.patch_size_level0} px every {slide.stride_level0} px make a map of "
            f"{n_rows} x {n_columns} cells, more than can be drawn: extract the slide with a larger --stride"
        )
    return Grid(
        left=left,
        top=top,
        side=min(slide.stride_level0, max(slide.slide_width, slide.slide_height)),
        n_rows=n_rows,
        n_columns=n_columns,
        width=slide.slide_width,
        height=slide.slide_height,
        mpp=slide.mpp,
    )


def _shares(grid: Grid, coords: np.ndarray, patch: int) -> Iterator[tuple[IntArray, FloatArray]]:
    """Yield, for each place that a cell can have under a tile, the tiles' cells (N,) and the shares they cover (N,)."""
    x, y = coords.astype(np.int64).T
    first = (x - grid.left) // grid.side, (y - grid.top) // grid.side
    steps = range(-(-patch // grid.side) + 1)

    def covered(at: IntArray, start: int, cell: IntArray) -> FloatArray:
        near, far = start + cell * grid.side, start + (cell + 1) * grid.side
        return np.clip(np.minimum(at + patch, far) - np.maximum(at, near), 0, None) / grid.side

    for down in steps:
        row = first[1] + down
        tall = covered(y, grid.top, row)
        for across in steps:
            column = first[0] + across
            share = tall * covered(x, grid.left, column)
            inside = (row < grid.n_rows) & (column < grid.n_columns)
            yield np.where(inside, row * grid.n_columns + column, 0), np.where(inside, share, 0)


def average_cells(grid: Grid, coords: np.ndarray, p: FloatArray, *, patch: int) -> tuple[NumberArray, FloatArray]:
    """Return each cell's probabilities (R, C, K) float32, and how much of it tiles cover (R, C).

    The cover is a sum over tiles: four whole tiles cover a cell 4 times. Cells without tiles are NaN.

    Args:
        grid: of the map.
        coords: (N, 2) of the tiles.
        p: (N, K) of the tiles.
        patch: side of a tile in level-0 px.
    """
    n_cells, n_classes = grid.n_rows * grid.n_columns, p.shape[1]
    sums = np.zeros((n_classes, n_cells), np.float32)
    cover = np.zeros(n_cells)
    for cell, share in _shares(grid, coords, patch):
        used = share > 0
        cover += np.bincount(cell[used], share[used], n_cells)
        for k in range(n_classes):
            sums[k] += np.bincount(cell[used], share[used] * p[used, k], n_cells).astype(np.float32)
    with np.errstate(invalid="ignore"):
        sums /= cover.astype(np.float32)
    return sums.T.reshape(*grid.shape, n_classes), cover.reshape(grid.shape)


@dataclasses.dataclass(frozen=True)
class ClassMap:
    """What one head says of each cell of a slide."""

    grid: Grid
    p: NumberArray
    """(R, C, K) float32; NaN where there is no class."""

    code: IntArray
    """(R, C) int16 class codes, `NONE` or `MISSING`."""

    @property
    def uncertainty(self) -> NumberArray:
        """Entropy over ln K, (R, C): 0 where one class is certain, 1 where all are equal; NaN where there is none.

        Shannon 1948, "A Mathematical Theory of Communication".
        """
        terms = self.p * np.log(np.clip(self.p, np.finfo(np.float32).tiny, None))
        return np.abs(terms.sum(axis=-1)) / max(np.log(self.p.shape[-1]), np.finfo(np.float64).tiny)


def class_map(grid: Grid, coords: np.ndarray, p: FloatArray, ok: np.ndarray, *, patch: int) -> ClassMap:
    """Return the map of one head.

    Args:
        grid: of all tiles of the slide.
        coords: (N, 2) of all tiles.
        p: (M, K) of the tiles that could be read, in their order.
        ok: (N,) bool, which these are.
        patch: side of a tile in level-0 px.
    """
    mean, cover = average_cells(grid, coords[ok], p, patch=patch)
    lost = np.zeros(grid.n_rows * grid.n_columns)
    for cell, share in _shares(grid, coords[~ok], patch):
        lost += np.bincount(cell, share, len(lost))
    least = LEAST_COVERED * min(1.0, patch / grid.side) ** 2
    enough = cover >= least
    code = np.full(grid.shape, NONE, np.int16)
    code[lost.reshape(grid.shape) >= least] = MISSING
    code[enough] = mean[enough].argmax(axis=-1)
    mean[~enough] = np.nan
    return ClassMap(grid, mean, code)


def areas(found: ClassMap) -> tuple[IntArray, FloatArray]:
    """Return the number of cells (K,) and their area in mm2 (K,) of each class."""
    n_classes = found.p.shape[-1]
    used = found.code >= 0
    n_cells = np.bincount(found.code[used], minlength=n_classes)
    return n_cells, np.bincount(found.code[used], found.grid.areas_mm2[used], n_classes).astype(np.float64)
