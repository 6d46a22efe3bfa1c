"""Draw a slide's class maps over its thumbnail: classes, probabilities, uncertainty, disagreement of heads."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.evaluation.validate import FloatArray, IntArray, NumberArray
from pipeline.figures.plotting import Axes, Figure, Normalize, Patch, Rectangle, ScalarMappable, to_rgb
from pipeline.figures.style import area_colours, save, short, styled
from pipeline.maps.cells import MISSING, REJECTED, Grid

COVER = 0.75
"""Opacity of a map over the thumbnail."""

MISSING_COLOUR, REJECTED_COLOUR = "0.35", "0.7"
PALE = 0.55
"""Part of the way from the thumbnail's grey to white under a map."""

GREY = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue in a grey value (ITU-R BT.601)."""

SIDE_BY_SIDE = 5
"""Panels in a row: slide, ground truth and three heads."""

DIFFERENT = {2: "#E69F00", 3: "#B84700"}
"""Number of classes that the heads predict for a cell -> colour."""

FEW = 256
"""Number of colours in a figure that shows the slide."""

MOST_NAMED = 24
"""Classes in a legend, those with the largest area; tables hold all."""

MOST_PANELS = 16
"""Classes of which the probabilities are drawn, those with the highest mean."""

LONGEST_PX = 700
"""Longest side of the thumbnail in a figure: the tissue can be recognised, and the file stays small."""


@dataclasses.dataclass(frozen=True)
class SlideView:
    """The slide that maps are drawn over."""

    thumbnail: np.ndarray | None
    """(h, w, 3) uint8 of the whole slide; None: drawn over white."""

    grid: Grid
    title: str
    """Title of every figure: the slide, and whether the network was trained on its source."""

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, right, bottom, top of the slide in mm."""
        scale = self.grid.mpp / 1000
        return 0, self.grid.width * scale, self.grid.height * scale, 0

    @property
    def aspect(self) -> float:
        """Height over width."""
        return self.grid.height / self.grid.width


@styled
def draw_class_map(path: Path, view: SlideView, code: IntArray, *, classes: Sequence[str], head: str) -> None:
    """Draw the class of each cell over the thumbnail, with a legend that gives each class's share of the mapped area.

    Args:
        path: the PNG.
        view: the slide.
        code: (R, C) codes of a `ClassMap`.
        classes: K names.
        head: title of the map.
    """
    figure, axes = _panels(view, [head], width=6.4)
    _ground(axes[0], view)
    _cells(axes[0], view.grid, _paint(code, len(classes)))
    mapped = view.grid.areas_mm2 * (code >= 0)
    shares = [float(mapped[code == k].sum() / max(mapped.sum(), 1e-12)) for k in range(len(classes))]
    _legend(figure, code, [f"{short(name, 20)} {100 * s:.1f} %" for name, s in zip(classes, shares, strict=True)])
    save(figure, path, colours=FEW)


@styled
def draw_side_by_side(path: Path, view: SlideView, codes: Mapping[str, IntArray], *, classes: Sequence[str]) -> None:
    """Draw the slide, the ground truth if it is known, and the map of every head side by side.

    Args:
        path: the PNG.
        view: the slide.
        codes: title -> (R, C) codes.
        classes: K names.
    """
    figure, axes = _panels(view, ["slide", *codes], width=2.4, columns=SIDE_BY_SIDE)
    _slide(axes[0], view)
    for axis, code in zip(axes[1:], codes.values(), strict=True):
        _cells(axis, view.grid, _paint(code, len(classes), cover=1.0))
    _legend(figure, np.concatenate([code.ravel() for code in codes.values()]), [short(name, 20) for name in classes])
    save(figure, path, colours=FEW)


