"""Import matplotlib without the user's settings. No other module imports it.

Matplotlib takes a backend and settings from the environment, the current folder and the home folder. They are for
the user's own plots: Jupyter's backend stops a command, and other settings flip a thumbnail.
"""

import logging
import os
import sys
from collections.abc import Iterable

if "matplotlib" not in sys.modules:
    for _name in ("MPLBACKEND", "MATPLOTLIBRC"):
        os.environ.pop(_name, None)
logging.getLogger("matplotlib").setLevel(logging.ERROR)  # its warnings are about settings and fonts that are not used

import matplotlib as mpl  # noqa: E402
from matplotlib import patheffects  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.cm import ScalarMappable  # noqa: E402
from matplotlib.colors import Normalize, to_hex, to_rgb  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.font_manager import FontEntry, fontManager  # noqa: E402
from matplotlib.ft2font import FT2Font  # noqa: E402
from matplotlib.patches import Patch, Rectangle  # noqa: E402
from matplotlib.text import Text  # noqa: E402
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter  # noqa: E402

__all__ = [
    "Axes",
    "Figure",
    "LogLocator",
    "MaxNLocator",
    "Normalize",
    "NullFormatter",
    "Patch",
    "Rectangle",
    "ScalarFormatter",
    "ScalarMappable",
    "Text",
    "families_with",
    "fontManager",
    "mpl",
    "patheffects",
    "to_hex",
    "to_rgb",
]

NO_GLYPHS = ("last resort", "lastresort", "adobe blank")
"""Parts of the names of fonts that draw a box, or nothing, for every character."""


def families_with(characters: Iterable[str]) -> tuple[list[str], set[str]]:
    """Return installed font families that together draw some characters, and the characters that none draws.

    The family with most of the remaining characters comes first. Only upright fonts of regular weight are considered.
    """
    left, families = {ord(character) for character in characters}, []
    held = {entry.name: _drawn(entry, left) for entry in fontManager.ttflist if left and _is_regular(entry)}
    while left and held:
        name = max(held, key=lambda each: (len(held[each] & left), each))
        if not held[name] & left:
            break
        families.append(name)
        left -= held.pop(name)
    return families, set(map(chr, left))


def _is_regular(entry: FontEntry) -> bool:
    is_first = not getattr(entry, "index", 0)  # of a collection (.ttc); earlier matplotlib than 3.11 has no other
    is_upright = entry.style == "normal" and entry.weight in (400, "normal", "regular", "book")
    return is_first and is_upright and not any(part in entry.name.casefold() for part in NO_GLYPHS)


def _drawn(entry: FontEntry, codes: set[int]) -> set[int]:
    """Return the characters that a font has, none if matplotlib cannot draw with it (colour bitmaps)."""
    try:
        font = FT2Font(entry.fname)
        font.set_size(10, 72)
        return {code for code in codes if font.get_char_index(code)}
    except (OSError, RuntimeError):
        return set()
