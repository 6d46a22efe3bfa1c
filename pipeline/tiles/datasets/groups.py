"""Find the group of a tile: the names of its column, and the pattern in the tile's name."""

import contextlib
import re
import signal
from collections.abc import Iterator
from types import FrameType

from pipeline.errors import BadInput, UsageError
from pipeline.runtime.console import list_names

GROUP_NAMES = ("patient", "patient_id", "case", "case_id", "subject", "subject_id", "source", "slide", "slide_id")
"""Usual names of a table's column with the group of a tile or slide."""

REGEX_S = 20.0
"""Seconds that `--group-regex` may take for all names; a pattern such as (a+)+b takes for ever on some."""


def group_pattern(regex: str) -> re.Pattern[str]:
    """Return the compiled `--group-regex`.

    Raises:
        UsageError: not a regular expression, or it has no parenthesis.
    """
    try:
        pattern = re.compile(regex)
    except re.error as error:
        raise UsageError(f"--group-regex '{regex}': not a regular expression: {error}") from None
    if pattern.groups < 1:
        raise UsageError(f"--group-regex '{regex}': put the part that names the group into parentheses")
    return pattern


@contextlib.contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block after that time; regular expressions look for signals while they match."""

    def out_of_time(signum: int, frame: FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, out_of_time)
    others = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *others)
        signal.signal(signal.SIGALRM, before)


def parse_groups(paths: list[str], regex: str) -> list[str]:
    """Return the group of each tile: the first parenthesis of `regex`, searched in the tile's relative path.

    Raises:
        UsageError: as `group_pattern`, or it takes too long.
        BadInput: some paths do not match; they are named and counted, never dropped.
    """
    pattern = group_pattern(regex)
    try:
        with _at_most(REGEX_S):
            matches = [pattern.search(path) for path in paths]
    except TimeoutError:
        raise UsageError(
            f"--group-regex '{regex}': it takes more than {REGEX_S:.0f} s on these names: give one without "
            "repetitions inside repetitions"
        ) from None
    lost = [path for path, match in zip(paths, matches, strict=True) if match is None or not match[1]]
    if lost:
        raise BadInput(
            f"{len(lost)} of {len(paths)} tile names give no group by '{regex}': {list_names(lost)}: "
            "rename or remove them, or give another --group-regex ('' for none)"
        )
    return [match[1] for match in matches if match is not None]
