"""Draw figures of tiles: samples of each class, a training batch."""

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.figures.plotting import Figure
from pipeline.figures.style import save, short, styled
from pipeline.runtime.console import log
from pipeline.tiles.decoding import decode_tile, resize

TILE_SIDE = 0.94
"""Side of a tile, in widths of a column."""


@styled
def tile_grid(path: Path, rows: list[tuple[str, list[np.ndarray]]], *, titles: list[list[str]] | None = None) -> None:
    """Draw rows of tiles, each row with a label on its left.

    Args:
        path: the PNG.
        rows: (label, tiles (h, w, 3) uint8) per row; rows may differ in length.
        titles: a title above each tile, or None.
    """
    columns = max(len(tiles) for _, tiles in rows)
    pitch = 1.0 if titles is None else 1.22  # of the rows, in widths of a column
    figure = Figure(figsize=(1.15 * columns + 1.3, 1.15 * pitch * len(rows) + 0.1), layout="constrained")
    axis = figure.subplots()  # one for all tiles: axes of their own take ten times as long
    for i, (_, tiles) in enumerate(rows):
        for j, tile in enumerate(tiles):
            height, width = np.array(tile.shape[:2]) / max(tile.shape[:2]) * (TILE_SIDE / 2)
            middle = i * pitch
            axis.imshow(tile, extent=(j - width, j + width, middle + height, middle - height))
            if titles is not None:
                title = short(titles[i][j])
                axis.text(j, middle - height - 0.02, title, fontsize=6, ha="center", va="bottom")
    axis.set(xlim=(-0.5, columns - 0.5), ylim=((len(rows) - 0.5) * pitch, -0.5 - (pitch - 1)), xticks=[])
    axis.set_yticks(np.arange(len(rows)) * pitch, [label and short(label) for label, _ in rows], fontsize=8)
    axis.tick_params(length=0)
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
    save(figure, path)


MOST_CLASSES = 40
"""Most classes in one figure; the last row counts the others."""


def draw_classes(path: Path, table: pd.DataFrame, *, root: Path, per_class: int, seed: int) -> None:
    """Draw `per_class` random readable tiles of every class, up to `MOST_CLASSES`."""
    rng = np.random.default_rng(seed)
    rows: list[tuple[str, list[np.ndarray]]] = []
    classes = list(table[table["problem"] == ""].groupby("label"))
    for label, tiles in classes[:MOST_CLASSES]:
        chosen = rng.permutation(len(tiles))[:per_class]
        rows.append((str(label), [resize(decode_tile(root / tiles["path"].iloc[i]), 150) for i in chosen]))
    if len(classes) > MOST_CLASSES:
        rows.append((f"... {len(classes) - MOST_CLASSES} more", []))
        log.info(f"prepare: {path.name} shows the first {MOST_CLASSES} of {len(classes)} classes")
    tile_grid(path, rows)
