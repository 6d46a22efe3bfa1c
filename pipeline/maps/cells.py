"""Average the probabilities of tiles over the cells of a map; a map has one cell per step of the stride.

A cell's probabilities are the mean over the tiles that cover it, weighted by the part of the cell that each tile
covers. Its class is the one with the highest mean. Where the stride is the tile's side, a cell is a tile.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from pipeline.errors import BadInput
from pipeline.evaluation.decision import decided
from pipeline.evaluation.validate import FloatArray, IntArray, NumberArray
from pipeline.storage.embeddings.slide_info import SlideInfo

MOST_CELLS = 20_000_000
"""Most cells of a map; 100,000 x 100,000 px at a stride of 32 px have half as many."""

SPARSE_VALUES, CELLS_PER_TILE = 20_000_000, 200
"""Number of probabilities that every map may have (80 MB), and cells per tile beyond it. Two tiles at the ends of a
slide must not need the memory of a whole slide, because the file can come from anyone."""

MOST_STEPS = 64
"""Most strides per side of a tile."""

LEAST_MPP, MOST_MPP = 1e-3, 1e3
"""Range of micrometres per px, wider than that of any microscope."""

LEAST_COVERED = 0.5
"""Least cover of a cell that gets a class, as a share of the cover by one tile in the cell's own place."""

NONE, MISSING, REJECTED = -1, -2, -3
"""Codes in place of a class: no tile covers the cell (glass, or not tiled); its tiles could not be read; its tiles are
outliers, far from all classes."""


LEAST_REJECTED = 0.5
"""Least share of outliers among the tiles of a cell that is rejected."""


@dataclasses.dataclass(frozen=True)
class Grid:
    """Position and size of the cells of a map, in level-0 px."""

    left: int
    """x of the first column's left edge."""

    top: int
    side: int
    """Side of a cell: the stride."""

    n_rows: int
    n_columns: int
    width: int
    """Width of the slide; cells end at its border."""

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
        """Upper edges of the rows and the lower edge of the last, (R + 1,)."""
        return np.minimum(self.top + self.side * np.arange(self.n_rows + 1, dtype=np.int64), self.height)

    @property
    def areas_mm2(self) -> FloatArray:
        """Area of each cell, (R, C)."""
        areas: FloatArray = np.outer(np.diff(self.y_edges), np.diff(self.x_edges)) * (self.mpp / 1000) ** 2
        return areas

    def columns_at(self, x: FloatArray) -> IntArray:
        """Return the columns (M,) that contain x, -1 outside of the grid."""
        column = np.floor((x - self.left) / self.side).astype(np.int64)
        return np.where((column >= 0) & (column < self.n_columns), column, -1)

    def rows_at(self, y: FloatArray) -> IntArray:
        """Return the rows (M,) that contain y, -1 outside of the grid."""
        row = np.floor((y - self.top) / self.side).astype(np.int64)
        return np.where((row >= 0) & (row < self.n_rows), row, -1)


