"""Define what every engine does: take uint8 tiles batch by batch, return features and logits in the same order."""

import abc
import collections
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pipeline.network.orientation import orient

NetworkOutput = tuple[np.ndarray, np.ndarray]
"""Features (B, D) and logits (B, K), float32; K is 0 for a frozen encoder. The caller may change both arrays."""


def as_output(arrays: Sequence[np.ndarray]) -> NetworkOutput:
    """Return features and logits of what a network gave: both, or features alone."""
    return arrays[0], (arrays[1] if len(arrays) > 1 else np.empty((len(arrays[0]), 0), np.float32))


ENGINES = {"torch": ("fp32", "bf16"), "compiled": ("fp32", "bf16"), "openvino": ("fp32", "bf16", "int8")}
"""Name of each engine -> the precisions it computes in."""

CPU_BATCH = 16
"""Tiles per forward pass on a CPU, where the activations of few tiles stay in the cache: the fastest of 4, 8, 16 and
32, or within 5 % of the fastest, for every engine."""

GPU_BATCH, GPU_BATCH_PX = 256, 256 * 224 * 224
"""Most tiles per forward pass on a GPU, and most pixels: larger tiles come in smaller batches, so that the activations
of ResNet-50 take at most 2 GB."""

MOST_BATCH = 8192
"""Largest batch that a user may request, or that is read from a record."""


def default_batch(device: torch.device, px: int) -> int:
    """Return the number of tiles per forward pass where `--embed-batch` is not given; it depends on nothing else.

    Args:
        device: that runs the network.
        px: side of the network's input.
    """
    if device.type != "cuda":
        return CPU_BATCH
    fitting = max(1, GPU_BATCH_PX // (px * px))
    return min(GPU_BATCH, 1 << (fitting.bit_length() - 1))  # a power of two


class Engine(abc.ABC):
    """Run a network over tiles in one way.

    The network gets every batch at its full size, the last one filled up with empty tiles. A row therefore does not
    depend on the number of tiles in its batch, and kernels that were compiled for one shape fit every batch.
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
    """Batches that are started before the result of the first is awaited."""

    versions: Mapping[str, str] = {}
    """Versions of the libraries that it needs in addition to torch."""

    @abc.abstractmethod
    def start(self, pixels: torch.Tensor) -> Any:
        """Start a full batch (batch, 3, S, S) of uint8 tiles, channels_last; return what `finish` needs."""

    @abc.abstractmethod
    def finish(self, started: Any) -> NetworkOutput:
        """Wait for a started batch and return all its rows."""

    def run(self, batches: Iterable[torch.Tensor]) -> Iterator[NetworkOutput]:
        """Yield features (B, D) and logits (B, K) of each batch, in order.

        Args:
            batches: uint8 tiles (B, 3, S, S) on the CPU, channels_last, at most `batch` each.
        """
        outputs = self._in_order(orient(pixels, view) for pixels in batches for view in range(self.views))
        try:
            for views in zip(*[outputs] * self.views, strict=True):  # takes as many outputs as a batch has views
                features, logits = zip(*views, strict=True)
                yield np.mean(features, axis=0), np.mean(logits, axis=0)
        finally:
            outputs.close()  # zip would keep it open

    def _in_order(self, batches: Iterable[torch.Tensor]) -> Generator[NetworkOutput, None, None]:
        """Yield the output of each batch; nothing is averaged."""
        waiting: collections.deque[tuple[int, Any]] = collections.deque()
        try:
            for pixels in batches:
                waiting.append((len(pixels), self.start(filled(pixels, self.batch))))
                if len(waiting) == self.in_flight:
                    yield self._next(waiting)
            while waiting:
                yield self._next(waiting)
        finally:
            for _, started in waiting:  # the caller stopped early: leave no work running
                self.finish(started)

    def _next(self, waiting: collections.deque[tuple[int, Any]]) -> NetworkOutput:
        n, started = waiting.popleft()
        features, logits = self.finish(started)
        return features[:n], logits[:n]


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
