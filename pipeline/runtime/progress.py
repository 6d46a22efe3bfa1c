"""Progress bars with rate and time left; silent when the output is no terminal, and in all but the first process."""

import sys
from typing import Any

from tqdm import tqdm

from pipeline.runtime.process import is_first


def progress(total: int, *, unit: str, label: str, done: int = 0) -> "tqdm[Any]":
    """Return a bar over `total` units, of which `done` were finished by an earlier run.

    Use as a context manager and call `.update(n)`; `.set_postfix_str(text)` shows e.g. the loss.
    """
    return tqdm(
        total=total,
        initial=done,
        unit=unit,
        desc=label,
        disable=not (sys.stderr.isatty() and is_first()),
        smoothing=0.1,
        dynamic_ncols=True,
    )
