"""Draw selective classification: accuracy against the share of tiles that are not referred."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pipeline.evaluation.folds import evenly_spaced
from pipeline.evaluation.selective import SelectiveCurve
from pipeline.figures.plotting import Figure
from pipeline.figures.style import head_colours, save, short, styled

LEAST_COVERAGE = 0.1
"""Lowest coverage in the figure; below it, single tiles make the curve jump."""

MOST_POINTS = 5000
"""Points of a curve that are drawn: more than the figure has pixels."""

MARKED = (0.5, 0.8, 0.9, 1.0)
"""Coverages with a marker: those of the report's table."""


@styled
def draw_selective(path: Path, curves: Mapping[str, SelectiveCurve]) -> None:
    """Draw accuracy against coverage for every head.

    Args:
        path: the PNG.
        curves: title of a head -> its curve, in the heads' order (decides the colours).
    """
    colours = head_colours(list(curves))
    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    axis = figure.subplots()
    lowest = 1.0
    for head, curve in curves.items():
        shown = np.flatnonzero(curve.coverage >= LEAST_COVERAGE)
        shown = evenly_spaced(shown, MOST_POINTS)
        coverage, accuracy = curve.coverage[shown], curve.accuracy[shown]
        lowest = min(lowest, float(accuracy.min()))
        axis.axhline(curve.accuracy[-1], color=colours[head], lw=0.7, ls=(0, (1, 2)), zorder=0)
        axis.plot(coverage, accuracy, color=colours[head], lw=1.4, label=short(head))
        marks = [curve.accuracy_at(share) for share in MARKED]
        axis.scatter(MARKED, marks, s=18, color=colours[head], lw=0, zorder=3)
    span = max(1 - lowest, 0.01)
    axis.set(xlim=(LEAST_COVERAGE, 1.01), ylim=(max(0.0, lowest - 0.08 * span), 1 + 0.03 * span))
    axis.set_xticks(np.linspace(0, 1, 11)[1:], [f"{tenth}0 %" for tenth in range(1, 11)])
    axis.set_xlabel("coverage: share of tiles that are not referred, most confident first")
    axis.set_ylabel("accuracy on these tiles")
    axis.set_axisbelow(True)
    axis.grid(axis="y", color="0.92", lw=0.7)
    figure.legend(loc="outside upper center", ncols=min(len(curves), 3))
    save(figure, path)
