"""The figure that shows which tiles of a slide were taken."""

from pathlib import Path

import numpy as np

from pipeline.figures.plotting import Figure
from pipeline.figures.style import save, short, styled

SHADE = 0.35
"""How dark what is left out is shown."""


@styled
def draw_overlay(path: Path, thumbnail: np.ndarray, coords: np.ndarray, *, side: int, scale: float, name: str) -> None:
    """Draw the thumbnail with what is left out darkened.

    Args:
        path: the PNG.
        thumbnail: (h, w, 3) uint8.
        coords: (N, 2), x and y of the tiles in level-0 px.
        side: of a tile in level-0 px.
        scale: level-0 px per px of the thumbnail.
        name: of the slide.
    """
    high, wide, _ = thumbnail.shape
    edges = np.zeros((high + 1, wide + 1), np.int32)  # +1 where a tile begins and -1 where it ends: sums count tiles
    left, top = np.minimum((coords / scale).round().astype(int), (wide, high)).T
    right, bottom = np.minimum(((coords + side) / scale).round().astype(int), (wide, high)).T
    for y, x, sign in ((top, left, 1), (top, right, -1), (bottom, left, -1), (bottom, right, 1)):
        np.add.at(edges, (y, x), sign)
    taken = edges.cumsum(axis=0).cumsum(axis=1)[:high, :wide] > 0
    shown = np.where(taken[..., None], thumbnail, thumbnail * (1 - SHADE)).astype(np.uint8)
    figure = Figure(figsize=(7, 7 * high / wide + 0.4), layout="constrained")
    axis = figure.subplots()
    axis.imshow(shown)
    axis.contour(taken, levels=[0.5], colors=["#D55E00"], linewidths=0.8)
    axis.set_axis_off()
    axis.set_title(f"{short(name)}: {len(coords)} tiles of {side} px in what is bright")
    save(figure, path)
