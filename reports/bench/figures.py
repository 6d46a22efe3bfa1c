"""Draw rates of the engines by batch size, speed-ups with their targets, and growth with the number of tiles."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pipeline.figures.plotting import Axes, Figure, LogLocator, NullFormatter, ScalarFormatter
from pipeline.figures.style import HEAD_COLOURS, MARKERS, save, short, styled

LINES = {"fp32": ":", "bf16": "-", "int8": "--"}
"""Precision -> how its line is drawn."""

Curve = dict[int, tuple[float, float, float]]
"""Batch size -> median, lowest and highest rate."""


@styled
def draw_rates(
    path: Path,
    curves: Mapping[tuple[str, str], Curve],
    *,
    levels: Mapping[str, float],
    ratios: Mapping[str, tuple[float, float | None]],
) -> None:
    """Draw the rates of the engines by batch size, and next to them how many times as fast as the plain way ours is.

    Args:
        path: the PNG.
        curves: (engine, precision) -> tiles/s by batch size; may be empty.
        levels: name -> tiles/s of the plain loop and of the limits, drawn as lines across.
        ratios: name -> times as fast as the plain way, and its target if it has one; may be empty.
    """
    panels = [*(["rates"] if curves else []), *(["ratios"] if ratios else [])]
    widths = {"rates": 5.0, "ratios": 3.4}
    figure = Figure(figsize=(sum(widths[name] for name in panels), 3.8), layout="constrained")
    axes = dict(zip(panels, np.atleast_1d(figure.subplots(1, len(panels))), strict=True))
    if curves:
        _draw_curves(axes["rates"], curves, levels)
        figure.legend(loc="outside upper left", ncols=4, fontsize=7)
    if ratios:
        _draw_ratios(axes["ratios"], ratios)
    save(figure, path)


def _draw_curves(axis: Axes, curves: Mapping[tuple[str, str], Curve], levels: Mapping[str, float]) -> None:
    engines = list(dict.fromkeys(engine for engine, _ in curves))
    for (engine, precision), curve in curves.items():
        i = engines.index(engine)
        batches = sorted(curve)
        median, low, high = np.array([curve[batch] for batch in batches]).T
        colour = HEAD_COLOURS[i % len(HEAD_COLOURS)]
        line = LINES.get(precision, "-.")
        marker = MARKERS[i % len(MARKERS)]
        axis.fill_between(batches, low, high, color=colour, alpha=0.15, lw=0)
        axis.plot(batches, median, line, marker=marker, color=colour, ms=4.5, lw=1.3, label=f"{engine} {precision}")
    every = sorted({batch for curve in curves.values() for batch in curve})
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xlim(every[0] / 1.25, every[-1] * 1.25)
    for name, value in levels.items():
        axis.axhline(value, color="0.55", lw=0.8, zorder=0)
        axis.annotate(
            short(name),
            (1, value),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="bottom",
            fontsize=7,
            color="0.4",
        )
    axis.set_xticks(every, [str(batch) for batch in every])
    axis.xaxis.set_minor_formatter(NullFormatter())
    _label_decades(axis)
    axis.set_xlabel("tiles per batch")
    axis.set_ylabel("tiles embedded per second")
    axis.grid(axis="y", which="both", color="0.93", lw=0.6)


def _label_decades(axis: Axes) -> None:
    """Write plain numbers at 1, 2 and 5 of every decade of a logarithmic y axis."""
    axis.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(ScalarFormatter())
    axis.yaxis.set_minor_formatter(NullFormatter())


def _draw_ratios(axis: Axes, ratios: Mapping[str, tuple[float, float | None]]) -> None:
    positions = np.arange(len(ratios))
    values = np.array([value for value, _ in ratios.values()])
    axis.barh(positions, values, height=0.55, color=HEAD_COLOURS[0])
    largest = max([*values, *(target for _, target in ratios.values() if target is not None)])
    for y, (value, target) in zip(positions.tolist(), ratios.values(), strict=True):
        axis.text(value + 0.015 * largest, y, f"{value:.1f}", va="center", fontsize=8, color="0.2")
        if target is not None:
            axis.plot([target, target], [y - 0.36, y + 0.36], color=HEAD_COLOURS[5], lw=1.6)
    axis.axvline(1, color="0.5", lw=0.8)
    axis.set_yticks(positions, [short(name) for name in ratios])
    axis.set_ylim(len(ratios) - 0.5, -0.5)
    axis.set_xlim(0, 1.12 * largest)
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    axis.set_xlabel("times as fast as the plain way (bar across: target)")


@styled
def draw_growth(path: Path, costs, *, slopes: Mapping[str, float | None]) -> None:
    """Draw time and memory of the stages by number of tiles, both axes logarithmic.

    Args:
        path: the PNG.
        costs: stage -> number of tiles -> cost, at one size or more.
        slopes: stage -> slope of its time, if it has one.
    """
    figure = Figure(figsize=(8.0, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    every = sorted({size for sizes in costs.values() for size in sizes})
    for axis, what, label in ((left, "seconds", "seconds"), (right, "megabytes", "peak memory in MB")):
        for i, (stage, sizes) in enumerate(costs.items()):
            marker, colour = MARKERS[i % len(MARKERS)], HEAD_COLOURS[i % len(HEAD_COLOURS)]
            steep = slopes.get(stage)
            name = f"{stage}, slope {steep:.2f}" if axis is left and steep is not None else stage
            values = [getattr(sizes[n], what) for n in sorted(sizes)]
            axis.plot(sorted(sizes), values, marker=marker, color=colour, ms=5, label=name)
        if axis is left:
            lowest = min(cost.seconds for sizes in costs.values() for cost in sizes.values())
            ends = np.array([every[0], every[-1]], dtype=float)
            axis.plot(ends, lowest * ends / ends[0], color="0.6", lw=0.9, ls=":", label="linear", zorder=0)
        axis.set(xscale="log", yscale="log", xlabel="tiles", ylabel=label)
        axis.set_xticks(every, [f"{size:,}" for size in every])
        axis.xaxis.set_minor_formatter(NullFormatter())
        _label_decades(axis)
        axis.grid(color="0.93", lw=0.6)
        axis.set_axisbelow(True)
        axis.legend(fontsize=7)
    save(figure, path)
