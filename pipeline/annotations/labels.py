"""Decide which squares of a slide are tiles of which class, and draw them evenly over slides and annotations."""

import dataclasses

import numpy as np
import pandas as pd

from pipeline.annotations.geojson import is_class, shapely
from pipeline.annotations.regions import Regions, parts_of
from pipeline.errors import BadInput
from pipeline.slides.base import Slide
from pipeline.slides.grid import MOST_TILES, Squares

ROUNDING = 1e-9
"""Share of a tile that rounding can take from its cover."""


@dataclasses.dataclass(frozen=True)
class CutOptions:
    """How annotated slides are cut into tiles."""

    tile_px: int = 224
    """Side of a tile in px."""

    tile_mpp: float = 0.5
    """um/px of a tile."""

    overlap: float = 0.0
    """Share of a tile's side that the next tile covers again."""

    min_cover: float = 0.75
    """Least share of a tile inside annotations of its class."""

    per_class: int | None = None
    """Most tiles of a class, drawn evenly over slides and annotations."""

    predicted: bool = False
    """Also take regions of our maps that nobody changed."""


def covers(regions: Regions, slide: Slide, squares: Squares) -> pd.DataFrame:
    """Return the share of each square that each annotation covers: columns x, y, name, part, cover.

    Only squares of the slide's grid that an annotation touches are in the table. `part` numbers the annotations of all
    classes; those of one class that touch are one.

    Raises:
        BadInput: the stride makes more squares than anyone means.
    """
    geometry, side, stride = shapely(), squares.side, squares.stride
    width, height = slide.dimensions
    n_columns, n_rows = ((length - side) // stride + 1 for length in (width, height))
    if n_columns * n_rows > MOST_TILES:
        raise BadInput(f"{slide.path}: stride {stride} makes {n_columns * n_rows} tiles: give a smaller --cut-overlap")
    found = []
    number = 0
    for name, region in regions.items():
        for part in parts_of(region):
            left, top, right, bottom = part.bounds
            columns, rows = (
                np.arange(max(0, int((low - side) // stride)), min(n, int(high // stride) + 1))
                for low, high, n in ((left, right, n_columns), (top, bottom, n_rows))
            )
            x, y = (axis.ravel() * stride for axis in np.meshgrid(columns, rows))
            boxes = geometry.box(x, y, x + side, y + side)
            geometry.prepare(part)
            cover = geometry.contains(part, boxes).astype(float)
            border = (cover == 0) & geometry.intersects(part, boxes)
            cover[border] = geometry.area(geometry.intersection(part, boxes[border])) / side**2
            kept = cover > 0
            table = pd.DataFrame({"x": x[kept], "y": y[kept], "cover": cover[kept]})
            found.append(table.assign(name=name, part=number))
            number += 1
    return pd.concat(found, ignore_index=True)


def labelled(table: pd.DataFrame, *, min_cover: float) -> pd.DataFrame:
    """Return the squares that have a class: columns x, y, label, part, in rows from the upper left.

    Args:
        table: as from `covers`.
        min_cover: least share inside annotations of the class; at most 1 - `min_cover` is inside those of all others.
    """
    by_class: pd.DataFrame = table.groupby(["y", "x", "name"])["cover"].sum().reset_index()
    best = by_class.sort_values(["y", "x", "cover", "name"], ascending=[True, True, False, True], ignore_index=True)
    is_first = ~best.duplicated(["y", "x"])
    other = best.groupby(["y", "x"])["cover"].transform("sum") - best["cover"]
    has_class = np.array([is_class(name) for name in best["name"]], dtype=bool)
    good = is_first & has_class & (best["cover"] >= min_cover - ROUNDING) & (other <= 1 - min_cover + ROUNDING)
    best = best[good].rename(columns={"name": "label"})
    largest = table.sort_values(["cover", "part"], ascending=[False, True]).drop_duplicates(["y", "x", "name"])
    parts = largest.rename(columns={"name": "label"})[["y", "x", "label", "part"]]
    found: pd.DataFrame = best[["x", "y", "label"]].merge(parts, on=["y", "x", "label"], how="left")
    return found


def draw_evenly(table: pd.DataFrame, *, per_class: int, seed: int) -> pd.DataFrame:
    """Return at most `per_class` tiles of each class, drawn evenly over slides and their annotations.

    Each slide gives its tiles one by one, each from the next of its annotations, until the class has enough.

    Args:
        table: columns slide, label and part; the order of the rows is kept.
        per_class: most tiles of a class.
        seed: seed of the draw.
    """
    rng = np.random.default_rng(seed)
    drawn = table.assign(_luck=rng.permutation(len(table))).sort_values("_luck")
    drawn["_turn"] = drawn.groupby(["label", "slide", "part"]).cumcount()
    drawn = drawn.sort_values(["_turn", "_luck"])
    drawn["_turn"] = drawn.groupby(["label", "slide"]).cumcount()
    drawn = drawn.sort_values(["_turn", "_luck"])
    kept = drawn.groupby("label").cumcount() < per_class
    return table.loc[kept.index[kept].sort_values()]