def grid_of(coords: np.ndarray, slide: SlideInfo, n_classes: int) -> Grid:
    """Return the grid of a slide's tiles.

    Args:
        coords: (N, 2) level-0 x and y of the upper left corners, N >= 1.
        slide: size and scale of the slide and its tiles.
        n_classes: K.

    Raises:
        BadInput: far more cells, or far more overlap, than a map can have; an impossible scale.
    """
    if not LEAST_MPP <= slide.mpp <= MOST_MPP:
        raise BadInput(f"{slide.slide}: {slide.mpp:g} um per px is impossible: tile and extract the slide with --mpp")
    left, top = (int(value) for value in coords.min(axis=0))
    right, bottom = (int(value) + slide.patch_size_level0 for value in coords.max(axis=0))
    n_columns, n_rows = -(-(right - left) // slide.stride_level0), -(-(bottom - top) // slide.stride_level0)
    n_cells = n_rows * n_columns
    most = min(MOST_CELLS, max(SPARSE_VALUES // n_classes, CELLS_PER_TILE * len(coords)))
    if n_cells > most or slide.patch_size_level0 > MOST_STEPS * slide.stride_level0:
        raise BadInput(
            f"{slide.slide}: tiles of {slide.patch_size_level0} px every {slide.stride_level0} px make a map of "
            f"{n_rows} x {n_columns} cells, more than can be drawn: tile the slide with a larger --stride"
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
    """Yield the cells (N,) and their covered shares (N,) for each position of a cell under a tile."""
    x, y = coords.astype(np.int64).T
    first = (x - grid.left) // grid.side, (y - grid.top) // grid.side
    steps = range(-(-patch // grid.side) + 1)

    def covered(at: IntArray, start: int, cell: IntArray) -> FloatArray:
        near, far = start + cell * grid.side, start + (cell + 1) * grid.side
        return np.asarray(np.clip(np.minimum(at + patch, far) - np.maximum(at, near), 0, None) / grid.side)

    for down in steps:
        row = first[1] + down
        tall = covered(y, grid.top, row)
        for across in steps:
            column = first[0] + across
            share = tall * covered(x, grid.left, column)
            inside = (row < grid.n_rows) & (column < grid.n_columns)
            yield np.where(inside, row * grid.n_columns + column, 0), np.where(inside, share, 0)


def average_cells(grid: Grid, coords: np.ndarray, p: FloatArray, *, patch: int) -> tuple[NumberArray, FloatArray]:
    """Return each cell's probabilities (R, C, K) float32, and its cover by tiles (R, C).

    The cover is a sum over tiles: four tiles that cover a whole cell give 4. Cells without tiles are NaN.

    Args:
        grid: grid of the map.
        coords: (N, 2) upper left corners of the tiles.
        p: (N, K) probabilities of the tiles.
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
    """The probabilities and the class of each cell of a slide, by one head."""

    grid: Grid
    p: NumberArray
    """(R, C, K) float32; NaN where there is no class."""

    code: IntArray
    """(R, C) int16 class codes, `NONE`, `MISSING` or `REJECTED`."""

    @property
    def uncertainty(self) -> NumberArray:
        """Entropy over ln K, (R, C): 0 if one class is certain, 1 if all are equal, NaN in a cell without a class.

        Shannon 1948, "A Mathematical Theory of Communication".
        """
        terms = self.p * np.log(np.clip(self.p, np.finfo(np.float32).tiny, None))
        entropy: NumberArray = np.abs(terms.sum(axis=-1)) / max(np.log(self.p.shape[-1]), np.finfo(np.float64).tiny)
        return entropy


def class_map(
    grid: Grid,
    coords: np.ndarray,
    p: FloatArray,
    ok: np.ndarray,
    *,
    patch: int,
    offsets: FloatArray | None = None,
) -> ClassMap:
    """Return the map of one head.

    Args:
        grid: grid of all tiles of the slide.
        coords: (N, 2) upper left corners of all tiles.
        p: (M, K) probabilities of the readable tiles, in their order.
        ok: (N,) bool, whether a tile could be read.
        patch: side of a tile in level-0 px.
        offsets: as of `HeadOutput`; a cell decides on the mean of its tiles' probabilities as a tile on its own.
    """
    mean, cover = average_cells(grid, coords[ok], p, patch=patch)
    unreadable = np.zeros(grid.n_rows * grid.n_columns)
    for cell, share in _shares(grid, coords[~ok], patch):
        unreadable += np.bincount(cell, share, len(unreadable))
    least = LEAST_COVERED * min(1.0, patch / grid.side) ** 2
    enough = cover >= least
    code = np.full(grid.shape, NONE, np.int16)
    code[unreadable.reshape(grid.shape) >= least] = MISSING
    code[enough] = mean[enough].argmax(axis=-1) if offsets is None else decided(mean[enough], offsets)
    mean[~enough] = np.nan
    return ClassMap(grid, mean, code)


def rejected_map(
    found: ClassMap, coords: np.ndarray, scores: FloatArray, *, patch: int
) -> tuple[ClassMap, NumberArray]:
    """Return a map in which cells are `REJECTED` whose tiles are mostly outliers, and the score of each cell, (R, C).

    Args:
        found: map of one head.
        coords: (M, 2) upper left corners of the readable tiles.
        scores: (M,) outlier scores divided by the threshold.
        patch: side of a tile in level-0 px.
    """
    values = np.stack([scores > 1, scores], axis=1).astype(np.float64)
    mean, _ = average_cells(found.grid, coords, values, patch=patch)
    used = found.code >= 0
    code = np.where(used & (np.nan_to_num(mean[..., 0]) >= LEAST_REJECTED), REJECTED, found.code)
    return dataclasses.replace(found, code=code), np.where(used, mean[..., 1], np.nan)


def class_areas(class_map: ClassMap) -> tuple[IntArray, FloatArray]:
    """Return the number of cells (K,) and the area in mm2 (K,) of each class."""
    code, n_classes = class_map.code, class_map.p.shape[-1]
    used = code >= 0
    n_cells = np.bincount(code[used], minlength=n_classes)
    return n_cells, np.bincount(code[used], class_map.grid.areas_mm2[used], n_classes).astype(np.float64)
