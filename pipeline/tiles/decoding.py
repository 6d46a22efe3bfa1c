"""Decode a tile file to 8-bit RGB pixels by one rule, or raise BadTile. No other module opens images.

| stored as | becomes |
|---|---|
| 8-bit RGB | unchanged |
| grey (1, L), palette (P), CMYK, YCbCr | converted to RGB |
| with transparency (LA, PA, RGBA, tRNS) | composed on white, the colour of empty slide |
| transparency that hides a picture | BadTile: the fourth channel is a mask, not opacity |
| EXIF orientation | applied; unreadable: the tile stays as stored, with a note |
| damaged metadata | ignored where the pixels are whole |
| reduced copies of the first page (TIFF), previews (MPO) | ignored |
| 16-bit, 32-bit, float | BadTile: the scale of its values is not known |
| several pages or frames, over 4096 x 4096 px, another format than `FORMATS`, truncated | BadTile |

A path may also name a square of a slide, as though the slide were a folder: `s.svs/tile_x0_y512_448to224.png` is the
square of 448 level-0 px at (0, 512), resized to 224 px. The reader of slides decodes it.

A file may come from anyone: the cost of decoding is checked before the file is decoded.
"""

import contextlib
import ctypes
import dataclasses
import hashlib
import io
import logging
import re
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from pipeline.errors import BadTile
from pipeline.storage.placeholder import no_file, placeholder
from pipeline.tiles import image_limits
from pipeline.tiles.image_limits import MAX_SIDE, MOST_BYTES
from pipeline.tiles.metadata import without_metadata

FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "JPEG2000", "PPM")
"""Formats that are decoded, whatever the file's name is."""

READABLE = "PNG, JPEG, TIFF, WebP, BMP, GIF, JPEG 2000 or PPM"
"""`FORMATS` as messages name them."""

JPEG_START = b"\xff\xd8\xff"
"""First bytes of a JPEG. It is opened as such: its further pictures (multi-picture format) are previews."""

ORIENTATION = 274
"""Tag of EXIF and TIFF: orientation of a picture, 1 to 8."""

LEAST_VISIBLE = 0.1
"""Least mean opacity, 0..1, of a picture with transparency. A mask with values such as 0 and 1 of 255 has far less."""

LEAST_HIDDEN = 0.05
"""Share of invisible pixels from which there is a note, if they contain a picture."""

LEAST_PICTURE = 4.0
"""Standard deviation of the invisible pixels, of 255, from which they contain a picture: programs that cut a picture
out fill the rest with one colour."""

SQUARE = re.compile(r"tile_x(\d{1,9})_y(\d{1,9})_([1-9]\d{0,6})to([1-9]\d{0,3})\.png")
"""File name of a square of a slide: x, y and side in level-0 px, and side of the tile in px."""

_FILTERS = threading.Lock()
"""Lock for changes of the warning filters, which all threads share."""


@dataclasses.dataclass(frozen=True)
class Decoded:
    """A decoded tile."""

    pixels: np.ndarray
    """(height, width, 3) uint8 RGB."""

    note: str
    """Note about the tile for the reader of the results; mostly empty."""


def _silence_libraries() -> None:
    """Stop Pillow and libtiff from printing messages without a file name; errors are raised anyway."""
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    library = ctypes.CDLL(Image.core.__file__)  # type: ignore[attr-defined]
    for handler in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
        with contextlib.suppress(AttributeError):  # Pillow without libtiff, or with a static one
            getattr(library, handler)(None)


_silence_libraries()


@contextlib.contextmanager
def _recorded() -> Iterator[list[warnings.WarningMessage]]:
    """Record Pillow's warnings instead of printing them."""
    with _FILTERS, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught


def _open(source: Path | io.BytesIO, start: bytes, max_side: int) -> tuple[Image.Image, str, list[str]]:
    """Return the image, its header checked, its pixels not loaded yet; a note; and Pillow's warnings on its metadata.

    Raises:
        BadTile: as `image_limits.check`.
        OSError, and others: Pillow cannot read the header, or would guess.
    """
    with _recorded() as caught:
        image: Image.Image
        if start == JPEG_START:
            try:
                image = JpegImageFile(source)
            except SyntaxError as error:
                raise UnidentifiedImageError(str(error)) from None
        else:
            image = Image.open(source, formats=[name for name in FORMATS if name != "JPEG"])
        try:
            note = image_limits.check(image, source, max_side)
            if image.format == "TIFF" and caught:  # its tags decide its pixels, and Pillow guesses where it warns
                raise OSError(str(caught[0].message))
        except BaseException:
            image.close()
            raise
    # only a JPEG's warnings are about EXIF data
    return image, note, [str(warning.message) for warning in caught] if image.format == "JPEG" else []


def _upright(image: Image.Image, warned: list[str]) -> tuple[Image.Image, str]:
    """Return the image turned by its EXIF orientation, and a note where the orientation cannot be read.

    Args:
        image: loaded.
        warned: Pillow's warnings so far: some formats read EXIF when they are opened.
    """
    unreadable = "the orientation in its metadata cannot be read: used as stored"
    try:
        with _recorded() as caught:
            exif = image.getexif()
            turn = exif.get(ORIENTATION, 1)
    except Exception:  # noqa: BLE001 -- Pillow's parsers raise whatever comes
        return image, unreadable
    warned = [*warned, *(str(warning.message) for warning in caught)]
    is_lost = any(re.search(rf"Skipping tag (?!{ORIENTATION}$)", text) is None for text in warned)
    if (ORIENTATION not in exif and is_lost) or turn not in range(1, 9):
        return image, unreadable
    with _recorded():
        return (image if turn == 1 else ImageOps.exif_transpose(image)), ""


