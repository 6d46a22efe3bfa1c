"""Describe tiles without any training: colours, hand-crafted texture, and a network with random weights."""

import collections
import contextlib
import dataclasses
import itertools
from collections.abc import Collection, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from pipeline.errors import BadTile, PipelineError
from pipeline.network.engines import Engine, build_engine
from pipeline.network.extraction.resumable_rows import status_of
from pipeline.network.model_file import Model
from pipeline.network.preprocess import Preprocess
from pipeline.network.resnet import build_network
from pipeline.network.tile_files import TileSource
from pipeline.runtime.progress import progress
from pipeline.runtime.signals import StopRequest
from pipeline.storage.embeddings.reader import OK
from pipeline.tiles.handcrafted_features import HANDCRAFTED_NAMES, N_COLOURS, colour_histogram, handcrafted_features

ARCH = "resnet50"
"""The untrained network."""

BATCH = 16
"""Tiles per forward pass."""

AHEAD = 8
"""Tiles per worker that may be described before the network has seen them."""


@dataclasses.dataclass(frozen=True)
class Described:
    """What was computed of one tile without the network."""

    row: int
    status: int
    problem: str
    """"" or why the tile could not be used; all arrays are zeros then."""

    sha256: np.ndarray
    """(32,) uint8."""

    colour_histogram: np.ndarray
    """(512,) float32."""

    handcrafted: np.ndarray
    """(D,) float32; zeros unless it is wanted."""

    pixels: np.ndarray
    """(px, px, 3) uint8: the network's input; zeros unless its features are wanted."""

    sides: tuple[int, int]
    """Height and width of the tile in px."""


def describe(tiles: TileSource, row: int, sets: Collection[str]) -> Described:
    """Decode one tile, once, and compute what the wanted feature sets need, without the network."""
    texture, empty = np.zeros(len(HANDCRAFTED_NAMES), np.float32), np.zeros((tiles.size, tiles.size, 3), np.uint8)
    try:
        pixels, digest = tiles.read_normalised(row)
    except BadTile as error:
        colours, no_hash = np.zeros(N_COLOURS, np.float32), np.zeros(32, np.uint8)
        return Described(row, status_of(str(error)), str(error), no_hash, colours, texture, empty, (0, 0))
    texture = handcrafted_features(pixels) if "handcrafted" in sets else texture
    resized = tiles.preprocess.apply(pixels) if "untrained" in sets else empty
    sides, sha256 = (pixels.shape[0], pixels.shape[1]), np.frombuffer(digest, np.uint8)
    return Described(row, OK, "", sha256, colour_histogram(pixels), texture, resized, sides)


def describe_all(tiles: TileSource, sets: Collection[str], *, workers: int) -> Generator[Described]:
    """Yield the tiles in order, described ahead by threads; memory does not grow with their number.

    Threads, not processes: texture is compiled code that works outside the interpreter's lock, and a killed run leaves
    no process behind.
    """
    waiting: collections.deque[Future[Described]] = collections.deque()
    pool = ThreadPoolExecutor(max(1, workers))
    try:
        for row in range(len(tiles)):
            waiting.append(pool.submit(describe, tiles, row, sets))
            if len(waiting) > AHEAD * max(1, workers):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def build_untrained(seed: int, px: int) -> Model:
    """Return ResNet-50 with torchvision's random weights, as before the first training step.

    In eval mode its batch normalisation, with the running mean 0 and variance 1 that it starts with, does nothing.
    The activations stay finite all the same (features of about 10, hundreds at most), and no statistic of any tile,
    test tiles among them, has to go into the network. Statistics estimated from tiles made the baseline lower, not
    higher: normalised random layers amplify noise.
    """
    info = {"arch": ARCH, "classes": [], "preprocess": Preprocess(size=px).as_json()}
    return Model(network=build_network(ARCH, n_classes=2, seed=seed).eval(), info=info, record={})


def untrained_engine(model: Model, device: torch.device) -> Engine:
    """Return the untrained network, ready to run."""
    return build_engine("torch", model, device=device, precision="fp32", batch=BATCH)


def described_blocks(
    tiles: TileSource,
    engine: Engine | None,
    sets: Collection[str],
    *,
    skipped: dict[int, str],
    workers: int,
    max_bad: float,
    label: str,
    lost: str,
) -> Generator[tuple[list[Described], np.ndarray]]:
    """Yield blocks of at most `BATCH` tiles in order, and their features of the untrained network.

    Args:
        tiles: N tiles, prepared for the untrained network.
        engine: the untrained network; None: its features are (n, 0).
        sets: wanted feature sets.
        skipped: gets row -> problem of each tile that cannot be used, whose rows are zeros.
        workers: threads.
        max_bad: largest share of tiles that cannot be used.
        label: of the progress bar.
        lost: what a stop loses, for its message.

    Raises:
        Interrupted: SIGINT or SIGTERM.
        BadInput: too many tiles cannot be used; names the first.
        PipelineError: the network gives a number that is not finite; names the tile.
    """
    under_way: collections.deque[list[Described]] = collections.deque()

    def pixels(described: Iterator[Described]) -> Iterator[torch.Tensor]:
        while block := list(itertools.islice(described, BATCH)):
            under_way.append(block)  # an engine may take the next block before it gives this one's features
            yield torch.from_numpy(np.stack([tile.pixels for tile in block])).permute(0, 3, 1, 2)

    with (
        StopRequest() as stop,
        progress(len(tiles), unit="tile", label=label) as bar,
        contextlib.closing(describe_all(tiles, sets, workers=workers)) as described,
    ):
        inputs = pixels(described)
        none = ((np.zeros((len(batch), 0), np.float32), None) for batch in inputs)
        for seen, _ in none if engine is None else engine.run(inputs):
            block = under_way.popleft()
            for i, tile in enumerate(block):
                if tile.problem:
                    seen[i] = 0
                    skipped[tile.row] = tile.problem
                elif not np.isfinite(seen[i]).all():
                    raise PipelineError(
                        f"{tiles.name(tile.row)}: the untrained network's features are not finite: give another --seed"
                    )
            tiles.check_share(skipped, max_bad=max_bad)
            yield block, seen
            bar.update(len(block))
            if stop.signum:
                raise stop.interrupted(lost)
