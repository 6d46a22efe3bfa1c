"""Draw figures of tiles: samples of each class, a training batch."""

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.figures.plotting import Figure
from pipeline.figures.style import save, short, styled
from pipeline.runtime.console import log
from pipeline.tiles.decoding import decode_tile, resize


@styled
def tile_grid(path: Path, rows: list[tuple[str, list[np.ndarray]]], *, titles: list[list[str]] | None = None) -> None:
    """Draw rows of tiles, each row with a label on its left.

    Args:
        path: the PNG.
        rows: (label, tiles (h, w, 3) uint8) per row; rows may differ in length.
        titles: a title above each tile, or None.
    """
    columns = max(len(tiles) for _, tiles in rows)
    height = 1.15 if titles is None else 1.4
    figure = Figure(figsize=(1.15 * columns + 1.3, height * len(rows) + 0.1), layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for i, (label, tiles) in enumerate(rows):
        for j, axis in enumerate(axes[i]):
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
            if j < len(tiles):
                axis.imshow(tiles[j])
                if titles is not None:
                    axis.set_title(short(titles[i][j]), fontsize=6)
        axes[i][0].set_ylabel(short(label), rotation=0, ha="right", va="center", fontsize=8)
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
