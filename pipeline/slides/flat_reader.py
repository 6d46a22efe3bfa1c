"""Read slides of one level: plain TIFF, PNG, JPEG and WebP."""

import math
import warnings
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from pipeline.errors import BadTile
from pipeline.slides.base import Slide, check_size, reason_of
from pipeline.slides.scale import GivenMpp, resolve_mpp
from pipeline.slides.tiff_header import ORIENTATION, TiffHeader, check_main_image, check_orientation
from pipeline.tiles.decoding import read_tile

MOST_FLAT_SIDE = 65_535
"""Largest side of a picture that is decoded as a whole; Pillow's limit on its area is far stricter."""

NAMES = {b"\x89PNG": "PNG", b"\xff\xd8": "JPEG", b"RIFF": "WebP", b"II": "TIFF", b"MM": "TIFF"}
"""First bytes of a file -> format."""


class FlatSlide(Slide):
    """One picture of one level, mapped from the file or decoded into memory."""

    level_downsamples: ClassVar[tuple[float, ...]] = (1.0,)  # type: ignore[misc]

    def __init__(self, path: Path, header: TiffHeader | None, given: GivenMpp | None) -> None:
        self.path = path
        with path.open("rb") as file:
            magic = file.read(4)
        self.format = next((name for key, name in NAMES.items() if magic.startswith(key)), "image")
        if header is None:
            check_orientation(path, _exif_orientation(path))
        pixels, self.note = _flat(path)
        self._pixels: np.ndarray | None = pixels
        height, width = pixels.shape[:2]
        self.dimensions = width, height
        if header is not None:
            check_main_image(path, header, self.dimensions)
        self.level_dimensions = (self.dimensions,)
        self.scale = resolve_mpp(path, header.stated(tags=True) if header else [], given)

    def read_region_rgb(self, x: int, y: int, w: int, h: int, level: int) -> np.ndarray:
        """See `Slide`."""
        if self._pixels is None:
            self._pixels, _ = _flat(self.path)
        region = np.asarray(self._pixels[y : y + h, x : x + w])
        return np.repeat(region[:, :, None], 3, axis=2) if region.ndim == 2 else np.ascontiguousarray(region)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_pixels": None}


def _exif_orientation(path: Path) -> int:
    """Return the orientation in the EXIF data of a picture, 1 if there is none or it is damaged."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
            return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # noqa: BLE001 -- damaged metadata must not cost the pixels; the decoder reports damaged pixels
        return 1


def _flat(path: Path) -> tuple[np.ndarray, str]:
    """Return the pixels of a picture of one level, (h, w) or (h, w, 3) uint8, and a note on how they were read.

    Raises:
        BadTile: it cannot be read, or not without taking all memory.
    """
    mapped = _mapped_tiff(path)
    if mapped is not None:
        return mapped, ""
    decoded = read_tile(path, max_side=MOST_FLAT_SIDE)
    return decoded.pixels, decoded.note


def _mapped_tiff(path: Path) -> np.ndarray | None:
    """Return the first page of an uncompressed TIFF as a memory map, None for another file.

    Raises:
        BadTile: damaged, or longer than the file.
    """
    with path.open("rb") as file:
        if file.read(2) not in (b"II", b"MM"):
            return None
    try:
        import tifffile

        with tifffile.TiffFile(path) as tiff:
            page: Any = tiff.pages[0]
            is_plain = page.photometric in (1, 2) and page.planarconfig == 1 and page.samplesperpixel in (1, 3)
            if not (is_plain and page.compression == 1 and page.dtype == np.uint8 and page.is_contiguous):
                return None
            start, n_bytes = page.dataoffsets[0], math.prod(page.shape)
            shape = page.shape
    except Exception as error:  # noqa: BLE001 -- on damaged files the parser raises whatever comes
        raise BadTile(f"not a readable TIFF ({reason_of(error, path)})") from None
    check_size(path, (shape[1], shape[0]))
    if start + n_bytes > path.stat().st_size:
        raise BadTile("truncated: the file is shorter than its pixels")
    return np.memmap(path, np.uint8, "r", offset=start, shape=shape)
