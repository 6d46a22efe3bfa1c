"""Draw the loss of macro-F1 under each corruption with its interval, a point per head."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.figures.plotting import Figure
from pipeline.figures.style import MARKERS, head_colours, save, short, styled


@styled
def draw_losses(
    path: Path, losses: Mapping[str, Sequence[tuple[float, float, float]]], *, corruptions: Sequence[str], level: str
) -> None:
    """Draw the losses as points with whiskers, one row per corruption, the heads below each other in it.

    Args:
        path: the PNG.
        losses: title of a head -> for each corruption the loss of macro-F1 and its interval in points; bounds that
            are NaN are not drawn. The order of the heads decides colours and markers.
        corruptions: titles of the rows.
        level: coverage of the intervals as text, e.g. "95 %".
    """
    heads = list(losses)
    colours = head_colours(heads)
    step = 0.62 / len(heads)
    figure = Figure(figsize=(7.2, 1.2 + len(corruptions) * (0.18 + 0.14 * len(heads))), layout="constrained")
    axis = figure.subplots()
    positions = np.arange(len(corruptions))
    axis.axvline(0, color="0.6", lw=0.8, zorder=0)
    for i, head in enumerate(heads):
        value, low, high = np.array(losses[head]).T
        at = positions + (i - (len(heads) - 1) / 2) * step
        axis.hlines(at, low, high, color=colours[head], lw=1.4, alpha=0.55)
        axis.plot(value, at, MARKERS[i % len(MARKERS)], color=colours[head], ms=5.5, label=short(head))
    axis.set_yticks(positions, [short(name) for name in corruptions])
    axis.set_ylim(len(corruptions) - 0.5, -0.5)
    axis.set_yticks(positions[1:] - 0.5, minor=True)
    axis.grid(axis="y", which="minor", color="0.88", lw=0.7)
    axis.grid(axis="x", color="0.93", lw=0.7)
    axis.set_axisbelow(True)
    axis.tick_params(axis="y", which="both", length=0)
    axis.spines["left"].set_visible(False)
    axis.set_xlabel(f"macro-F1 lost on the test rows, in points, with {level} intervals (right of 0: worse)")
    figure.legend(loc="outside upper center", ncols=len(heads))
    save(figure, path)
