"""What the stages cost at several numbers of tiles: slopes, and whether they are what they should be."""

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.markup.document import Bullets, Document, Figure, Section, Table, Text, to_markdown

STEEPEST = 1.1
"""Slope up to which a stage counts as linear in time."""

KB_PER_TILE = 2.0
"""Memory per further tile up to which a stage counts as flat: far below a tile's pixels (12 kB) or features (8 kB)."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a stage took at one number of tiles."""

    seconds: float
    megabytes: float
    """Peak of all processes of the stage together, 10^6 bytes."""


Costs = dict[str, dict[int, Cost]]
"""Stage -> number of tiles -> cost."""


def slope(values: Mapping[int, float]) -> float | None:
    """Return the exponent b of a n^b by least squares on logarithms; None for fewer than two sizes.

    Args:
        values: number of tiles -> a positive value.
    """
    if len(values) < 2:
        return None
    x, y = np.log(np.array(sorted(values), dtype=float)), np.log([values[n] for n in sorted(values)])
    return float(np.polyfit(x, y, 1)[0])


def fitted_slope(sizes: Mapping[int, Cost], what: str) -> float | None:
    """Return the exponent over all sizes of "seconds" or "megabytes"."""
    return slope({n: getattr(cost, what) for n, cost in sizes.items()})


def last_slope(sizes: Mapping[int, Cost], what: str) -> float | None:
    """Return the exponent between the two largest sizes, where starting up weighs least."""
    return slope({n: getattr(sizes[n], what) for n in sorted(sizes)[-2:]})


def kb_per_tile(sizes: Mapping[int, Cost]) -> float | None:
    """Return by how much memory grows between the two largest sizes, in kB (10^3 bytes) a tile."""
    if len(sizes) < 2:
        return None
    low, high = sorted(sizes)[-2:]
    return 1e3 * (sizes[high].megabytes - sizes[low].megabytes) / (high - low)


def verdict(stage: str, sizes: Mapping[int, Cost]) -> str:
    """Return a sentence on a stage's time and memory."""
    steep, grown = last_slope(sizes, "seconds"), kb_per_tile(sizes)
    if steep is None or grown is None:
        return f"{stage}: one size says nothing of growth"
    in_time = "linear in time or better" if steep <= STEEPEST else "MORE THAN LINEAR in time"
    in_memory = "flat in memory" if grown <= KB_PER_TILE else "growing in memory"
    return (
        f"{stage}: {in_time} (slope {steep:.2f}), {in_memory} ({grown:.2f} kB for each further tile), between the two "
        "largest sizes"
    )


def extraction(costs: Costs) -> str:
    """Return whether extraction does what it must: time linear in the tiles, memory that does not grow with them."""
    sizes = costs["extract"]
    steep, grown = last_slope(sizes, "seconds"), kb_per_tile(sizes)
    target = "extraction is linear in time and flat in memory"
    if steep is None or grown is None:
        return f"Not measured: {target}."
    return f"{'Met' if steep <= STEEPEST and grown <= KB_PER_TILE else 'Missed'}: {target}."


def to_csv(costs: Costs) -> str:
    """Return rows with stage, tiles, seconds and megabytes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["stage", "tiles", "seconds", "megabytes"])
    for stage, sizes in costs.items():
        for n, cost in sorted(sizes.items()):
            writer.writerow([stage, n, f"{cost.seconds:.2f}", f"{cost.megabytes:.1f}"])
    return text.getvalue()


def to_page(title: str, costs: Costs, *, facts: Sequence[str], figure: str) -> str:
    """Return the page as Markdown.

    Args:
        title: heading.
        costs: of all stages, at least at one size.
        facts: lines on machine, versions, command.
        figure: name of the PNG beside the page.
    """
    every = sorted({n for sizes in costs.values() for n in sizes})
    tables = []
    for what, unit, digits in (("seconds", "s", 1), ("megabytes", "MB", 0)):
        rows = []
        for stage, sizes in costs.items():
            values = [f"{getattr(sizes[n], what):.{digits}f}" if n in sizes else "" for n in every]
            slopes = [fitted_slope(sizes, what), last_slope(sizes, what)]
            rows.append([stage, *values, *("" if value is None else f"{value:.2f}" for value in slopes)])
        head = ["stage", *(f"{n:,} tiles" for n in every), "slope, all", "slope, last two"]
        caption = {"s": "Time in seconds", "MB": "Peak memory of all processes of the stage together, in MB"}[unit]
        tables.append(Table(head, rows, caption=caption))
    how = (
        "Each stage was run as a command of its own on synthetic tiles of 64 px; making the tiles does not count. "
        "fit_heads and report were given synthetic embeddings. Every stage pays some seconds for starting up, which "
        "flattens the slope over all sizes."
    )
    sections = [
        Section("Verdict", [Text(extraction(costs)), Bullets([verdict(stage, costs[stage]) for stage in costs])]),
        Section(
            "Figure", [Figure(figure, "Time and memory of the stages by number of tiles", "Both axes logarithmic.")]
        ),
        Section("Time and memory", tables),
        Section("Machine, versions, command", [Text(how), Bullets(facts)]),
    ]
    return to_markdown(Document(title, sections))
