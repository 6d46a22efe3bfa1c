"""Format numbers and names for the report: rounding, "n/a", plurals, lists."""

import math
from collections.abc import Sequence
from typing import Any

from pipeline.names import SPELLING

NOT_AVAILABLE = "n/a"
"""Text of a value that is undefined or not known."""


def head_name(head: str) -> str:
    """Return the name of a head as it is written in text."""
    return SPELLING.get(head, head)


def is_number(value: Any) -> bool:
    """Return whether a value read from a file is a finite number (a bool is not)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def number(value: Any, digits: int = 3) -> str:
    """Return a number with fixed decimals, or "n/a" for anything that is not a finite number."""
    return f"{value:.{digits}f}" if is_number(value) else NOT_AVAILABLE


def points(share: float) -> str:
    """Return a difference of shares in percentage points, one decimal, never "-0.0"."""
    return number(round(100 * share, 1) + 0.0 if is_number(share) else share, 1)


def interval(low: float, high: float, digits: int = 3) -> str:
    """Return " (low to high)" to follow a value; empty without an interval."""
    return f" ({number(low, digits)} to {number(high, digits)})" if is_number(low) and is_number(high) else ""


def percent(share: Any, digits: int = 0) -> str:
    """Return a share as per cent, e.g. "95 %"."""
    return f"{100 * share:.{digits}f} %" if is_number(share) else NOT_AVAILABLE


def level_text(level: float) -> str:
    """Return a coverage as per cent without superfluous zeros, e.g. "95 %", "99.9 %"."""
    return f"{100 * level:.6g} %"


def seconds(value: Any) -> str:
    """Return a duration with a precision that fits its size."""
    if not is_number(value):
        return NOT_AVAILABLE
    return f"{value:.2f} s" if value < 10 else f"{value:.0f} s" if value < 600 else f"{value / 60:.0f} min"


def size(n_bytes: Any) -> str:
    """Return a file size in kB, MB or GB (powers of 1000)."""
    if not is_number(n_bytes):
        return NOT_AVAILABLE
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= scale:
            return f"{n_bytes / scale:.1f} {unit}"
    return f"{n_bytes:.0f} bytes"


def count(n: int, noun: str) -> str:
    """Return "1 tile", "2 tiles", "3 classes"."""
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{n} {noun if n == 1 else plural}"


def listing(names: Sequence[str]) -> str:
    """Return "a", "a and b", "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else "none"


def compact(value: Any) -> str:
    """Return a JSON value in one line: "a=1, b=x"; an empty one as "none"."""
    if isinstance(value, dict):
        return ", ".join(f"{key}={compact(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list):
        return "(" + ", ".join(map(compact, value)) + ")"
    return "none" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