@styled
def draw_probabilities(path: Path, view: SlideView, p: NumberArray, *, classes: Sequence[str], head: str) -> None:
    """Draw each class's probability over the slide, all on one scale.

    Args:
        path: the PNG.
        view: the slide.
        p: (R, C, K), NaN where there is no class.
        classes: K names; of more than `MOST_PANELS` those with the highest mean probability are drawn.
        head: title of the panels.
    """
    means = np.nan_to_num(p.reshape(-1, len(classes))).sum(axis=0)
    chosen = np.sort(np.argsort(-means, kind="stable")[:MOST_PANELS])
    rest = "" if len(chosen) == len(classes) else f" of the {len(chosen)} likeliest classes of {len(classes)}"
    figure, axes = _panels(view, [short(classes[k], 20) for k in chosen], width=2.3, over=f"{head}: probability{rest}")
    for k, axis in zip(chosen, axes, strict=True):
        _values(axis, view.grid, p[..., k], "viridis")
    _bar(figure, axes, "viridis", "probability")
    save(figure, path)


@styled
def draw_uncertainty(path: Path, view: SlideView, entropy: NumberArray, *, head: str) -> None:
    """Draw the uncertainty of a head in each cell.

    Args:
        path: the PNG.
        view: the slide.
        entropy: (R, C) 0..1, NaN where there is no class.
        head: title of the map.
    """
    figure, axes = _panels(view, [f"{head}: uncertainty"], width=6.0)
    _values(axes[0], view.grid, entropy, "magma")
    _bar(figure, axes, "magma", "entropy over ln K (0: one class is certain)")
    save(figure, path)


@styled
def draw_outliers(path: Path, view: SlideView, score: NumberArray) -> None:
    """Draw the outlier score of each cell.

    Args:
        path: the PNG.
        view: the slide.
        score: (R, C) divided by the threshold, NaN where there is no class.
    """
    figure, axes = _panels(view, ["outlier score"], width=6.0)
    _values(axes[0], view.grid, np.clip(score / 2, 0, 1), "magma")
    _bar(figure, axes, "magma", "distance to the training tiles (0.5: the threshold; 1: twice as far or more)")
    save(figure, path)


@styled
def draw_disagreement(path: Path, view: SlideView, n_predicted: IntArray) -> None:
    """Draw the cells for which the heads predict different classes.

    Args:
        path: the PNG.
        view: the slide.
        n_predicted: (R, C) number of classes that the heads predict for a cell, 0 in a cell without a class.
    """
    figure, axes = _panels(view, ["where the heads differ"], width=6.0)
    _ground(axes[0], view)
    painted = np.zeros((*n_predicted.shape, 4))
    for n, colour in DIFFERENT.items():
        painted[n_predicted == n] = (*to_rgb(colour), 0.85)
    _cells(axes[0], view.grid, painted)
    shown = {n: colour for n, colour in DIFFERENT.items() if (n_predicted == n).any()}
    handles = [Patch(color=colour, label=f"{n} different classes") for n, colour in shown.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    save(figure, path, colours=FEW)


def _panels(
    view: SlideView, titles: Sequence[str], *, width: float, columns: int = 4, over: str = ""
) -> tuple[Figure, list[Axes]]:
    """Return a figure with one panel per title, each `width` inches wide (less for a tall slide)."""
    n_rows = -(-len(titles) // columns)
    columns = -(-len(titles) // n_rows)  # rows of the same length
    width = min(width, 1.4 * width / max(view.aspect, 1e-3)) if view.aspect > 1.4 else width
    width = max(width, 1.2)
    height = min(width * view.aspect, 1.6 * width)
    size = (max(columns * width + 0.6, 3.6), n_rows * (height + 0.3) + 1.1)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(n_rows, columns, squeeze=False)
    for axis in grid.flat[len(titles) :]:
        axis.set_visible(False)
    axes = list(grid.flat[: len(titles)])
    left, right, bottom, top = view.extent
    for axis, title in zip(axes, titles, strict=True):
        axis.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[], aspect="equal")
        axis.spines[:].set_visible(False)
        axis.set_title(title)
    _scale_bar(axes[0], right, bottom)
    figure.suptitle("\n".join(part for part in (view.title, over) if part), fontsize=9)
    return figure, axes


def _slide(axis: Axes, view: SlideView) -> None:
    """Draw the thumbnail as it is."""
    if view.thumbnail is not None:
        axis.imshow(_reduced(view.thumbnail), extent=view.extent, interpolation="antialiased")


def _ground(axis: Axes, view: SlideView) -> None:
    """Draw the thumbnail in pale grey, so that the colours of a map on it stay those of the legend."""
    if view.thumbnail is not None:
        grey = _reduced(view.thumbnail) @ GREY / 255
        norm = Normalize(0, 1)
        axis.imshow(grey + PALE * (1 - grey), extent=view.extent, cmap="gray", norm=norm, interpolation="antialiased")


def _reduced(thumbnail: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(thumbnail).reduce(max(1, math.ceil(max(thumbnail.shape[:2]) / LONGEST_PX))))


def _place(grid: Grid) -> tuple[float, float, float, float]:
    """Return left, right, bottom, top of the grid in mm; cells at the border can extend beyond the slide."""
    scale = grid.mpp / 1000
    right, bottom = grid.left + grid.n_columns * grid.side, grid.top + grid.n_rows * grid.side
    return grid.left * scale, right * scale, bottom * scale, grid.top * scale


def _paint(code: IntArray, n_classes: int, *, cover: float = COVER) -> FloatArray:
    """Return (R, C, 4) colours of codes, transparent in a cell without a class."""
    painted = np.zeros((*code.shape, 4))
    for k, colour in enumerate(area_colours(n_classes)):
        painted[code == k] = (*to_rgb(colour), cover)
    painted[code == MISSING] = (*to_rgb(MISSING_COLOUR), 1)
    painted[code == REJECTED] = (*to_rgb(REJECTED_COLOUR), 1)
    return painted


def _cells(axis: Axes, grid: Grid, painted: FloatArray) -> None:
    axis.imshow(painted, extent=_place(grid), interpolation="nearest")
    _keep(axis, grid)


def _values(axis: Axes, grid: Grid, values: NumberArray, colours: str) -> None:
    axis.imshow(values, extent=_place(grid), cmap=colours, norm=Normalize(0, 1), interpolation="nearest")
    _keep(axis, grid)


def _keep(axis: Axes, grid: Grid) -> None:
    """Set the panel's limits to the slide's borders again, because an image moves them."""
    scale = grid.mpp / 1000
    axis.set(xlim=(0, grid.width * scale), ylim=(grid.height * scale, 0))


def _bar(figure: Figure, axes: Sequence[Axes], colours: str, label: str) -> None:
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), colours), ax=list(axes), shrink=0.7, aspect=25, pad=0.01)
    bar.set_label(label)
    bar.outline.set_visible(False)