def _opaque(image: Image.Image) -> tuple[Image.Image, str]:
    """Return the image composed on white, and a note where its transparency hides a part of a picture.

    Raises:
        BadTile: the transparency hides nearly the whole picture, so that the channel is a mask.
    """
    rgba = image.convert("RGBA")
    values = np.asarray(rgba)
    alpha, hidden = values[..., 3], values[..., :3][values[..., 3] < LEAST_VISIBLE * 255]
    note = ""
    if len(hidden) and hidden.std(axis=0).max() >= LEAST_PICTURE:
        if alpha.mean() < LEAST_VISIBLE * 255:
            raise BadTile(
                f"its transparency (alpha at most {alpha.max()}, on average {alpha.mean():.1f}, of 255) hides it: drop "
                "the fourth channel"
            )
        if len(hidden) >= LEAST_HIDDEN * alpha.size:
            note = "its transparency hides a part of a picture: if the fourth channel is a mask, drop it"
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba), note


def _read(source: Path | io.BytesIO, start: bytes, max_side: int) -> Decoded:
    """Decode a file, or its bytes without metadata."""
    image, pages, warned = _open(source, start, max_side)
    with image:
        try:
            image.load()  # the costly part: threads run it in parallel
        except OSError as error:
            packed = image.info.get("compression") if image.format == "TIFF" else None
            raise OSError(f"{error} (compression {packed})" if packed else str(error)) from None
        upright, orientation = _upright(image, warned)
        upright, transparency = _opaque(upright) if upright.has_transparency_data else (upright, "")
        note = "; ".join(filter(None, (pages, orientation, transparency)))
        return Decoded(np.asarray(upright.convert("RGB")), note)


def as_pixels(values: np.ndarray) -> np.ndarray:
    """Return values on the scale 0..255 as uint8, rounded and clipped."""
    pixels: np.ndarray = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return pixels


def square_name(x: int, y: int, *, side: int, px: int) -> str:
    """Return the file name of a square of a slide at (x, y), of `side` level-0 px, resized to `px`; see `SQUARE`."""
    return f"tile_x{x}_y{y}_{side}to{px}.png"


def read_tile(path: Path, *, max_side: int = MAX_SIDE) -> Decoded:
    """Return a tile's pixels with a note on how they were read.

    Args:
        path: the file, or a square of a slide (`SQUARE`).
        max_side: largest side in px; Pillow's own limit of 89 million pixels holds in any case.

    Raises:
        BadTile: the file is missing, truncated, of another format, too large, deeper than 8 bits, of several pages,
            or hidden by its transparency.
    """
    if (square := SQUARE.fullmatch(path.name)) and path.parent.is_file():
        from pipeline.slides.openslide_reader import read_square  # the readers of slides need `resize` of this module

        x, y, side, px = map(int, square.groups())
        return Decoded(*read_square(path.parent, x, y, side=side, px=px))
    try:
        if what := no_file(path):
            raise BadTile(what)
        if path.stat().st_size > MOST_BYTES:
            raise BadTile(f"the file has more than {MOST_BYTES / 1e6:.0f} MB")
        with path.open("rb") as handle:
            start = handle.read(len(JPEG_START))
        try:
            return _read(path, start, max_side)
        except BadTile:
            raise
        except Exception:  # damaged pixels, or metadata that hides whole ones
            cleaned = without_metadata(path.read_bytes())
            if cleaned is None:
                raise
            with contextlib.suppress(Exception):  # then the first reason is reported
                return _read(io.BytesIO(cleaned), start, max_side)
            raise
    except BadTile as error:
        raise BadTile(f"{path}: {error}") from None
    except UnidentifiedImageError:
        raise BadTile(f"{path}: {placeholder(path) or f'not a readable {READABLE}: convert it to PNG'}") from None
    except Exception as error:  # noqa: BLE001 -- on damaged files Pillow's parsers raise whatever comes (TypeError ...)
        reason = " ".join(str(error).replace(str(path), "file").split()) or type(error).__name__
        raise BadTile(f"{path}: {reason}") from None


def decode_tile(path: Path, *, max_side: int = MAX_SIDE) -> np.ndarray:
    """Return a tile's pixels, (height, width, 3) uint8 RGB; see `read_tile`."""
    return read_tile(path, max_side=max_side).pixels


def pixel_hash(pixels: np.ndarray) -> bytes:
    """Return the 32-byte SHA-256 of a tile's size and RGB pixels; equal for equal pixels in any file format."""
    height, width, _ = pixels.shape
    digest = hashlib.sha256(f"{width}x{height}:".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


INTERPOLATIONS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
"""Name of an interpolation -> Pillow's antialiased filter."""


def resize(pixels: np.ndarray, size: int, interpolation: str = "bilinear") -> np.ndarray:
    """Return the tile at size x size px, uint8, by one of `INTERPOLATIONS`; unchanged if it fits."""
    if pixels.shape[:2] == (size, size):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((size, size), INTERPOLATIONS[interpolation]))
