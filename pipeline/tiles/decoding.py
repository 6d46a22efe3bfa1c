"""A tile file -> 8-bit RGB pixels, by one documented rule, or BadTile. The only place that opens images.

| stored as | becomes |
|---|---|
| 8-bit RGB | as it is |
| grey (1, L), palette (P), CMYK, YCbCr | converted to RGB |
| with transparency (LA, PA, RGBA, tRNS) | composed on white, the colour of empty slide |
| EXIF orientation | applied |
| 16-bit, 32-bit, float | BadTile: the scale of its values is not known |
| several pages, over 4096 x 4096 px, not PNG, JPEG, TIFF or WebP, truncated | BadTile |

A file may come from anyone: what it would cost to decode is looked at before it is decoded.
"""

import contextlib
import hashlib
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.errors import BadTile

FORMATS = ("PNG", "JPEG", "TIFF", "WEBP")
"""Formats that are decoded, whatever the file's name says."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp")
"""File names that a folder is searched for."""

MAX_SIDE = 4096
"""Largest side of a tile in px; a larger image is a slide or a bomb."""

MOST_BYTES = 256_000_000
"""Largest file of a tile; the largest tile has 67 MB of raw pixels."""

MOST_SCANS = 100
"""Passes over the picture that a progressive JPEG may ask for; encoders write about ten. Each costs time by the size of
the picture, but as few as 36 bytes of the file. libtiff draws the same line for JPEG in TIFF."""

JPEG_SCAN = b"\xff\xda"
"""Marker before each scan; compressed data cannot hold these two bytes."""

JPEG_SPARSE = (b"\xff\xc2", b"\xff\xc9", b"\xff\xca")
"""Frame markers of the codings whose scans can be far smaller than what they describe: progressive, arithmetic."""

TIFF_BLOCK_SIDES = (322, 323)
"""TIFF tags: sides of the blocks the picture is stored in, which may be far larger than the picture."""

PNG_DEPTH_BYTE = 24
"""Offset of the bit depth in a PNG's IHDR chunk; Pillow reduces 16-bit RGB to 8 without a word."""

TIFF_BITS_PER_SAMPLE = 258
"""TIFF tag; Pillow reduces 16-bit RGB to 8 without a word here too."""

_FILTERS = threading.Lock()
"""Held while the process's warning filters are changed: they belong to all its threads."""


@contextlib.contextmanager
def _no_guesses() -> Iterator[None]:
    """Turn Pillow's warnings into errors: it warns where it guesses, and a guess is not a tile."""
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def _open(path: Path, max_side: int) -> Image.Image:
    """Return the image, its header read and found good, its pixels not loaded yet."""
    if not path.is_file():
        raise BadTile("not a file" if path.exists() else "not there")
    if path.stat().st_size > MOST_BYTES:
        raise BadTile(f"the file has more than {MOST_BYTES / 1e6:.0f} MB")
    image = Image.open(path, formats=FORMATS)
    try:
        if max(image.size) > max_side:
            raise BadTile(f"{image.width}x{image.height} px is more than {max_side} on a side")
        if getattr(image, "is_animated", False):  # n_frames would walk through all of them
            raise BadTile("has several pages or frames")
        if fault := _cost(path, image):
            raise BadTile(fault)
        if _bits(path, image) > 8 or image.mode in ("I", "F") or image.mode.startswith("I;16"):
            raise BadTile("deeper than 8 bits a channel: convert it, the scale is not known")
    except BaseException:
        image.close()
        raise
    return image


def _cost(path: Path, image: Image.Image) -> str:
    """Return why decoding would cost far more time or memory than the picture's size allows, or ""."""
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        if any(tags.get(tag, 0) > MAX_SIDE for tag in TIFF_BLOCK_SIDES):
            return f"stored in blocks of more than {MAX_SIDE} px on a side"
    if image.format in ("JPEG", "MPO"):
        data = path.read_bytes()
        if any(marker in data for marker in JPEG_SPARSE) and data.count(JPEG_SCAN) > MOST_SCANS:
            return f"a JPEG of more than {MOST_SCANS} scans"
    return ""


def _bits(path: Path, image: Image.Image) -> int:
    """Return the bits per channel as stored in the file."""
    if image.format == "PNG":
        with path.open("rb") as handle:
            return handle.read(PNG_DEPTH_BYTE + 1)[PNG_DEPTH_BYTE]
    if image.format == "TIFF":
        bits = image.tag_v2.get(TIFF_BITS_PER_SAMPLE, (1,))  # type: ignore[attr-defined]
        return max(bits) if isinstance(bits, tuple) else int(bits)
    return 8


def decode_tile(path: Path, *, max_side: int = MAX_SIDE) -> np.ndarray:
    """Return a tile's pixels, (height, width, 3) uint8 RGB.

    Args:
        path: the file.
        max_side: largest side in px; whatever it is, Pillow's own limit of 89 million pixels holds.

    Raises:
        BadTile: the file is missing, truncated, of another format, too large, or deeper than 8 bits.
    """
    try:
        with _no_guesses():
            image = _open(path, max_side)
        with image:
            image.load()  # the costly part: threads do it side by side
            with _no_guesses():
                upright = ImageOps.exif_transpose(image)
            if upright.has_transparency_data:
                rgba = upright.convert("RGBA")
                upright = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
            return np.asarray(upright.convert("RGB"))
    except BadTile as error:
        raise BadTile(f"{path}: {error}") from None
    except UnidentifiedImageError:
        raise BadTile(f"{path}: not a readable PNG, JPEG, TIFF or WebP") from None
    except Exception as error:  # noqa: BLE001 -- on damaged files Pillow's parsers raise whatever comes (TypeError ...)
        reason = " ".join(str(error).replace(str(path), "file").split()) or type(error).__name__
        raise BadTile(f"{path}: {reason}") from None


def pixel_hash(pixels: np.ndarray) -> bytes:
    """Return the 32-byte SHA-256 of a tile's size and RGB pixels; equal for equal pixels in any file format."""
    height, width, _ = pixels.shape
    digest = hashlib.sha256(f"{width}x{height}:".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


def resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """Return the tile at size x size px, uint8, by Pillow's antialiased bilinear filter; unchanged if it fits."""
    if pixels.shape[:2] == (size, size):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR))
