"""Figures that compare heads: confusion matrices, F1 of each class, reliability curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from pipeline.evaluation.validate import FloatArray, IntArray
from pipeline.figures.style import head_colours, save, short, styled

PANELS_PER_ROW = 3
COLOURS, SHARES = "Blues", Normalize(0, 1)
"""One colour scale for all confusion matrices."""

MOST_COUNTS = 16
"""Counts are written into the cells of confusion matrices of up to this many classes."""


@styled
def draw_confusion(path: Path, matrices: Mapping[str, IntArray], *, classes: Sequence[str]) -> None:
    """Draw one confusion matrix per head, counts as text, shares of the true class as colour on one scale.

    Args:
        path: the PNG.
        matrices: title -> (K, K) counts, rows true.
        classes: K names.
    """
    n, columns = len(classes), min(len(matrices), PANELS_PER_ROW)
    n_rows = -(-len(matrices) // columns)
    side = np.clip(0.36 * n, 2.2, 7.0)
    figure = Figure(figsize=(columns * (side + 0.25) + 2.0, n_rows * (side + 0.4) + 1.0), layout="constrained")
    axes = figure.subplots(n_rows, columns, squeeze=False, sharex=True, sharey=True)
    names = [short(name, 18) for name in classes]
    for axis in axes.flat[len(matrices) :]:
        axis.set_visible(False)
    for i, (axis, (title, matrix)) in enumerate(zip(axes.flat, matrices.items(), strict=False)):
        support = matrix.sum(axis=1, keepdims=True)
        share = np.divide(matrix, support, out=np.zeros(matrix.shape), where=support > 0)
        axis.imshow(share, cmap=COLOURS, norm=SHARES)
        axis.set_title(title)
        axis.spines[:].set_visible(False)
        axis.tick_params(length=0)
        axis.set_xticks(range(n), names, rotation=45, ha="right", rotation_mode="anchor")
        axis.set_yticks(range(n), names)
        axis.tick_params(labelbottom=i + columns >= len(matrices))
        axis.set_xticks(np.arange(n + 1) - 0.5, minor=True)
        axis.set_yticks(np.arange(n + 1) - 0.5, minor=True)
        axis.grid(which="minor", color="white", lw=0.8)
        axis.tick_params(which="minor", length=0)
        for (row, column), cell in np.ndenumerate(matrix if n <= MOST_COUNTS else matrix[:0]):
            if cell:
                colour = "white" if share[row, column] > 0.55 else "0.15"
                axis.text(column, row, str(cell), ha="center", va="center", color=colour, fontsize=7)
    for axis in axes[:, 0]:
        axis.set_ylabel("true class")
    figure.supxlabel("class the head names", fontsize=9)
    bar = figure.colorbar(ScalarMappable(SHARES, COLOURS), ax=axes, shrink=0.7, aspect=25, pad=0.01)
    bar.set_label("share of the true class")
    bar.outline.set_visible(False)
    save(figure, path)


@styled
def draw_class_bars(
    path: Path, f1: Mapping[str, FloatArray], *, heads: Sequence[str], classes: Sequence[str], support: IntArray
) -> None:
    """Draw the F1 of every class as one bar per head.

    Args:
        path: the PNG.
        f1: title of a head -> (K,); NaN is drawn as no bar.
        heads: the titles in their order (decides the colours).
        classes: K names.
        support: (K,) number of tiles of each class.
    """
    colours = head_colours(heads)
    height = 0.8 / len(heads)
    figure = Figure(figsize=(7.2, 0.9 + len(classes) * (0.16 + 0.16 * len(heads))), layout="constrained")
    axis = figure.subplots()
    positions = np.arange(len(classes))
    for i, head in enumerate(heads):
        values = np.nan_to_num(f1[head], nan=0.0)
        at = positions + (i - (len(heads) - 1) / 2) * height
        axis.barh(at, values, height=0.88 * height, color=colours[head], label=short(head))
        for y, value in zip(at, f1[head], strict=True):
            text = "n/a" if np.isnan(value) else f"{value:.2f}"
            axis.text(np.nan_to_num(value) + 0.008, y, text, va="center", fontsize=7, color="0.3")
    names = [f"{short(name)} ({n})" for name, n in zip(classes, support, strict=True)]
    axis.set_yticks(positions, names)
    axis.set_ylim(len(classes) - 0.5, -0.5)
    axis.set_xlim(0, 1.06)
    axis.set_xticks(np.linspace(0, 1, 6))
    axis.set_xlabel("F1 on the test rows (in parentheses: test tiles of the class)")
    axis.spines["bottom"].set_bounds(0, 1)
    axis.spines["left"].set_visible(False)
    axis.tick_params(axis="y", length=0)
    axis.set_axisbelow(True)
    axis.grid(axis="x", color="0.9", lw=0.7)
    figure.legend(loc="outside upper center", ncols=len(heads))
    save(figure, path)


@styled
def draw_reliability(
    path: Path, bins: Mapping[str, Mapping[str, Mapping[str, FloatArray]]], *, heads: Sequence[str]
) -> None:
    """Draw accuracy against confidence for every head, validation beside test, and how many tiles each bin holds.

    Args:
        path: the PNG.
        bins: title of a head -> "test" and "val" -> `metrics.reliability_bins`.
        heads: the titles in their order.
    """
    colours = head_colours(heads)
    columns = len(heads)
    figure = Figure(figsize=(2.7 * columns + 0.5, 3.9), layout="constrained")
    axes = figure.subplots(2, columns, squeeze=False, sharex=True, sharey="row", height_ratios=(4, 1))
    for (upper, lower), head in zip(axes.T, heads, strict=True):
        upper.plot([0, 1], [0, 1], color="0.75", lw=0.8, zorder=0)
        for split, colour, marker in (("val", "0.6", "s"), ("test", colours[head], "o")):
            if split in bins[head]:
                values = bins[head][split]
                used = values["count"] > 0
                confidence, accuracy = values["confidence"][used], values["accuracy"][used]
                name = {"val": "validation", "test": "test"}[split]
                area = 6 + 54 * values["count"][used] / values["count"].max()
                upper.plot(confidence, accuracy, color=colour, lw=1, alpha=0.6)
                upper.scatter(confidence, accuracy, s=area, c=colour, marker=marker, lw=0, label=name)
        counts = bins[head]["test"]["count"]
        width = 1 / len(counts)
        lower.bar((np.arange(len(counts)) + 0.5) * width, counts, width=0.9 * width, color=colours[head])
        upper.set_title(short(head))
        upper.set(xlim=(0, 1.02), ylim=(0, 1.03))
        upper.set_xticks(np.linspace(0, 1, 5), ["0", "", "0.5", "", "1"])
        upper.legend(loc="lower right", fontsize=8, handletextpad=0.1)
    axes[0, 0].set_ylabel("share that is right")
    axes[1, 0].set_ylabel("test tiles")
    figure.supxlabel("probability of the likeliest class (confidence)", fontsize=9)
    save(figure, path)
