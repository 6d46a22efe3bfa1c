"""One function per kind of file: it may end in content or in a PipelineError of one line, nothing else."""

import dataclasses
import functools
import io
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
import pandas as pd
import tifffile
from PIL import Image

from pipeline.annotations.geojson import read_annotations
from pipeline.annotations.regions import combine
from pipeline.errors import PipelineError
from pipeline.slides.grid import SCHEMA as GRID
from pipeline.slides.grid import read_grid
from pipeline.slides.openslide_reader import open_slide
from pipeline.storage import baseline_features, records
from pipeline.storage.baseline_features import read_baselines
from pipeline.storage.embeddings import partial_rows
from pipeline.storage.embeddings.reader import read_embeddings
from pipeline.storage.embeddings.writer import write_embeddings
from pipeline.storage.hdf5 import write_attributes
from pipeline.tiles.datasets.sources import csv_tiles
from pipeline.tiles.decoding import decode_tile
from pipeline.tiles.manifest import SCHEMA, read_manifest

DETAILS = {"root": ".", "dataset": "made up", "protocol": "random"}
Item = TypeVar("Item")


def check(read: Callable[[Path], object], path: Path) -> None:
    """Read a file; let a PipelineError pass if it is one line."""
    try:
        read(path)
    except PipelineError as error:
        if len(str(error).splitlines()) != 1:
            raise AssertionError(f"not one line: {str(error)!r}") from error


def tile(data: bytes, folder: Path) -> None:
    """Decode a tile."""
    path = folder / "tile.png"
    path.write_bytes(data)
    check(decode_tile, path)


def manifest(data: bytes, folder: Path) -> None:
    """Read a list of tiles as a user gives it, and a manifest with a record that vouches for it."""
    path = folder / "manifest.csv"
    path.write_bytes(data)
    check(lambda file: csv_tiles(file, group_regex=""), path)
    records.write_record(records.Artifact(path, SCHEMA, "prepare"), details=DETAILS)
    check(read_manifest, path)


def slide(data: bytes, folder: Path) -> None:
    """Open a slide, make it small, and read a tile."""
    path = folder / "slide.tif"
    path.write_bytes(data)

    def look(path: Path) -> None:
        with open_slide(path, mpp=0.5) as opened:
            opened.thumbnail(64)
            opened.read_tile(0, 0, min(opened.dimensions), 32)

    check(look, path)


def grid(data: bytes, folder: Path) -> None:
    """Read the places of a slide's tiles; the first line is what the record says of the slide, as JSON."""
    path = folder / "grid.csv"
    head, _, rest = data.partition(b"\n")
    try:
        details = json.loads(head)
        json.dumps(details, allow_nan=False)
    except (ValueError, RecursionError):
        return  # no record could hold it
    if isinstance(details, dict):
        path.write_bytes(rest)
        records.write_record(records.Artifact(path, GRID, "tile"), details=details)
        check(read_grid, path)


def geojson(data: bytes, folder: Path) -> None:
    """Read annotations, also those that our maps hold, and combine them with corrections."""
    path = folder / "a.geojson"
    path.write_bytes(data)

    def look(path: Path) -> None:
        found = read_annotations(path, predicted=True)
        combine([found, found], origin=(1, 2))
        read_annotations(path)

    check(look, path)


def hdf5_raw(data: bytes, folder: Path) -> None:
    """Read bytes as embeddings and baselines; this mostly tries the HDF5 library, which can fail (SECURITY.md)."""
    path = folder / "file.h5"
    path.write_bytes(data)
    check(read_embeddings, path)
    check(read_baselines, path)


