"""Configure a benchmark and time its contenders alternately."""

import dataclasses
import time
from collections.abc import Callable, Mapping

import torch

from pipeline.network.precision import Precision, default_precision
from pipeline.runtime.console import log


@dataclasses.dataclass(frozen=True)
class BenchConfig:
    """The device, threads and rounds of a benchmark."""

    device: torch.device
    threads: int
    """Compute threads, of torch, XGBoost and the searches."""

    rounds: int
    """Number of measurements of each contender."""

    seed: int
    is_quick: bool = False
    """Use small sizes, to see that the benchmark works; its figures mean little."""

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """The precisions that are measured: fp32, and bf16 if the device computes in it."""
        return ("fp32", "bf16") if default_precision(self.device) == "bf16" else ("fp32",)

    def size(self, full: int, quick: int) -> int:
        """Return the size for a full or for a quick benchmark."""
        return quick if self.is_quick else full


Contender = Callable[[], float]
"""Work once and return the measured value: a rate, or seconds."""


def interleaved(contenders: Mapping[str, Contender], *, rounds: int, part: str) -> dict[str, list[float]]:
    """Return the values of every contender, one per round; each round takes all of them in the same order.

    Args:
        contenders: name -> function that measures once, after warm-up.
        rounds: at least 1.
        part: first words of the messages.
    """
    values: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(1, rounds + 1):
        for name, contender in contenders.items():
            values[name].append(contender())
            log.debug(f"bench: {part}: round {number} of {rounds}: {name}: {values[name][-1]:.4g}")
    return values


def seconds_of(work: Callable[[], object]) -> float:
    """Return how long `work` takes, in seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
