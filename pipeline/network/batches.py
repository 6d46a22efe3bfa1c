"""Read tiles in batches of uint8 pixels, decoded by worker processes, in the order that the caller gives."""

import contextlib
import dataclasses
import functools
import signal
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from pipeline.errors import WorkerLost
from pipeline.network.shared_memory import has_room
from pipeline.network.tile_files import Item, TileSource

STALLED_S = 300
"""Seconds without a batch after which a worker counts as hung."""

PREFETCHED = 4
"""Batches that each worker decodes ahead."""


@dataclasses.dataclass(frozen=True)
class Batch:
    """Decoded tiles in the requested order."""

    rows: list[int]
    """Row numbers in the caller's list of paths."""

    pixels: torch.Tensor
    """(B, 3, size, size) uint8, channels_last; zeros for a tile with a problem."""

    sha256: np.ndarray
    """(B, 32) uint8, of the pixels before resizing; zeros for a tile that could not be read."""

    problems: list[str]
    """"" or why the tile could not be used."""


Collated = tuple[list[int], Any, np.ndarray, list[str]]
"""Rows, pixels (B, size, size, 3) uint8 as an array or a tensor, SHA-256 (B, 32), problems."""


def _by_pipe(items: list[Item]) -> Collated:
    """Collate a batch that a worker sends through a pipe: arrays need no shared memory."""
    rows, pixels, digests, problems = zip(*items, strict=True)
    return list(rows), np.stack(pixels), np.stack(digests), list(problems)


def _by_shared_memory(items: list[Item]) -> Collated:
    """Collate a batch in shared memory, as tensors: two to three times as fast as a pipe."""
    rows, pixels, digests, problems = _by_pipe(items)
    return rows, torch.from_numpy(pixels), digests, problems


def _as_batch(collated: Collated) -> Batch:
    rows, pixels, digests, problems = collated
    pixels = torch.as_tensor(pixels).permute(0, 3, 1, 2)  # NHWC memory is channels_last already
    return Batch(rows=rows, pixels=pixels, sha256=digests, problems=problems)


def _leave_to_parent(signum: int, frame: FrameType | None) -> None:
    signal.signal(signum, signal.SIG_DFL)


def _begin_worker(worker: int) -> None:
    torch.set_num_threads(1)  # the cores are for the network
    for number in (signal.SIGINT, signal.SIGTERM):
        # Ctrl-C and batch systems signal the whole group: the parent saves first, and then ends its workers
        signal.signal(number, _leave_to_parent)


@functools.cache
def _torch_handler() -> Callable[[int, FrameType | None], None]:
    """Return torch's handler of SIGCHLD, which raises if a worker died; torch sets it once, with the first workers."""
    handler = signal.getsignal(signal.SIGCHLD)
    assert callable(handler), "torch sets it in the main thread"  # noqa: S101
    return handler


@contextlib.contextmanager
def _worker_deaths_raised() -> Iterator[None]:
    """Let torch raise RuntimeError for a dead worker only inside this context.

    Otherwise its signal handler raises wherever the main thread is, such as in the middle of an optimizer step.
    """
    check = _torch_handler()
    signal.signal(signal.SIGCHLD, check)
    try:
        check(signal.SIGCHLD, None)  # for a worker that died before
        yield
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def load_batches(tiles: TileSource, batches: Sequence[Sequence[int] | np.ndarray], *, workers: int) -> Iterator[Batch]:
    """Yield batches of tiles in the order of their row numbers.

    Args:
        tiles: the source.
        batches: row numbers of each batch.
        workers: processes that decode ahead; 0: this process decodes.

    Raises:
        WorkerLost: a worker died or hangs; raised here, never while the caller works on a batch.
    """
    largest = max(map(len, batches), default=0) * tiles.size**2 * 3
    shares = workers > 0 and has_room(largest * (PREFETCHED * workers + 1))
    loader: DataLoader[Any] = DataLoader(
        tiles,
        batch_sampler=[list(batch) for batch in batches],
        num_workers=workers,
        collate_fn=_by_shared_memory if shares else _by_pipe,
        worker_init_fn=_begin_worker,
        timeout=STALLED_S if workers else 0,
        prefetch_factor=PREFETCHED if workers else None,
    )
    if not workers:
        yield from map(_as_batch, loader)
        return
    iterator = iter(loader)
    while True:
        try:
            with _worker_deaths_raised():
                batch = next(iterator, None)
        except (RuntimeError, ConnectionError, EOFError) as error:  # the last two come from a dead worker's pipe
            if isinstance(error, RuntimeError) and not str(error).startswith("DataLoader"):
                raise
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise WorkerLost(
                f"a worker process that decodes tiles ended or hangs ({reason}): "
                "run the same command again, with --workers 0 if it happens again"
            ) from error
        if batch is None:
            return
        yield _as_batch(batch)


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return the tensor on a device; a GPU copies it from pinned memory, without waiting for earlier steps."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


@functools.lru_cache
def _per_channel(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """Return 255 times the values, (1, 3, 1, 1) float32, copied to the device once."""
    with torch.inference_mode(False):  # noqa: FBT003  (for gradients, too; torch.compile takes no keyword here)
        return 255 * torch.tensor(values, device=device).view(1, 3, 1, 1)


def normalise(pixels: torch.Tensor, *, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Return uint8 pixels (B, 3, H, W) as float32: scaled to 0..1, minus `mean`, over `std` per channel."""
    shift, scale = (_per_channel(tuple(values), pixels.device) for values in (mean, std))
    return pixels.to(torch.float32, copy=True).sub_(shift).div_(scale)


def decoded(tiles: TileSource, rows: Sequence[int] | np.ndarray) -> torch.Tensor:
    """Return the readable tiles of some rows, (N, 3, S, S) uint8, channels_last."""
    found = [pixels for _, pixels, _, problem in (tiles[int(row)] for row in rows) if not problem]
    stacked = np.stack(found) if found else np.zeros((0, tiles.size, tiles.size, 3), np.uint8)
    return torch.from_numpy(stacked).permute(0, 3, 1, 2)
