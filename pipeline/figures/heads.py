"""Draw figures that compare heads: confusion matrices, F1 of each class, reliability curves."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.evaluation.validate import FloatArray, IntArray
from pipeline.figures.plotting import Figure, Normalize, ScalarMappable
from pipeline.figures.style import head_colours, save, short, styled

PANELS_PER_ROW = 3
COLOURS, SHARES = "Blues", Normalize(0, 1)
"""One colour scale for all confusion matrices."""

HEAD_COLOUR = "#0072b2"

MOST_COUNTS = 16
"""Counts are written into the cells of confusion matrices of up to this many classes."""

MOST_CLASSES = 40
"""Most classes in a figure; tables have all."""


def most_misclassified(matrices: Sequence[IntArray], n: int = MOST_CLASSES) -> IntArray:
    """Return the codes of the n classes with the largest share of misclassified tiles, in increasing order.

    Args:
        matrices: (K, K) counts of each head, rows true.
        n: number of classes; all K if there are fewer.
    """
    total = np.sum(matrices, axis=0)
    support = total.sum(axis=1)
    wrong = np.divide(support - np.diagonal(total), support, out=np.zeros(len(total)), where=support > 0)
    return np.sort(np.argsort(-wrong, kind="stable")[:n])


def shown_text(n_shown: int, n: int) -> str:
    """Return the sentence that names the classes a figure leaves out; empty where it shows all n."""
    return "" if n_shown == n else f"the {n_shown} classes with the largest share of misclassified tiles, of {n}"


@dataclasses.dataclass(frozen=True)
class ScoreRow:
    """A score with its interval; NaN bounds: none."""

    name: str
    value: float
    low: float
    high: float
    is_baseline: bool


@styled
def draw_score_rows(path: Path, rows: Sequence[ScoreRow], *, label: str) -> None:
    """Draw scores as points with their intervals, one row each, all on one axis.

    Args:
        path: the PNG.
        rows: from top to bottom.
        label: of the axis.
    """
    figure = Figure(figsize=(7.2, 0.26 * len(rows) + 0.7), layout="constrained")
    axis = figure.subplots()
    for i, row in enumerate(rows):
        colour = "0.55" if row.is_baseline else HEAD_COLOUR
        axis.plot([row.low, row.high], [i, i], color=colour, lw=2, solid_capstyle="round")
        axis.plot([row.value], [i], "s" if row.is_baseline else "o", color=colour, ms=6)
        axis.annotate(f"{row.value:.3f}", (row.value, i), (0, 5), textcoords="offset points", ha="center", fontsize=7)
    axis.set_yticks(range(len(rows)), [short(row.name, 40) for row in rows])
    axis.set_ylim(len(rows) - 0.5, -0.7)
    axis.set_xlabel(label)
    axis.grid(axis="x", color="0.9")
    save(figure, path)


@styled
def draw_confusion(path: Path, matrices: Mapping[str, IntArray], *, classes: Sequence[str]) -> None:
    """Draw one confusion matrix per head, counts as text, shares of the true class as colour on one scale.

    Args:
        path: the PNG.
        matrices: title -> (K, K) counts, rows true.
        classes: K names; of more than `MOST_CLASSES` the most misclassified are drawn.
    """
    chosen = most_misclassified(list(matrices.values()))
    n, columns = len(chosen), min(len(matrices), PANELS_PER_ROW)
    n_rows = -(-len(matrices) // columns)
    side = np.clip(0.36 * n, 2.2, 7.0)
    figure = Figure(figsize=(columns * (side + 0.25) + 2.0, n_rows * (side + 0.4) + 1.0), layout="constrained")
    axes = figure.subplots(n_rows, columns, squeeze=False, sharex=True, sharey=True)
    names = [short(classes[code], 18) for code in chosen]
    size = 9 if n <= MOST_COUNTS else 6
    for axis in axes.flat[len(matrices) :]:
        axis.set_visible(False)
    for i, (axis, (title, matrix)) in enumerate(zip(axes.flat, matrices.items(), strict=False)):
        support = matrix.sum(axis=1, keepdims=True)
        share = np.divide(matrix, support, out=np.zeros(matrix.shape), where=support > 0)[np.ix_(chosen, chosen)]
        axis.imshow(share, cmap=COLOURS, norm=SHARES)
        axis.set_title(title)
        axis.spines[:].set_visible(False)
        axis.tick_params(length=0)
        axis.set_xticks(range(n), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=size)
        axis.set_yticks(range(n), names, fontsize=size)
        axis.tick_params(labelbottom=i + columns >= len(matrices))
        axis.set_xticks(np.arange(n + 1) - 0.5, minor=True)
        axis.set_yticks(np.arange(n + 1) - 0.5, minor=True)
        axis.grid(which="minor", color="white", lw=0.8)
        axis.tick_params(which="minor", length=0)
        for (row, column), cell in np.ndenumerate(matrix[np.ix_(chosen, chosen)] if n <= MOST_COUNTS else matrix[:0]):
            if cell:
                colour = "white" if share[row, column] > 0.55 else "0.15"
                axis.text(column, row, str(cell), ha="center", va="center", color=colour, fontsize=7)
    for axis in axes[:, 0]:
        axis.set_ylabel("true class")
    rest = shown_text(n, len(classes))
    figure.supxlabel("predicted class" + (f" ({rest})" if rest else ""), fontsize=9)
    bar = figure.colorbar(ScalarMappable(SHARES, COLOURS), ax=axes, shrink=0.7, aspect=25, pad=0.01)
    bar.set_label("share of the true class")
    bar.outline.set_visible(False)
    save(figure, path)


@styled
def draw_class_bars(
    path: Path, f1: Mapping[str, FloatArray], *, classes: Sequence[str], support: IntArray, chosen: IntArray
) -> None:
    """Draw the F1 of classes as one bar per head.

    Args:
        path: the PNG.
        f1: title of a head -> (K,), in the heads' order (decides the colours); NaN is drawn as no bar.
        classes: K names.
        support: (K,) number of tiles of each class.
        chosen: codes of the classes that are drawn.
    """
    heads = list(f1)
    colours = head_colours(heads)
    height = 0.8 / len(heads)
    figure = Figure(figsize=(7.2, 0.9 + len(chosen) * (0.16 + 0.16 * len(heads))), layout="constrained")
    axis = figure.subplots()
    positions = np.arange(len(chosen))
    for i, head in enumerate(heads):
        values = f1[head][chosen]
        at = positions + (i - (len(heads) - 1) / 2) * height
        axis.barh(at, np.nan_to_num(values, nan=0.0), height=0.88 * height, color=colours[head], label=short(head))
        for y, value in zip(at, values, strict=True):
            text = "n/a" if np.isnan(value) else f"{value:.2f}"
            axis.text(np.nan_to_num(value) + 0.008, y, text, va="center", fontsize=7, color="0.3")
    axis.set_yticks(positions, [f"{short(classes[code])} ({support[code]})" for code in chosen])
    axis.set_ylim(len(chosen) - 0.5, -0.5)
    axis.set_xlim(0, 1.06)
    axis.set_xticks(np.linspace(0, 1, 6))
    rest = shown_text(len(chosen), len(classes))
    label = "F1 on the test rows (in parentheses: test tiles of the class)"
    axis.set_xlabel(label + (f"\n{rest}" if rest else ""))
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
    """Draw accuracy against confidence for every head, on validation and test tiles, and the tiles in each bin.

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
    axes[0, 0].set_ylabel("accuracy")
    axes[1, 0].set_ylabel("test tiles")
    figure.supxlabel("probability of the likeliest class (confidence)", fontsize=9)
    save(figure, path)
