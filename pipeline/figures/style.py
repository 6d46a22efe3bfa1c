"""How the report's figures look: colours that are told apart without colour vision, short names, no frames."""

import colorsys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from pipeline.storage.atomic import atomic

DPI = 150

HEAD_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
"""Okabe and Ito, "Color Universal Design", 2008."""

CLASS_COLOURS = (
    "#332288",
    "#DDCC77",
    "#CC6677",
    "#117733",
    "#88CCEE",
    "#882255",
    "#44AA99",
    "#AA4499",
    "#999933",
    "#888888",
)
"""Paul Tol's "muted" scheme and a grey, ordered so that neighbours differ in lightness."""

GOLDEN = 0.618034
"""Part of the circle of hues between one colour and the next; no two of many come close."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""Each round through the colours takes the next marker."""

RIGHT, WRONG = "#00735A", "#B84700"
"""Text colours of right and wrong answers: darkened Okabe-Ito green and vermilion."""

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "0.4",
    "axes.linewidth": 0.7,
    "xtick.color": "0.2",
    "ytick.color": "0.2",
    "legend.frameon": False,
    "text.parse_math": False,  # a '$' in a class name is a dollar sign
}
"""Settings of matplotlib; `styled` puts them around a drawing function."""

styled = mpl.rc_context(STYLE)
"""Decorator of the functions that draw."""

LONGEST = 26
"""Longer names are cut in figures; tables have them in full."""


def short(name: str, longest: int = LONGEST) -> str:
    """Return a name that fits in a figure: one line, at most `longest` characters, never empty."""
    line = " ".join(name.split()) or "(empty)"
    line = line if len(line) <= longest else line[: longest - 1] + "…"
    return f" {line}" if line.startswith("_") else line  # matplotlib hides legend entries that begin with "_"


def head_colours(heads: Sequence[str]) -> dict[str, str]:
    """Return a colour for each head."""
    return {head: HEAD_COLOURS[i % len(HEAD_COLOURS)] for i, head in enumerate(heads)}


def look(index: int) -> tuple[str, str]:
    """Return colour and marker of the class or group with this index."""
    return CLASS_COLOURS[index % len(CLASS_COLOURS)], MARKERS[index // len(CLASS_COLOURS) % len(MARKERS)]


def area_colours(n: int) -> list[str]:
    """Return a colour for each of n classes that fill areas, where no marker can tell those of the next round apart.

    From the eleventh class on hues are a golden angle apart, at two lightnesses.
    """
    more = [colorsys.hls_to_rgb(i * GOLDEN % 1, (0.42, 0.68)[i % 2], 0.6) for i in range(n - len(CLASS_COLOURS))]
    return [*CLASS_COLOURS[:n], *map(to_hex, more)]


def save(figure: Figure, path: Path, *, colours: int | None = None) -> None:
    """Write a figure as PNG, atomically and without a time stamp, so that equal figures are equal files.

    Args:
        figure: to be written.
        path: the file.
        colours: keep only so many (up to 256): a third of the size where the figure is a photograph.
    """
    with atomic(path) as temporary, warnings.catch_warnings():
        # names in other scripts are drawn as boxes; the tables beside the figures have them
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})
        if colours is not None:
            with Image.open(temporary) as drawn:
                few = drawn.convert("RGB").quantize(colours, dither=Image.Dither.NONE)
            few.save(temporary, format="png", optimize=True)
