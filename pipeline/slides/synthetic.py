"""Draw a synthetic slide with known tissue: a pyramidal TIFF of demo tissue, and the map of its classes.

Writes `<name>.tif` (tiles of 256 px in JPEG, levels 1:1, 1:4 and 1:16, as in scanners' files, 0.495 um/px),
`<name>-truth.png` (grey; one pixel per cell of `cell_level0` px: the class code, 255 for glass) and
`<name>-truth.json`. The slide is written strip by strip: memory grows with its width, not with its area.

The slide is a mosaic: blocks of 150 px are drawn once per class, like demo tiles of one source, and placed in eight
orientations where the map has that class.
"""

import contextlib
import dataclasses
import io
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter

from pipeline.errors import BadArtifact
from pipeline.runtime.progress import progress
from pipeline.storage import atomic
from pipeline.tiles.datasets.kather2016 import KATHER2016
from pipeline.tiles.synthetic.tiles import CLASSES, render_tile

GENERATOR = 1
"""Version of the generator; increase it when the same arguments give other pixels."""

BLOCK_PX, CELL_PX = 150, 50
"""Sides in level-0 px of a block of texture, and of a cell of the map; a block is 3 x 3 cells."""

BLOCKS = 24
"""Blocks per class; each is used in eight orientations."""

GLASS = 255
"""Code of the map without tissue. It is drawn as the class EMPTY, whose own code is never used."""

EMPTY = CLASSES.index("08_EMPTY")

TIFF_TILE_PX, QUALITY = 256, 90
"""Side of the TIFF's tiles and quality of their JPEG, as usual for scanners."""

STEP = 4
"""Factor between levels of the pyramid."""

REGION_CELLS, MARGIN = 14.0, 0.07
"""Scale of the regions in cells, and the share of the side that is glass at each edge."""

Pixels = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True)
class DemoSlide:
    """The arguments of a demo slide."""

    side: int
    """Level-0 px."""

    source: int = 3
    """1..10: stain and focus, as in the demo set."""

    seed: int = 0


def truth_paths(path: Path) -> tuple[Path, Path]:
    """Return the paths of a slide's map and of its description."""
    return path.with_name(f"{path.stem}-truth.png"), path.with_name(f"{path.stem}-truth.json")