def _legend(figure: Figure, code: IntArray, names: Sequence[str]) -> None:
    """Add a legend of the classes that occur, at most `MOST_NAMED`, and of unreadable cells."""
    colours = area_colours(len(names))
    counts = np.bincount(code[code >= 0].ravel(), minlength=len(names))
    shown = np.sort(np.argsort(-counts, kind="stable")[: min(MOST_NAMED, (counts > 0).sum())])
    handles = [Patch(color=colours[k], label=names[k]) for k in shown]
    if rest := int((counts > 0).sum()) - len(shown):
        handles.append(Patch(color="none", label=f"and {rest} smaller classes"))
    if (code == MISSING).any():
        handles.append(Patch(color=MISSING_COLOUR, label="could not be read"))
    if (code == REJECTED).any():
        handles.append(Patch(color=REJECTED_COLOUR, label="rejected"))
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8)


def nice_length(most: float) -> float:
    """Return the largest number 1, 2 or 5 times a power of ten that is at most `most` (> 0)."""
    power = 10.0 ** math.floor(math.log10(most))
    return max(step * power for step in (1, 2, 5) if step * power <= most * (1 + 1e-9))


def _scale_bar(axis: Axes, width: float, height: float) -> None:
    """Draw a scale bar of a round length, about a quarter of the slide's width, at the lower left."""
    length = nice_length(0.3 * width)
    thick, margin = 0.012 * max(width, height), 0.03 * width
    base = height - margin - thick
    label = f"{length:g} mm" if length >= 1 else f"{1000 * length:g} µm"
    axis.add_patch(Rectangle((margin, base), length, thick, color="black", lw=0, zorder=5))
    text = axis.text(margin + length / 2, base - thick / 2, label, ha="center", va="bottom", fontsize=8, zorder=5)
    text.set_bbox({"facecolor": "white", "alpha": 0.7, "lw": 0, "pad": 1})