@dataclasses.dataclass(frozen=True)
class MadeRows:
    """Rows in memory, in the layout of `write_embeddings`."""

    path: Path
    row: np.dtype
    rows: np.ndarray

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield all rows."""
        yield self.rows


@functools.cache
def good_hdf5() -> Mapping[str, bytes]:
    """Return good HDF5 files as today's writers make them: embeddings of both types, compressed ones, baselines."""
    table = pd.DataFrame(
        {name: list("abc") for name in ("tile_id", "path")} | {"group": "g", "label": "A", "split": "test"}
    )
    attrs = {
        "classes": ["A", "B"],
        "preprocess": {},
        "encoder": "trained",
        "layer": "avgpool",
        "model_sha256": "m",
        "manifest_sha256": "n",
        "versions": {},
    }
    row = partial_rows.row_type(2, 2)
    rows = np.zeros(3, row)
    rows["features"] = 1
    baseline_row = baseline_features.row_type(colour_histogram=2, handcrafted=2, untrained=2)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, dtype in (("embeddings.h5", "float32"), ("half.h5", "float16")):
            write_embeddings(folder / file, MadeRows(folder / file, row, rows), table, attrs=attrs, dtype=dtype)
        with h5py.File(folder / "embeddings.h5") as source, h5py.File(folder / "chunked.h5", "w") as target:
            for key, dataset in source.items():
                target.create_dataset(key, data=dataset, chunks=True, compression="gzip")
            for key, value in source.attrs.items():
                target.attrs.create(key, value, dtype=source.attrs.get_id(key).dtype)
        baseline_features.write_baselines(
            folder / "baselines.h5",
            list("abc"),
            [np.zeros(3, baseline_row)],
            row=baseline_row,
            names=["a", "b"],
            px=8,
            seed=0,
            arch="resnet10",
        )
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def ramp(height: int, width: int) -> np.ndarray:
    """Return an image (height, width, 3) uint8 whose channels grow at three rates to the right and downwards."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x + y, 2 * x + y, x + 2 * y], axis=-1).astype(np.uint8)


@functools.cache
def good_tiles() -> Mapping[str, bytes]:
    """Return a ramp of 8 px in the formats, colour modes and compressions that tiles come in."""
    image, turned = Image.fromarray(ramp(8, 8)), Image.Exif()
    turned[0x0112] = 6  # orientation: a quarter turn
    made = {
        "baseline.jpg": (image, {"exif": turned}),
        "progressive.jpg": (image, {"progressive": True}),
        "cmyk.jpg": (image.convert("CMYK"), {}),
        "rgb.png": (image, {}),
        "rgba.png": (image.convert("RGBA"), {}),
        "palette.png": (image.quantize(8), {}),
        "grey1.png": (image.convert("1"), {}),
        "exif.png": (image, {"exif": turned}),
        "lossy.webp": (image, {}),
        "lossless.webp": (image, {"lossless": True}),
        "exif.webp": (image, {"exif": turned}),
        "group4.tif": (image.convert("1"), {"compression": "group4"}),
    }
    packed = ("raw", "packbits", "jpeg", "tiff_lzw", "tiff_adobe_deflate")
    made |= {f"{name}.tif": (image, {"compression": name}) for name in packed}
    formats = {".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".tif": "TIFF"}
    good = {}
    for name, (picture, options) in made.items():
        file = io.BytesIO()
        picture.save(file, formats[Path(name).suffix], **options)
        good[name] = file.getvalue()
    return good


@functools.cache
def good_slides() -> Mapping[str, bytes]:
    """Return ramps as TIFF slides: plain, grey, compressed, tiled, and two levels of JPEG tiles with a scale."""
    big = ramp(96, 128)
    tiled = {"tile": (32, 32), "photometric": "rgb"}
    scale = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}
    made = {
        "plain.tif": [(ramp(40, 40), {"photometric": "rgb"})],
        "grey.tif": [(ramp(40, 40)[..., 0], {})],
        "packed.tif": [(ramp(40, 40), {"compression": "deflate", "photometric": "rgb"})],
        "tiled.tif": [(ramp(64, 64), tiled)],
        "pyramid.tif": [
            (big, tiled | scale | {"compression": "jpeg"}),
            (big[::2, ::2], tiled | scale | {"compression": "jpeg", "subfiletype": 1}),
        ],
    }
    good = {}
    for name, levels in made.items():
        file = io.BytesIO()
        with tifffile.TiffWriter(file) as writer:
            for pixels, options in levels:
                writer.write(pixels, **options)
        good[name] = file.getvalue()
    return good


GOOD: dict[str, Callable[[], Mapping[str, bytes]]] = {
    "hdf5_raw": good_hdf5,
    "tile": good_tiles,
    "slide": good_slides,
}
"""Target -> function that makes good files: today's writers make them, none is stored."""


