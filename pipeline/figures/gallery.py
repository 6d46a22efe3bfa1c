"""Draw a gallery of tiles with the predictions of the heads below each."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.figures.plotting import Figure
from pipeline.figures.style import CORRECT, WRONG, save, short, styled

PER_ROW = 4
CELL_WIDTH, TILE_HEIGHT, LINE_HEIGHT = 2.15, 1.75, 0.19
"""Inches."""


@dataclasses.dataclass(frozen=True)
class HeadPrediction:
    """The prediction of one head for a tile."""

    head: str
    predicted: str
    """The predicted class."""

    probability: float
    correct: bool


@dataclasses.dataclass(frozen=True)
class Picture:
    """One tile of the gallery."""

    pixels: np.ndarray | None
    """(h, w, 3) uint8; None where the tile cannot be shown."""

    label: str
    """The true class."""

    predictions: Sequence[HeadPrediction]


@styled
def draw_gallery(path: Path, pictures: Sequence[Picture]) -> None:
    """Draw the tiles in rows of four: the true class above, each head's prediction and its probability below."""
    columns = min(PER_ROW, len(pictures))
    n_rows = -(-len(pictures) // columns)
    n_lines = max(len(picture.predictions) for picture in pictures)
    row_height = TILE_HEIGHT + LINE_HEIGHT * (n_lines + 2.2)
    figure = Figure(figsize=(CELL_WIDTH * columns, row_height * n_rows))
    for i, picture in enumerate(pictures):
        row, column = divmod(i, columns)
        left = (column + 0.5) / columns - TILE_HEIGHT / (CELL_WIDTH * columns) / 2
        top = 1 - (row * row_height + 1.2 * LINE_HEIGHT) / (row_height * n_rows)
        height = TILE_HEIGHT / (row_height * n_rows)
        axis = figure.add_axes((left, top - height, TILE_HEIGHT / (CELL_WIDTH * columns), height))
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
        if picture.pixels is None:
            axis.set_facecolor("0.92")
            axis.text(0.5, 0.5, "not readable", ha="center", va="center", transform=axis.transAxes, color="0.4")
        else:
            axis.imshow(picture.pixels)
        axis.set_title(short(picture.label, 24), fontsize=9, fontweight="bold", pad=4)
        for line, each in enumerate(picture.predictions):
            text = f"{short(each.head, 10)}  {short(each.predicted, 15)}  {each.probability:.2f}"
            y = -(line + 0.75) * LINE_HEIGHT / TILE_HEIGHT
            mark = "✓" if each.correct else "✗"
            axis.text(
                0.5,
                y,
                f"{mark} {text}",
                transform=axis.transAxes,
                ha="center",
                va="center",
                fontsize=7,
                color=CORRECT if each.correct else WRONG,
            )
    save(figure, path)
