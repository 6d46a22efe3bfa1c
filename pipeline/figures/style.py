"""Style and save figures: colours that differ without colour vision too, short names, no frames."""

import colorsys
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from pipeline.figures.plotting import Figure, Text, families_with, mpl, to_hex, to_rgb
from pipeline.runtime.console import log
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
"""Part of the circle of hues between two colours, so that no two of many colours are close."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""Markers; each round through the colours uses the next one."""

CORRECT, WRONG = "#00735A", "#B84700"
"""Text colours of correct and wrong predictions: darkened Okabe-Ito green and vermilion."""

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
"""Settings of matplotlib that differ from its defaults."""

MISSING_GLYPH = re.compile(r"Glyph (\d+) .*missing from")
"""Matplotlib's warning about a character that is drawn as a box."""

_reported: set[str] = set()
"""Characters that this process has reported as missing from all fonts."""


DEFAULTS: dict[Any, Any] = {name: value for name, value in mpl.rcParamsDefault.items() if name != "backend"}
"""Matplotlib's own settings, which replace those of a matplotlibrc."""

styled = mpl.rc_context(DEFAULTS | STYLE)
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
    """Return a colour for each of n classes that fill areas, where no marker can distinguish repeated colours.

    From the eleventh class on hues are a golden angle apart, at two lightnesses.
    """
    more = [colorsys.hls_to_rgb(i * GOLDEN % 1, (0.42, 0.68)[i % 2], 0.6) for i in range(n - len(CLASS_COLOURS))]
    return [*CLASS_COLOURS[:n], *map(to_hex, more)]


def class_colours(n: int) -> list[tuple[int, int, int]]:
    """Return `area_colours` as 8-bit red, green, blue."""
    return [(round(255 * r), round(255 * g), round(255 * b)) for r, g, b in map(to_rgb, area_colours(n))]


def save(figure: Figure, path: Path, *, colours: int | None = None) -> None:
    """Write a figure as PNG, atomically and without a time stamp, so that equal figures are equal files.

    Args:
        figure: the figure.
        path: the file.
        colours: number of colours to keep (up to 256), which makes photographs a third of the size.
    """
    with atomic(path) as temporary:
        if missing := _write(figure, temporary):
            families, unknown = families_with(missing)
            if families:
                for text in figure.findobj(Text):
                    text.set_fontfamily([*mpl.rcParams["font.family"], *families])
                _write(figure, temporary)
            _report_unknown(unknown)
        if colours is not None:
            with Image.open(temporary) as drawn:
                few = drawn.convert("RGB").quantize(colours, dither=Image.Dither.NONE)
            few.save(temporary, format="png", optimize=True)


def _write(figure: Figure, path: Path) -> set[str]:
    """Write a figure as PNG and return the characters that its fonts lack."""
    missing: set[str] = set()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None})
    for warning in caught:
        if found := MISSING_GLYPH.match(str(warning.message)):
            missing.add(chr(int(found[1])))
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return missing


def _report_unknown(characters: set[str]) -> None:
    """Write one line about characters that no font has, each character once in a process."""
    if new := sorted(characters - _reported):
        _reported.update(new)
        shown = "".join(new[:20]) + ("..." if len(new) > 20 else "")
        log.warning(
            f"figures: no installed font has the characters {shown}, so that figures show boxes (tables show them): "
            "install a font of that script, such as Noto Sans CJK for Chinese, Japanese and Korean"
        )
