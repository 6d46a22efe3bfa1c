"""Check an image before it is decoded: its cost, its bits per channel, its pages."""

import contextlib
import io
from pathlib import Path

from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from pipeline.errors import BadTile

MAX_SIDE = 4096
"""Largest side of a tile in px; a larger image is a slide or a decompression bomb."""

MOST_BYTES = 256_000_000
"""Largest file of a tile; the largest tile has 67 MB of raw pixels."""

MOST_SCANS = 100
"""Most scans of a progressive JPEG; encoders write about ten. Each takes time by the size of the picture, but as few as
36 bytes of the file. libtiff has the same limit for JPEG in TIFF."""

MOST_COPIES = 16
"""Reduced copies after the first page of a TIFF; a pyramid of the largest tile has five."""

JPEG_SCAN = b"\xff\xda"
"""Marker before each scan; compressed data cannot hold these two bytes."""

JPEG_SPARSE = (b"\xff\xc2", b"\xff\xc9", b"\xff\xca")
"""Frame markers of the codings whose scans can be far smaller than what they describe: progressive, arithmetic."""

J2K_START = b"\xff\x4f\xff\x51"
"""Markers at the start of a JPEG 2000 codestream."""

J2K_COMPONENTS = 42
"""Offset in the codestream of three bytes per channel; the first holds the bits. Their number is in the two before."""

PNG_DEPTH_BYTE = 24
"""Offset of the bit depth in a PNG's IHDR chunk."""

TIFF_BLOCK_SIDES = (322, 323)
"""TIFF tags: sides of the blocks that the picture is stored in, which may be far larger than the picture."""

TIFF_BITS_PER_SAMPLE = 258
"""TIFF tag."""

TIFF_KIND, TIFF_OLD_KIND = 254, 255
"""TIFF tags: whether a page is a reduced copy of another (bit 0 of the first, 2 in the second)."""

SEVERAL = "has several pages or frames: save each as a file of its own"


def check(image: Image.Image, source: Path | io.BytesIO, max_side: int) -> str:
    """Check an image that is opened, but not loaded; return a note on its pages, mostly "".

    Args:
        image: the image.
        source: its file, or the bytes of the file.
        max_side: largest side in px.

    Raises:
        BadTile: decoding would cost too much, or would lose bits or pages.
    """
    size = f"{image.width}x{image.height} px"
    if max(image.size) > max_side:
        raise BadTile(f"{size} is more than {max_side} on a side")
    if image.width * image.height > (Image.MAX_IMAGE_PIXELS or 0):
        raise BadTile(f"{size} is more than Pillow's limit of {Image.MAX_IMAGE_PIXELS} px: a decompression bomb?")
    data = b""
    if image.format in ("PNG", "JPEG", "JPEG2000"):
        with source.open("rb") if isinstance(source, Path) else contextlib.nullcontext(source) as handle:
            handle.seek(0)
            data = handle.read(PNG_DEPTH_BYTE + 1 if image.format == "PNG" else -1)
    if isinstance(image, TiffImageFile):
        if any(image.tag_v2.get(tag, 0) > MAX_SIDE for tag in TIFF_BLOCK_SIDES):
            raise BadTile(f"stored in blocks of more than {MAX_SIDE} px on a side")
    elif getattr(image, "is_animated", False):  # n_frames would walk through all of them
        raise BadTile(SEVERAL)
    if image.format == "JPEG" and any(marker in data for marker in JPEG_SPARSE) and data.count(JPEG_SCAN) > MOST_SCANS:
        raise BadTile(f"a JPEG of more than {MOST_SCANS} scans")
    if _bits(image, data) > 8 or image.mode in ("I", "F") or image.mode.startswith("I;16"):
        raise BadTile("deeper than 8 bits a channel: convert it, the scale is not known")
    return _skip_reduced_pages(image) if isinstance(image, TiffImageFile) else ""


def _bits(image: Image.Image, data: bytes) -> int:
    """Return the bits per channel as stored; Pillow reduces 16-bit RGB to 8 without a warning."""
    if image.format == "PNG":
        return data[PNG_DEPTH_BYTE]
    if isinstance(image, TiffImageFile):
        bits = image.tag_v2.get(TIFF_BITS_PER_SAMPLE, (1,))
        return max(bits) if isinstance(bits, tuple) else int(bits)
    if image.format == "JPEG2000":
        at = data.find(J2K_START) + J2K_COMPONENTS
        n = int.from_bytes(data[at - 2 : at])
        return max((depth & 0x7F) + 1 for depth in data[at : at + 3 * n : 3])
    if image.format == "PPM":
        arguments = image.tile[0].args  # type: ignore[attr-defined]
        return 16 if isinstance(arguments, tuple) and arguments[1] > 255 else 8
    return 8


def _skip_reduced_pages(image: TiffImageFile) -> str:
    """Check that the further pages of a TIFF are reduced copies of the first; return a note, mostly "".

    Raises:
        BadTile: another page, or more than `MOST_COPIES` copies.
    """
    note = ""
    try:
        for page in range(1, MOST_COPIES + 2):
            image.seek(page)
            is_reduced = int(image.tag_v2.get(TIFF_KIND, 0)) & 1 or image.tag_v2.get(TIFF_OLD_KIND) == 2
            if not is_reduced or page > MOST_COPIES:
                raise BadTile(SEVERAL)
    except EOFError:  # no further page
        pass
    except BadTile:
        raise
    except Exception:  # noqa: BLE001 -- on damaged directories Pillow raises whatever comes
        note = "its second page cannot be read: the first is used"
    image.seek(0)
    return note
