"""A map against the truth: the true class of every place of a slide, where it is known (synthetic slides, annotations).

Reads `<name>-truth.png`, 8-bit grey, a pixel per square of the slide, its value the position of the class in the list
`classes` of `<name>-truth.json` or 255 for no tissue; `cell_level0` there is the side of a square in level-0 px.
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
"""Rows of squares that are compared at once."""


@dataclasses.dataclass(frozen=True)
class Truth:
    """The true class of each square of a slide."""

    code: IntArray
    """(R, C) int16: codes of the model's classes, `GLASS` for none; the first square begins at the slide's corner."""

    side: int
    """Of a square, in level-0 px."""


@dataclasses.dataclass(frozen=True)
class TruthScore:
    """A map held against the truth, at the centres of squares of one side."""

    matrix: IntArray
    """(K, K) squares of tissue that the map gives a class: rows true, columns as mapped."""

    n_unmapped: int
    """Squares of tissue that the map gives no class."""

    n_on_glass: int
    """Squares without tissue that it gives a class; there is no truth for them."""

    side: int
    """Of a square, in level-0 px: the finer of the map's and the truth's."""


def description_path(path: Path) -> Path:
    """Return the path of the JSON file beside a truth's PNG."""
    return path.with_suffix(".json")


def read_truth(path: Path, classes: Sequence[str], slide: SlideInfo) -> Truth:
    """Read a truth and put its codes into the order of the model's classes.

    Args:
        path: the PNG.
        classes: the model's.
        slide: whose truth it must be.

    Raises:
        BadInput: not 8-bit grey, no description, of a slide of another size, or a class that the model does not know.
    """
    place = description_path(path)
    if not path.is_file() or not place.is_file():
        raise BadInput(
            f"--truth {path}: the PNG and {place.name} beside it are needed: the class of each square, and their names"
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
        raise BadInput(f"{place}: of a slide of {size[0]} x {size[1]} px, but {slide.slide} has another size")
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
    return Truth(table[code], side)


def score_map(found: ClassMap, truth: Truth) -> TruthScore:
    """Return how a map stands against the truth.

    They are compared at the centres of squares of the finer of both sides, so that neither is smoothed.

    Args:
        found: the map.
        truth: of the same slide.
    """
    grid, n_classes = found.grid, found.p.shape[-1]
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
            (rows >= 0)[:, None] & (columns >= 0), found.code[np.ix_(np.maximum(rows, 0), np.maximum(columns, 0))], -1
        )
        true = truth.code[np.ix_((y // truth.side).astype(np.int64), (x // truth.side).astype(np.int64))]
        both = (mapped >= 0) & (true != GLASS)
        pairs = true[both].astype(np.int64) * n_classes + mapped[both]
        matrix += np.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes)
        n_unmapped += int(((mapped < 0) & (true != GLASS)).sum())
        n_on_glass += int(((mapped >= 0) & (true == GLASS)).sum())
    return TruthScore(matrix, n_unmapped, n_on_glass, side)
