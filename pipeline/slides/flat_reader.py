"""Slides of one level: plain TIFF, PNG, JPEG and WebP."""

import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from pipeline.errors import BadTile
from pipeline.slides.base import Slide, check_size, reason_of, scale_of
from pipeline.tiles.decoding import decode_tile

MOST_FLAT_SIDE = 65_535
"""Largest side of a picture that is decoded whole; Pillow's limit on its area is far stricter."""


class FlatSlide(Slide):
    """One picture of one level, mapped from the file or decoded into memory."""

    level_downsamples: ClassVar[tuple[float, ...]] = (1.0,)  # type: ignore[misc]

    def __init__(self, path: Path, mpp: float | None) -> None:
        self.path = path
        pixels, self.format, stated = _flat(path)
        self._pixels: np.ndarray | None = pixels
        height, width = pixels.shape[:2]
        self.dimensions = width, height
        self.level_dimensions = (self.dimensions,)
        self.mpp = scale_of(path, stated, mpp)

    def read_region_rgb(self, x: int, y: int, w: int, h: int, level: int) -> np.ndarray:
        """See `Slide`."""
        if self._pixels is None:
            self._pixels = _flat(self.path)[0]
        region = np.asarray(self._pixels[y : y + h, x : x + w])
        return np.repeat(region[:, :, None], 3, axis=2) if region.ndim == 2 else np.ascontiguousarray(region)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_pixels": None}


def _flat(path: Path) -> tuple[np.ndarray, str, list[float | None]]:
    """Return the pixels of a picture of one level, (h, w) or (h, w, 3) uint8, its format, and its scales.

    Raises:
        BadTile: it cannot be read, or not without taking all memory.
    """
    with path.open("rb") as file:
        magic = file.read(4)
    stated: list[float | None] = [None, None]
    if magic[:2] in (b"II", b"MM"):
        mapped, stated = _mapped_tiff(path)
        if mapped is not None:
            return mapped, "TIFF", stated
    pixels = decode_tile(path, max_side=MOST_FLAT_SIDE)
    names = {b"\x89PNG": "PNG", b"\xff\xd8": "JPEG", b"RIFF": "WebP", b"II": "TIFF", b"MM": "TIFF"}
    return pixels, next((name for key, name in names.items() if magic.startswith(key)), "image"), stated


def _mapped_tiff(path: Path) -> tuple[np.ndarray | None, list[float | None]]:
    """Return the first page of an uncompressed TIFF as a memory map, None if it is stored otherwise; and its scales.

    Raises:
        BadTile: damaged, or longer than the file.
    """
    try:
        import tifffile
    except ImportError:  # comes with scikit-image and with the extra
        return None, [None, None]
    try:
        with tifffile.TiffFile(path) as tiff:
            page: Any = tiff.pages[0]
            unit = {2: 25_400.0, 3: 10_000.0}.get(int(page.resolutionunit or 0))
            stated = [unit / per if unit and per > 0 else None for per in page.resolution]
            plain = page.photometric in (1, 2) and page.planarconfig == 1 and page.samplesperpixel in (1, 3)
            if not (plain and page.compression == 1 and page.dtype == np.uint8 and page.is_contiguous):
                return None, stated
            start, n_bytes = page.dataoffsets[0], math.prod(page.shape)
            shape = page.shape
    except Exception as error:  # noqa: BLE001 -- on damaged files the parser raises whatever comes
        raise BadTile(f"not a readable TIFF ({reason_of(error, path)})") from None
    check_size(path, (shape[1], shape[0]))
    if start + n_bytes > path.stat().st_size:
        raise BadTile("truncated: the file is shorter than its pixels")
    return np.memmap(path, np.uint8, "r", offset=start, shape=shape), stated