def class_map(slide: DemoSlide) -> Pixels:
    """Return the class of each cell, (ceil(side / CELL_PX),) * 2 uint8: smooth regions on glass.

    The class is the largest of seven fields of smooth noise; the outline is a rounded square distorted by noise.
    """
    n = -(-slide.side // CELL_PX)
    rng = np.random.default_rng([slide.seed, 0])
    sigma = min(REGION_CELLS, n / 10)

    def noise(scale: float) -> npt.NDArray[np.float64]:
        field = gaussian_filter(rng.standard_normal((n, n)), scale, mode="reflect")
        return np.asarray((field - field.mean()) / field.std())

    codes = np.stack([noise(sigma) for code in range(len(CLASSES)) if code != EMPTY]).argmax(axis=0)
    axis = (np.arange(n) + 0.5) / n * 2 - 1
    distance = (np.abs(axis[:, None]) ** 4 + np.abs(axis) ** 4) ** 0.25  # a square with round corners
    inside = distance + 0.06 * noise(1.5 * sigma) < 1 - 2 * MARGIN
    edge = np.abs(axis) > 1 - 0.5 * MARGIN
    inside[edge], inside[:, edge] = False, False
    return np.where(inside, codes, GLASS).astype(np.uint8)


def library(slide: DemoSlide) -> Pixels:
    """Return blocks of every class in eight orientations, (classes, 8 * BLOCKS, BLOCK_PX, BLOCK_PX, 3) uint8."""
    found = np.empty((len(CLASSES), 8 * BLOCKS, BLOCK_PX, BLOCK_PX, 3), np.uint8)
    with progress(len(CLASSES) * BLOCKS, unit="block", label="texture") as bar:
        for code, label in enumerate(CLASSES):
            for i in range(BLOCKS):
                rng = np.random.default_rng([slide.seed, 1, code, i])
                block = render_tile(label, source=slide.source, tile_px=BLOCK_PX, rng=rng)
                for turn in range(8):
                    turned = np.rot90(block, turn % 4)
                    found[code, 8 * i + turn] = turned if turn < 4 else turned[:, ::-1]
                bar.update()
    return found


def block_rows(slide: DemoSlide, truth: Pixels) -> Iterator[Pixels]:
    """Yield the slide in strips of a block's height, (at most BLOCK_PX, side, 3) uint8, from the top."""
    blocks = library(slide)
    cells = BLOCK_PX // CELL_PX
    codes = np.where(truth == GLASS, EMPTY, truth)
    n = -(-slide.side // BLOCK_PX)
    strip = np.empty((BLOCK_PX, n * BLOCK_PX, 3), np.uint8)
    for row in range(n):
        chosen = np.random.default_rng([slide.seed, 2, row]).integers(0, blocks.shape[1], n)
        for column in range(n):
            place = strip[:, column * BLOCK_PX : (column + 1) * BLOCK_PX]
            here = codes[row * cells : (row + 1) * cells, column * cells : (column + 1) * cells]
            place[:] = blocks[here[0, 0], chosen[column]]
            for y, x in np.argwhere(here != here[0, 0]):
                part = np.s_[y * CELL_PX : (y + 1) * CELL_PX, x * CELL_PX : (x + 1) * CELL_PX]
                place[part] = blocks[(here[y, x], chosen[column])][part]
        yield strip[: min(BLOCK_PX, slide.side - row * BLOCK_PX), : slide.side]


def strips(rows: Iterator[Pixels], *, height: int) -> Iterator[Pixels]:
    """Yield copies of the rows in strips of another height; the last one may be lower."""
    held: list[Pixels] = []
    for given in rows:
        held.append(given.copy())
        while sum(len(part) for part in held) >= height:
            whole = np.concatenate(held)
            yield whole[:height].copy()
            held = [whole[height:]]
    if rest := sum(len(part) for part in held):
        yield np.concatenate(held)[:rest]


def jpegs(strip: Pixels, pool: ThreadPoolExecutor) -> Iterator[bytes]:
    """Yield the TIFF tiles of a strip at most one tile high, each a JPEG; the last px fills the edges."""
    high, wide, _ = strip.shape
    missing = TIFF_TILE_PX - high, -wide % TIFF_TILE_PX
    filled = np.pad(strip, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")

    def encoded(x: int) -> bytes:
        buffer = io.BytesIO()
        tile = np.ascontiguousarray(filled[:, x : x + TIFF_TILE_PX])
        Image.fromarray(tile).save(buffer, format="JPEG", quality=QUALITY, subsampling="4:2:0")
        return buffer.getvalue()

    yield from pool.map(encoded, range(0, filled.shape[1], TIFF_TILE_PX))


def pyramid_levels(side: int) -> list[int]:
    """Return the sides of the levels: each `STEP` times smaller, down to the last that is more than a tile wide."""
    sides = [side]
    while len(sides) < 3 and sides[-1] // STEP > TIFF_TILE_PX:
        sides.append(sides[-1] // STEP)
    return sides


def reduced(rows: Iterator[Pixels], kept: Pixels) -> Iterator[Pixels]:
    """Yield the rows in strips of `TIFF_TILE_PX`, and write them, reduced by `STEP`, into `kept`."""
    done = 0
    for strip in strips(rows, height=TIFF_TILE_PX):
        small = np.asarray(Image.fromarray(strip).reduce(STEP))[: len(kept) - done, : len(kept)]
        kept[done : done + len(small)] = small
        done += len(small)
        yield strip


def write_pyramid(path: Path, rows: Iterator[Pixels], *, side: int, mpp: float) -> None:
    """Write a tiled, pyramidal TIFF; temporary files next to it hold the smaller levels.

    Args:
        path: the file.
        rows: the slide in strips from the top, (any, side, 3) uint8.
        side: side of the slide in px.
        mpp: micrometres per pixel.
    """
    import tifffile

    sides = pyramid_levels(side)
    with (
        contextlib.ExitStack() as files,
        ThreadPoolExecutor(4) as pool,
        tifffile.TiffWriter(path, bigtiff=side**2 > 4_000_000_000) as writer,
        progress(sum((-(-s // TIFF_TILE_PX)) ** 2 for s in sides), unit="tile", label="slide") as bar,
    ):

        def encoded(given: Iterator[Pixels]) -> Iterator[bytes]:
            for strip in given:
                for tile in jpegs(strip, pool):
                    yield tile
                    bar.update()

        for level, width in enumerate(sides):
            kept = np.zeros((0, 0, 3), np.uint8)
            if level + 1 < len(sides):
                below = files.enter_context(tempfile.TemporaryFile(dir=path.parent))
                kept = np.memmap(below, np.uint8, "w+", shape=(sides[level + 1], sides[level + 1], 3))
            writer.write(
                encoded(reduced(rows, kept)),
                shape=(width, width, 3),
                dtype=np.uint8,
                tile=(TIFF_TILE_PX, TIFF_TILE_PX),
                photometric="ycbcr",
                subsampling=(2, 2),
                compression="jpeg",
                subfiletype=int(level > 0),
                resolution=(1e4 / mpp * width / side, 1e4 / mpp * width / side),
                resolutionunit="CENTIMETER",
                software="histoheads demo slide",
                metadata=None,
            )
            rows = iter(np.split(kept, range(TIFF_TILE_PX, len(kept), TIFF_TILE_PX)))


def make_demo_slide(path: Path, slide: DemoSlide) -> bool:
    """Write a demo slide, its map and its description; the same arguments give the same bytes.

    Args:
        path: the TIFF; the others are next to it (`truth_paths`).
        slide: the arguments.

    Returns:
        False if this slide is already there, complete; else True.

    Raises:
        DiskFull: no space left; no file is written.
        BadArtifact: another slide is there.
    """
    image, description = truth_paths(path)
    facts: dict[str, Any] = {
        "generator": GENERATOR,
        "classes": list(CLASSES),
        "glass": GLASS,
        "cell_level0": CELL_PX,
        "slide_width": slide.side,
        "slide_height": slide.side,
        "mpp": KATHER2016.mpp,
        "source": f"{slide.source:02d}",
        "seed": slide.seed,
    }
    if description.is_file():
        found = atomic.from_json(description)
        if {name: found.get(name) for name in facts} != facts:
            raise BadArtifact(f"{path}: another demo slide is there: delete it, or choose another name")
        files = {"slide_sha256": path, "truth_sha256": image}
        if all(file.is_file() and atomic.sha256_file(file) == found.get(name) for name, file in files.items()):
            return False
    atomic.require_space(path.parent, slide.side**2 * 3 // 4)
    truth = class_map(slide)
    with atomic.atomic(path) as temporary:
        write_pyramid(temporary, block_rows(slide, truth), side=slide.side, mpp=KATHER2016.mpp)
    with atomic.atomic(image) as temporary:
        Image.fromarray(truth).save(temporary, format="PNG")
    hashes = {"slide_sha256": atomic.sha256_file(path), "truth_sha256": atomic.sha256_file(image)}
    atomic.write_text(description, atomic.to_json(facts | hashes))
    return True
