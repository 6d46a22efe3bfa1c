"""Timings in rounds: A B C A B C, never A A A B B B, so that what else the machine does meets all alike."""

import time
from collections.abc import Callable, Mapping

Contender = Callable[[], float]
"""Does its work once and returns its value: a rate, or seconds."""


def interleaved(
    contenders: Mapping[str, Contender], *, rounds: int, tell: Callable[[str], object]
) -> dict[str, list[float]]:
    """Return the values of every contender, one per round, each round in the same order.

    Args:
        contenders: name -> what is measured; warmed up already.
        rounds: at least 1.
        tell: called with a line of progress after each value.
    """
    values: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(1, rounds + 1):
        for name, contender in contenders.items():
            values[name].append(contender())
            tell(f"round {number} of {rounds}: {name}: {values[name][-1]:.4g}")
    return values


def seconds_of(work: Callable[[], object]) -> float:
    """Return how long `work` takes, in seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
