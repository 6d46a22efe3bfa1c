"""How a bench is run: on what, how often, how thoroughly."""

import dataclasses
from collections.abc import Callable

import torch


@dataclasses.dataclass(frozen=True)
class Setting:
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
