"""Tiles on disk -> batches of uint8 pixels, decoded in worker processes, in an order the caller fixes."""

import abc
import contextlib
import dataclasses
import functools
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from pipeline.errors import BadTile, WorkerLost
from pipeline.tiles.decoding import decode_tile, pixel_hash, resize
from pipeline.tiles.stain_normalisation import Stain

STALLED_S = 300
"""A worker that delivers nothing for this long is taken for hung."""

CHANGED_PIXELS = "its pixels changed since the manifest was made"
"""How the problem of a tile ends that can be read but is another than the manifest's."""


@dataclasses.dataclass(frozen=True)
class Batch:
    """Decoded tiles in the asked order."""

    rows: list[int]
    """Row numbers in the caller's list of paths."""

    pixels: torch.Tensor
    """(B, 3, size, size) uint8, channels_last; zeros where `problems` says why."""

    sha256: np.ndarray
    """(B, 32) uint8, of the pixels before resizing; zeros for a tile that could not be read."""

    problems: list[str]
    """"" or why the tile could not be used."""


Item = tuple[int, np.ndarray, np.ndarray, str]
"""Row, pixels (size, size, 3) uint8, SHA-256 (32,) uint8, and "" or why it cannot be used; zeros if it cannot."""


class TileSource(Dataset[Item], abc.ABC):
    """Tiles by row number; a tile that cannot be read is an item with a problem, never an exception."""

    size: int
    """Side in px of the tiles it gives."""

    place: Path
    """The folder or file that they come from, for messages."""

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def __getitem__(self, row: int) -> Item: ...

    @abc.abstractmethod
    def name(self, row: int) -> str:
        """Return where a tile comes from, for messages."""

    def promising(self) -> Sequence[int]:
        """Return the rows that are not known to be unreadable."""
        return range(len(self))


def network_input(pixels: np.ndarray, size: int, stain: Stain | None) -> np.ndarray:
    """Return a tile (h, w, 3) uint8 as the network gets it, (size, size, 3) uint8: resized, then normalised in stain.

    In this order, since tiles of slides are read at their size.
    """
    pixels = resize(pixels, size)
    return pixels if stain is None else stain.apply(pixels)


class TileFiles(TileSource):
    """Tiles that are files, checked by the hash of their pixels.

    Pixels are held against `sha256` ("" for a tile that was unreadable when its manifest was made; None for tiles that
    no manifest knows). `change` gets a tile's own pixels (h, w, 3) uint8, once these were checked, and returns those
    that are resized; `stain` comes last, as a scanner's faults come before the network's preprocessing.
    """

    def __init__(
        self,
        root: Path,
        paths: Sequence[str],
        sha256: Sequence[str] | None,
        size: int,
        *,
        change: Callable[[np.ndarray], np.ndarray] | None = None,
        stain: Stain | None = None,
    ) -> None:
        self.root, self.paths, self.size = root, list(paths), size
        self.sha256 = None if sha256 is None else list(sha256)
        self.place = root
        self.change, self.stain = change, stain

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, row: int) -> str:
        """See `TileSource`."""
        return str(self.root / self.paths[row])

    def promising(self) -> Sequence[int]:
        """See `TileSource`."""
        return [row for row in range(len(self)) if self.sha256 is None or self.sha256[row]]

    def __getitem__(self, row: int) -> Item:
        nothing = np.zeros((self.size, self.size, 3), np.uint8), np.zeros(32, np.uint8)
        if self.sha256 is not None and not self.sha256[row]:
            return row, *nothing, f"{self.root / self.paths[row]}: unreadable when the manifest was made"
        try:
            pixels = decode_tile(self.root / self.paths[row])
        except BadTile as error:
            return row, *nothing, str(error)
        digest = pixel_hash(pixels)
        if self.sha256 is not None and digest.hex() != self.sha256[row]:
            return row, *nothing, f"{self.root / self.paths[row]}: {CHANGED_PIXELS}"
        changed = pixels if self.change is None else self.change(pixels)
        return row, network_input(changed, self.size, self.stain), np.frombuffer(digest, np.uint8), ""


