"""What every engine does: take batches of uint8 tiles in order, give features and logits in the same order."""

import abc
import collections
from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from pipeline.network.orientation import turned

HeadOutput = tuple[np.ndarray, np.ndarray]
"""Features (B, D) and logits (B, K), float32; the arrays are the caller's to change."""

ENGINES = {"torch": ("fp32", "bf16"), "compiled": ("fp32", "bf16"), "openvino": ("fp32", "bf16", "int8")}
"""Name of each engine -> the precisions it knows."""

BATCH, GPU_BATCH = 16, 256
"""Tiles per forward pass where the user names none. On CPUs the activations of few tiles stay in the cache: of 4, 8, 16
and 32, 16 was the fastest or within 5 % of it for every engine."""

MOST_BATCH = 8192
"""More is not asked for, and not believed of a record."""


def default_batch(device: torch.device) -> int:
    """Return the number of tiles per forward pass for `--embed-batch` not given."""
    return GPU_BATCH if device.type == "cuda" else BATCH


class Engine(abc.ABC):
    """One way of running a network over tiles.

    The network sees every batch at its full size, the last one filled up with empty tiles: a row does not depend on
    how many tiles come with it, and what was compiled for a shape fits every batch.
    """

    name: str
    """As in `ENGINES`."""

    precision: str
    """fp32, bf16 or int8."""

    batch: int
    """Tiles per forward pass."""

    views: int = 1
    """1 or 8: features and logits are means over so many orientations, each in a forward pass of its own."""

    in_flight: int = 1
    """Batches that are started before the first of them is waited for."""

    versions: Mapping[str, str] = {}
    """Of the libraries that it needs beside torch."""

    @property
    def per_pass(self) -> int:
        """Tiles in one forward pass: a batch, or fewer where the device's memory did not hold one."""
        return self.batch

    @abc.abstractmethod
    def start(self, pixels: torch.Tensor) -> Any:
        """Begin with a full batch (batch, 3, S, S) of uint8 tiles, channels_last; return what `finish` needs."""

    @abc.abstractmethod
    def finish(self, started: Any) -> HeadOutput:
        """Wait for what `start` returned; return all rows of the batch."""

    def run(self, batches: Iterable[torch.Tensor]) -> Iterator[HeadOutput]:
        """Yield features (B, D) and logits (B, K) of each batch, in order.

        Args:
            batches: uint8 tiles (B, 3, S, S) on the CPU, channels_last, at most `batch` each.
        """
        answers = self._in_order(turned(pixels, view) for pixels in batches for view in range(self.views))
        try:
            for seen in zip(*[answers] * self.views, strict=True):  # as many answers at once as a batch has views
                found, scores = zip(*seen, strict=True)
                yield np.mean(found, axis=0), np.mean(scores, axis=0)
        finally:
            answers.close()  # zip would keep it waiting

    def _in_order(self, batches: Iterable[torch.Tensor]) -> Generator[HeadOutput, None, None]:
        """Yield the answer of each batch; nothing is averaged."""
        waiting: collections.deque[tuple[int, Any]] = collections.deque()
        try:
            for pixels in batches:
                waiting.append((len(pixels), self.start(filled(pixels, self.batch))))
                if len(waiting) == self.in_flight:
                    yield self._next(waiting)
            while waiting:
                yield self._next(waiting)
        finally:
            for _, started in waiting:  # nobody asked for the rest: leave no work behind
                self.finish(started)

    def _next(self, waiting: collections.deque[tuple[int, Any]]) -> HeadOutput:
        n, started = waiting.popleft()
        found, scores = self.finish(started)
        return found[:n], scores[:n]


def filled(pixels: torch.Tensor, batch: int) -> torch.Tensor:
    """Return a batch of tiles filled up with empty ones to `batch`, channels_last.

    Raises:
        ValueError: more tiles than `batch` (a programmer's error).
    """
    if len(pixels) > batch:
        raise ValueError(f"{len(pixels)} tiles for an engine of batches of {batch}")
    if len(pixels) < batch:
        pixels = torch.cat([pixels, pixels.new_zeros(batch - len(pixels), *pixels.shape[1:])])
    return pixels.contiguous(memory_format=torch.channels_last)