class Choices:
    """A fuzzer's bytes as a row of decisions; when they are used up, the first of each choice is taken."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def number(self, most: int) -> int:
        """Return 0 to `most` (at most 255)."""
        head, self.data = self.data[:1], self.data[1:]
        return (head[0] if head else 0) % (most + 1)

    def one_of(self, items: Sequence[Item]) -> Item:
        """Return one of the items."""
        return items[self.number(len(items) - 1)]

    def text(self) -> str:
        """Return up to 31 characters."""
        n = self.number(31)
        head, self.data = self.data[:n], self.data[n:]
        return head.decode("utf-8", "replace").replace("\0", "")


TYPES = ("<f4", "<f2", "<f8", ">f4", "<i2", "|u1", "|b1", "|S1", "|S9", "<c8", "vlen", "<u8")
SIDES = (0, 1, 2, 3, 32, 512, 1000, 65_537, 10**6, 10**9)
VALUES: tuple[Any, ...] = (
    True,
    False,
    3,
    -1,
    0.5,
    "",
    "[]",
    "{}",
    '["A", "B"]',
    "embeddings",
    "baselines",
    "1.0",
    "2.0",
)


def change(file: h5py.File, choices: Choices) -> None:
    """Change one thing in a good file."""
    names = [*file, "features", "elsewhere"]
    attributes = [*file.attrs, "note"]
    what = choices.number(6)
    if what == 0:
        del file[choices.one_of(names)]
    elif what == 1:
        name, target = choices.one_of(names), choices.one_of([*names, "/", "nowhere"])
        del file[name]
        links = (h5py.SoftLink(target), h5py.ExternalLink(choices.text() or "x", target), file[target])
        file[name] = choices.one_of(links)
    elif what == 2:
        del file.attrs[choices.one_of(attributes)]
    elif what == 3:
        write_attributes(file, {choices.one_of(attributes): choices.one_of((choices.text(), *VALUES))})
    elif what == 4:
        value: Any = choices.one_of((choices.text(), [choices.text()], h5py.Empty("f"), np.zeros(choices.number(9))))
        file.attrs[choices.one_of(attributes)] = value  # of variable length, a list, nothing
    elif what == 5:
        name = choices.one_of([name for name in file if isinstance(file[name], h5py.Dataset)])
        data = file[name]
        is_small = math.prod(data.chunks or (1,)) < 10**6  # else writing takes the memory that reading must not
        if data.size and data.dtype.kind in "fiuS" and is_small:
            row = choices.number(len(data) - 1)
            data[row] = (
                np.frombuffer(choices.text().encode().ljust(data[row].nbytes, b"\0"), np.uint8)[: data[row].nbytes]
                .view(data.dtype)[: data[row].size]
                .reshape(data[row].shape)
            )
    else:
        name, kind = choices.one_of(names), choices.one_of(TYPES)
        shape = tuple(choices.one_of(SIDES) for _ in range(choices.number(3)))
        chunks = tuple(choices.one_of(SIDES[1:]) for _ in shape) if shape and choices.number(1) else None
        packed = choices.one_of((None, "gzip", "lzf")) if chunks else None
        if name in file:
            del file[name]
        dtype = h5py.string_dtype() if kind == "vlen" else np.dtype(kind)
        growing = (None,) * len(shape) if chunks else None
        file.create_dataset(name, shape, dtype, chunks=chunks, maxshape=growing, compression=packed)


def hdf5(data: bytes, folder: Path) -> None:
    """Read a good file after some changes, made through the HDF5 library."""
    choices, path = Choices(data), folder / "file.h5"
    path.write_bytes(good_hdf5()[choices.one_of(("embeddings.h5", "half.h5", "baselines.h5", "chunked.h5"))])
    with h5py.File(path, "r+") as file:
        for _ in range(1 + choices.number(3)):
            try:
                change(file, choices)
            except (OSError, KeyError, ValueError, TypeError, RuntimeError):
                continue  # the library makes no such file
    check(read_embeddings, path)
    check(read_baselines, path)


TARGETS: dict[str, Callable[[bytes, Path], None]] = {
    "tile": tile,
    "manifest": manifest,
    "slide": slide,
    "grid": grid,
    "hdf5": hdf5,
    "geojson": geojson,
    "hdf5_raw": hdf5_raw,
}


def quicken() -> None:
    """Leave out what only costs time here: nothing of a fuzzer's files must survive a loss of power."""
    os.fsync = lambda _: None  # type: ignore[assignment]
