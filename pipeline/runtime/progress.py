"""Show progress bars with rate and time left: on a terminal, in the first process, without `--quiet`."""

import sys
from typing import Any

from tqdm import tqdm

from pipeline.runtime.console import is_quiet
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
        disable=is_quiet() or not (sys.stderr.isatty() and is_first()),
        smoothing=0.1,
        dynamic_ncols=True,
    )
