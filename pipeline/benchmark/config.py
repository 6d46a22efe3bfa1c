"""How a bench is run: on what, how often, how thoroughly."""

import dataclasses
import time
from collections.abc import Callable, Mapping

import torch


@dataclasses.dataclass(frozen=True)
class BenchConfig:
    """The same for all parts."""

    device: torch.device
    threads: int
    """Compute threads, of torch, XGBoost and the searches."""

    rounds: int
    seed: int
    is_quick: bool
    """Small sizes throughout: to see that it works; the figures say little."""

    engines: tuple[str, ...] = ()
    """Names of engines, with or without a precision ("torch", "openvino-bf16"), that are measured; none: all."""

    batches: tuple[int, ...] = ()
    """Tiles per batch of embedding; none: the device's usual ones."""

    tell: Callable[[str], object] = lambda text: None
    """Takes a line of progress."""

    def sized(self, full: int, quick: int) -> int:
        """Return a size for the thorough or for the quick bench."""
        return quick if self.is_quick else full


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
