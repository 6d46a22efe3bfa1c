"""Score a map against the ground truth: the true class of every square of a slide (synthetic slides, annotations).

Reads `<name>-truth.png`, 8-bit grey, one pixel per square of the slide. A pixel's value is the position of the class in
the list `classes` of `<name>-truth.json`, or 255 for no tissue. `cell_level0` is the side of a square in level-0 px.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.errors import BadInput, BadTile
from pipeline.evaluation.validate import IntArray
from pipeline.maps.cells import ClassMap
from pipeline.storage import atomic
from pipeline.storage.embeddings.slide_info import SlideInfo
from pipeline.tiles.decoding import decode_tile

GLASS = 255
"""Code of a square without tissue."""

BLOCK_ROWS = 512
"""Rows of squares that are compared in one step."""


@dataclasses.dataclass(frozen=True)
class GroundTruth:
    """The true class of each square of a slide."""

    code: IntArray
    """(R, C) int16: codes of the model's classes, `GLASS` for none; the first square begins at the slide's corner."""

    side: int
    """Side of a square in level-0 px."""


@dataclasses.dataclass(frozen=True)
class GroundTruthScore:
    """A map compared with the ground truth at the centres of squares."""

    matrix: IntArray
    """(K, K) squares of tissue to which the map gives a class: rows true, columns predicted."""

    n_unmapped: int
    """Squares of tissue to which the map gives no class."""

    n_on_glass: int
    """Squares without tissue to which the map gives a class; they have no true class."""

    side: int
    """Side of a square in level-0 px: the finer of the map's and the ground truth's."""


def description_path(path: Path) -> Path:
    """Return the path of the JSON file next to the PNG of a ground truth."""
    return path.with_suffix(".json")


def read_ground_truth(path: Path, classes: Sequence[str], slide: SlideInfo) -> GroundTruth:
    """Read a ground truth and put its codes into the order of the model's classes.

    Args:
        path: the PNG.
        classes: the model's.
        slide: the slide that the ground truth must belong to.

    Raises:
        BadInput: not 8-bit grey, no description, of a slide of another size, or a class that the model does not know.
    """
    place = description_path(path)
    if not path.is_file() or not place.is_file():
        raise BadInput(
            f"--truth {path}: the PNG and {place.name} next to it are needed: the class of each square, and the names"
        )
    content = atomic.from_json(place)
    names = content.get("classes") if isinstance(content, dict) else None
    side = content.get("cell_level0") if isinstance(content, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(names) >= GLASS:
        raise BadInput(f"{place}: no list 'classes' of up to {GLASS - 1} names")
    if type(side) is not int or side < 1:
        raise BadInput(f"{place}: no 'cell_level0', the side of a square in level-0 px")
    size = content.get("slide_width", slide.slide_width), content.get("slide_height", slide.slide_height)
    if size != (slide.slide_width, slide.slide_height):
        raise BadInput(
            f"{place}: for a slide of {size[0]} x {size[1]} px, but {slide.slide} has {slide.slide_width} x "
            f"{slide.slide_height}"
        )
    try:
        pixels = decode_tile(path)
    except BadTile as error:
        raise BadInput(f"--truth: {error}") from None
    code = pixels[..., 0]
    if (pixels != code[..., None]).any():
        raise BadInput(f"{path}: not 8-bit grey: its values must be positions in 'classes' of {place.name}")
    used = [int(value) for value in np.unique(code) if value != GLASS]
    if used and used[-1] >= len(names):
        raise BadInput(f"{path}: holds the code {used[-1]}, but {place.name} names only {len(names)} classes")
    if unknown := [names[value] for value in used if names[value] not in classes]:
        raise BadInput(f"{place}: class '{unknown[0]}' is unknown to the model (it knows {', '.join(classes)})")
    table = np.full(256, GLASS, np.int16)
    for value in used:
        table[value] = list(classes).index(names[value])
    return GroundTruth(table[code], side)


def score_map(class_map: ClassMap, truth: GroundTruth) -> GroundTruthScore:
    """Return the agreement of a map with the ground truth of the same slide.

    Both are compared at the centres of squares with the finer of the two sides, so that neither is smoothed.
    """
    grid, n_classes = class_map.grid, class_map.p.shape[-1]
    side = min(grid.side, truth.side)
    n_rows = min(grid.height, truth.side * truth.code.shape[0]) // side
    n_columns = min(grid.width, truth.side * truth.code.shape[1]) // side
    x = (np.arange(n_columns) + 0.5) * side
    matrix = np.zeros((n_classes, n_classes), np.int64)
    n_unmapped = n_on_glass = 0
    for start in range(0, n_rows, BLOCK_ROWS):
        y = (np.arange(start, min(start + BLOCK_ROWS, n_rows)) + 0.5) * side
        rows, columns = grid.rows_at(y), grid.columns_at(x)
        mapped = np.where(
            (rows >= 0)[:, None] & (columns >= 0),
            class_map.code[np.ix_(np.maximum(rows, 0), np.maximum(columns, 0))],
            -1,
        )
        true = truth.code[np.ix_((y // truth.side).astype(np.int64), (x // truth.side).astype(np.int64))]
        both = (mapped >= 0) & (true != GLASS)
        pairs = true[both].astype(np.int64) * n_classes + mapped[both]
        matrix += np.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes)
        n_unmapped += int(((mapped < 0) & (true != GLASS)).sum())
        n_on_glass += int(((mapped >= 0) & (true == GLASS)).sum())
    return GroundTruthScore(matrix, n_unmapped, n_on_glass, side)