def _collate(items: list[Item]) -> Batch:
    rows, pixels, digests, problems = zip(*items, strict=True)
    stacked = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)  # NHWC memory is channels_last already
    return Batch(rows=list(rows), pixels=stacked, sha256=np.stack(digests), problems=list(problems))


def _leave_to_parent(signum: int, frame: FrameType | None) -> None:
    signal.signal(signum, signal.SIG_DFL)


def _begin_worker(worker: int) -> None:
    torch.set_num_threads(1)  # the cores belong to the network
    for number in (signal.SIGINT, signal.SIGTERM):
        # Ctrl-C and batch systems signal the whole group: the parent saves first, and then ends its workers
        signal.signal(number, _leave_to_parent)


@functools.cache
def _torchs_check() -> Callable[[int, FrameType | None], None]:
    """Return torch's handler of SIGCHLD, which raises if a worker died; it is set once, with the first workers."""
    handler = signal.getsignal(signal.SIGCHLD)
    assert callable(handler), "torch sets it in the main thread"  # noqa: S101
    return handler


@contextlib.contextmanager
def _deaths_told() -> Iterator[None]:
    """Let torch raise RuntimeError for a dead worker in here only.

    By itself it does so out of the signal handler, wherever the main thread is: in the middle of an optimizer's step.
    """
    check = _torchs_check()
    signal.signal(signal.SIGCHLD, check)
    try:
        check(signal.SIGCHLD, None)  # of a worker that died meanwhile
        yield
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def load_batches(tiles: TileSource, batches: Sequence[Sequence[int] | np.ndarray], *, workers: int) -> Iterator[Batch]:
    """Yield the batches of row numbers in order, the next ones decoded ahead by `workers` processes (0: in this one).

    Raises:
        WorkerLost: a worker died or hangs; it is raised here, never in the midst of what the caller does with a batch.
    """
    loader: DataLoader[Any] = DataLoader(
        tiles,
        batch_sampler=[list(batch) for batch in batches],
        num_workers=workers,
        collate_fn=_collate,
        worker_init_fn=_begin_worker,
        timeout=STALLED_S if workers else 0,
        prefetch_factor=4 if workers else None,
    )
    if not workers:
        yield from loader
        return
    iterator = iter(loader)
    while True:
        try:
            with _deaths_told():
                batch = next(iterator, None)
        except (RuntimeError, ConnectionError, EOFError) as error:  # the last two: torn from a dead worker's pipe
            if isinstance(error, RuntimeError) and not str(error).startswith("DataLoader"):
                raise
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise WorkerLost(
                f"a worker process that decodes tiles ended or hangs ({reason}): "
                "run the same command again, with --workers 0 if it happens again"
            ) from error
        if batch is None:
            return
        yield batch


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return the tensor on a device; a GPU gets it from pinned memory, so that nothing waits for the steps before."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


@functools.lru_cache
def _per_channel(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """Return 255 times the values, (1, 3, 1, 1) float32, sent to the device once."""
    with torch.inference_mode(False):  # noqa: FBT003  (for gradients, too; torch.compile takes no keyword here)
        return 255 * torch.tensor(values, device=device).view(1, 3, 1, 1)


def normalise(pixels: torch.Tensor, *, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Return uint8 pixels (B, 3, H, W) as float32: scaled to 0..1, minus `mean`, over `std` per channel."""
    shift, scale = (_per_channel(tuple(values), pixels.device) for values in (mean, std))
    return pixels.to(torch.float32, copy=True).sub_(shift).div_(scale)


def spread(rows: Sequence[int] | np.ndarray, n: int) -> np.ndarray:
    """Return at most n of the rows, evenly spread over their order."""
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(n, len(rows))).round().astype(int))
    return np.asarray(rows, dtype=int)[chosen]


def decoded(tiles: TileSource, rows: Sequence[int] | np.ndarray) -> torch.Tensor:
    """Return the tiles of some rows, (N, 3, S, S) uint8, channels_last, without those that cannot be read."""
    found = [pixels for _, pixels, _, problem in (tiles[int(row)] for row in rows) if not problem]
    stacked = np.stack(found) if found else np.zeros((0, tiles.size, tiles.size, 3), np.uint8)
    return torch.from_numpy(stacked).permute(0, 3, 1, 2)
