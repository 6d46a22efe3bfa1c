"""Tiles on disk -> batches of uint8 pixels, decoded in worker processes, in an order the caller fixes."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from pipeline.errors import BadTile, PipelineError
from pipeline.tiles.decoding import decode_tile, pixel_hash, resize

STALLED_S = 300
"""A worker that delivers nothing for this long is taken for hung."""


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


class TileFiles(Dataset[tuple[int, np.ndarray, np.ndarray, str]]):
    """Tiles by row number; a tile that cannot be read is an item with a problem, never an exception."""

    def __init__(self, root: Path, paths: Sequence[str], sha256: Sequence[str], size: int) -> None:
        self.root, self.paths, self.sha256, self.size = root, list(paths), list(sha256), size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> tuple[int, np.ndarray, np.ndarray, str]:
        nothing = np.zeros((self.size, self.size, 3), np.uint8), np.zeros(32, np.uint8)
        if not self.sha256[row]:
            return row, *nothing, "unreadable when the manifest was made"
        try:
            pixels = decode_tile(self.root / self.paths[row])
        except BadTile as error:
            return row, *nothing, str(error)
        digest = pixel_hash(pixels)
        if digest.hex() != self.sha256[row]:
            return row, *nothing, f"{self.root / self.paths[row]}: its pixels changed since the manifest was made"
        return row, resize(pixels, self.size), np.frombuffer(digest, np.uint8), ""


def _collate(items: list[tuple[int, np.ndarray, np.ndarray, str]]) -> Batch:
    rows, pixels, digests, problems = zip(*items, strict=True)
    stacked = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)  # NHWC memory is channels_last already
    return Batch(rows=list(rows), pixels=stacked, sha256=np.stack(digests), problems=list(problems))


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)  # the cores belong to the network


def load_batches(tiles: TileFiles, batches: Sequence[Sequence[int] | np.ndarray], *, workers: int) -> Iterator[Batch]:
    """Yield the batches of row numbers in order, the next ones decoded ahead by `workers` processes (0: in this one).

    Raises:
        PipelineError: a worker died or hangs.
    """
    loader: DataLoader[Any] = DataLoader(
        tiles,
        batch_sampler=[list(batch) for batch in batches],
        num_workers=workers,
        collate_fn=_collate,
        worker_init_fn=_one_thread,
        timeout=STALLED_S if workers else 0,
        prefetch_factor=4 if workers else None,
    )
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader" in str(error):
            raise PipelineError(
                f"a worker process that decodes tiles ended or hangs ({str(error).splitlines()[0]}): "
                "run the same command again, with --workers 0 if it happens again"
            ) from error
        raise


def normalise(pixels: torch.Tensor, *, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Return uint8 pixels (B, 3, H, W) as float32: scaled to 0..1, minus `mean`, over `std` per channel."""
    scale = 255 * torch.tensor(std, device=pixels.device).view(1, 3, 1, 1)
    shift = 255 * torch.tensor(mean, device=pixels.device).view(1, 3, 1, 1)
    return (pixels.float() - shift) / scale


def random_flips(pixels: torch.Tensor, *, seed: Sequence[int]) -> torch.Tensor:
    """Flip each tile of (B, 3, H, W) left-right and up-down with probability 1/2 each.

    `seed` (e.g. run seed, epoch, step) alone decides the flips: they do not depend on workers or on a resume.
    """
    coins = np.random.default_rng(list(seed)).random((2, pixels.shape[0])) < 0.5
    for axis, coin in zip((-1, -2), torch.from_numpy(coins).to(pixels.device), strict=True):
        pixels = torch.where(coin.view(-1, 1, 1, 1), pixels.flip(axis), pixels)
    return pixels.contiguous(memory_format=torch.channels_last)
