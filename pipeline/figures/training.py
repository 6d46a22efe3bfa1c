"""Draw figures of a training: loss and accuracy over the epochs, one batch as the network sees it."""

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.figures.plotting import Figure, MaxNLocator
from pipeline.figures.style import HEAD_COLOURS, save, styled
from pipeline.figures.tiles import tile_grid

TRAIN, VAL = HEAD_COLOURS[0], HEAD_COLOURS[-1]

SHOWN = 32
"""Tiles of a batch that are drawn."""


@styled
def draw_history(path: Path, history: pd.DataFrame, *, best_epoch: int) -> None:
    """Draw loss and accuracy of train and val by epoch, the kept epoch and the drops of the learning rate marked."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    drops = history["epoch"][history["lr"] < history["lr"].shift() / 2]  # not the slow fall of a cosine
    for axis, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        axis.plot(history["epoch"], history[f"train_{name}"], color=TRAIN, marker="o", ms=3, label="train")
        axis.plot(history["epoch"], history[f"val_{name}"], color=VAL, marker="s", ms=3, label="validation")
        axis.axvline(best_epoch, color="0.3", lw=0.8, ls="--", label=f"kept: epoch {best_epoch}")
        for i, epoch in enumerate(drops):
            axis.axvline(epoch - 0.5, color="0.8", lw=0.8, zorder=0, label=None if i else "learning rate drops")
        axis.set(xlabel="epoch", ylabel=name)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(fontsize=8)
    save(figure, path)


def draw_batch(path: Path, pixels: np.ndarray, labels: list[str]) -> None:
    """Draw the first tiles of a training batch after augmentation.

    Args:
        path: the PNG.
        pixels: (B, 3, H, W) uint8.
        labels: class name of each, (B,).
    """
    tiles, per_row = list(pixels.transpose(0, 2, 3, 1)[:SHOWN]), 8
    starts = range(0, len(tiles), per_row)
    rows = [("", tiles[start : start + per_row]) for start in starts]
    tile_grid(path, rows, titles=[labels[start : start + per_row] for start in starts])
