"""Cache the pixels of the splits in GPU or host memory, or stream them from their files in every epoch."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch

from pipeline.errors import BadInput, WorkerLost
from pipeline.network.batches import Batch, load_batches, to_device
from pipeline.network.tile_files import TileFiles
from pipeline.runtime.console import log
from pipeline.runtime.memory import free_bytes
from pipeline.runtime.process import n_local_ranks
from pipeline.runtime.progress import progress

SHARE = {"cpu": 0.5, "cuda": 0.25}
"""Largest share of a device's free memory for cached tiles; a large batch needs much of a GPU's memory."""

DECODED_TOGETHER = 64


def bytes_of(tiles: TileFiles) -> int:
    """Return the bytes of the tiles' pixels in memory."""
    return len(tiles) * 3 * tiles.size**2


def place_for(splits: Iterable[TileFiles], device: torch.device) -> torch.device | None:
    """Return the first of the device and the CPU whose memory all splits fit into; None if neither."""
    need = sum(map(bytes_of, splits))
    places = dict.fromkeys((device, torch.device("cpu")))
    for place in places:
        copies = n_local_ranks() if place.type == "cpu" else 1  # each process caches all tiles; each has its own GPU
        if need * copies <= SHARE.get(place.type, 0) * free_bytes(place):
            return place
    return None


def checked_pixels(batch: Batch) -> torch.Tensor:
    """Return the pixels of a batch.

    Raises:
        BadInput: a tile of the manifest is unreadable or has changed.
    """
    for problem in filter(None, batch.problems):
        raise BadInput(f"{problem}: run `python -m pipeline.prepare --restart`, then train again")
    return batch.pixels


class StreamedTiles:
    """Decode tiles from their files in every epoch."""

    def __init__(self, tiles: TileFiles, *, workers: int) -> None:
        self.tiles, self.workers = tiles, workers

    def batches(self, steps: Sequence[np.ndarray]) -> Iterator[torch.Tensor]:
        """Yield (B, 3, size, size) uint8, channels_last, for the row numbers of each step.

        Raises:
            BadInput: a tile of the manifest is unreadable or has changed.
            WorkerLost: a worker died or hangs.
        """
        loaded = load_batches(self.tiles, [rows for rows in steps if len(rows)], workers=self.workers)
        for rows in steps:
            yield (
                checked_pixels(next(loaded))
                if len(rows)
                else torch.empty((0, 3, *2 * [self.tiles.size]), dtype=torch.uint8)
            )


class CachedTiles:
    """Serve decoded tiles from memory.

    Args:
        pixels: (N, size, size, 3) uint8.
    """

    def __init__(self, pixels: torch.Tensor) -> None:
        self.pixels = pixels

    def batches(self, steps: Sequence[np.ndarray]) -> Iterator[torch.Tensor]:
        """Yield (B, 3, size, size) uint8, channels_last, for the row numbers of each step."""
        for rows in steps:
            chosen = to_device(torch.from_numpy(rows), self.pixels.device)
            yield self.pixels.index_select(0, chosen).permute(0, 3, 1, 2)


def in_step(batches: Iterator[torch.Tensor], agree: Callable[[WorkerLost | None], None]) -> Iterator[torch.Tensor]:
    """Yield the batches of this process, between exchanges with the other processes.

    Without the exchange, the other processes would wait in a collective operation for one that lost a worker.

    Args:
        batches: as many as in every other process.
        agree: called before each batch and after the last one, with the error of this process if it lost a worker;
            raises in all processes if one of them has such an error (`Ranks.raise_lost`).
    """
    while True:
        lost = pixels = None
        try:
            pixels = next(batches, None)
        except WorkerLost as error:
            lost = error
        agree(lost)
        if pixels is None:
            return
        yield pixels


def decode_all(
    tiles: TileFiles, place: torch.device, *, workers: int, on_decoded: Callable[[int], None]
) -> CachedTiles:
    """Decode all tiles into memory, and check each against its hash.

    Args:
        tiles: the files.
        place: device of the memory.
        workers: decoding processes; they end with this function.
        on_decoded: called with the number of decoded tiles; may raise to stop.

    Raises:
        BadInput: a tile of the manifest is unreadable or has changed.
        WorkerLost: a worker died or hangs.
        MemoryError, RuntimeError: the memory is no longer free.
    """
    pixels = torch.empty((len(tiles), tiles.size, tiles.size, 3), dtype=torch.uint8, device=place)
    steps = [range(len(tiles))[start : start + DECODED_TOGETHER] for start in range(0, len(tiles), DECODED_TOGETHER)]
    for batch in load_batches(tiles, steps, workers=workers):
        pixels[batch.rows[0] : batch.rows[-1] + 1] = checked_pixels(batch).permute(0, 2, 3, 1).to(place)
        on_decoded(len(batch.rows))
    return CachedTiles(pixels)


def open_tile_sources(
    splits: Mapping[str, TileFiles], device: torch.device, *, workers: int, stop_if_requested: Callable[[], None]
) -> dict[str, CachedTiles | StreamedTiles]:
    """Return the source of each split's pixels: all cached if they fit together, else all streamed. Log which.

    Args:
        splits: name -> files.
        device: where the network is.
        workers: decoding processes.
        stop_if_requested: called between tiles while they are decoded; may raise to stop.

    Raises:
        BadInput, WorkerLost, MemoryError, RuntimeError: as `decode_all`.
    """
    place = place_for(splits.values(), device)
    if place is None:
        log.info("train: the tiles do not fit into the free memory: they are decoded again in every epoch")
        return {name: StreamedTiles(tiles, workers=workers) for name, tiles in splits.items()}
    n, size = sum(map(len, splits.values())), sum(map(bytes_of, splits.values()))
    start = time.monotonic()
    with progress(n, unit="tile", label="decode") as bar:

        def on_decoded(more: int) -> None:
            bar.update(more)
            stop_if_requested()

        cached: dict[str, CachedTiles | StreamedTiles] = {}
        for name, tiles in splits.items():
            cached[name] = decode_all(tiles, place, workers=workers, on_decoded=on_decoded)
    where = "memory" if place.type == "cpu" else "the GPU's memory"
    log.info(f"train: {n} tiles cached in {where}, {size / 1e6:.0f} MB, decoded in {time.monotonic() - start:.1f} s")
    return cached
