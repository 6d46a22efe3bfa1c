"""Read from the header of a TIFF what OpenSlide and Pillow ignore: orientation, depth, alpha, OME-XML, SubIFDs."""

import dataclasses
import html
import logging
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import BadSlide
from pipeline.slides.scale import StatedMpp, stated_mpp

ORIENTATION = 274
"""Number of a TIFF tag."""

MOST_PAGES = 32
"""Pages among which the largest one is searched: pyramid levels, thumbnail, label, macro image."""

CLASSIC, BIG = ("I", "H", 12), ("Q", "Q", 20)
"""Types of an offset and of a number of entries, and bytes of an entry, in the directories of TIFF and BigTIFF."""

PLAIN_SAMPLES = (1, 4)
"""TIFF's SampleFormat of unsigned integers, and of samples that it does not describe."""

UM_PER_UNIT = {2: 25_400.0, 3: 10_000.0}
"""TIFF's ResolutionUnit (inch, centimetre) -> um."""

N_COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 6: 3, 8: 3}
"""TIFF's PhotometricInterpretation -> channels of colour; 4 for any other."""

OME_UNITS = {"um": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6, "in": 25_400.0, "\N{ANGSTROM SIGN}": 1e-4}
"""Unit in OME-XML -> um; a micro sign is written as u."""

TO_PYRAMID = "vips tiffsave IN OUT.tif --tile --pyramid --compression jpeg"
"""Command that makes a tiled pyramid."""


logging.getLogger("tifffile").addHandler(logging.NullHandler())  # its lines do not name the file


@dataclasses.dataclass(frozen=True)
class TiffHeader:
    """Facts about the largest page of a TIFF."""

    size: tuple[int, int]
    """Width and height in px."""

    orientation: int = 1
    bits: int = 8
    """Bits per channel."""

    is_float: bool = False
    is_signed: bool = False
    has_alpha: bool = False
    """Whether it has a channel more than colours. OpenSlide takes any such channel for opacity."""

    is_opacity: bool = True
    """Whether the file declares that channel as opacity."""

    n_subifds: int = 0
    """Smaller levels that are stored below the page, as OME-TIFF does."""

    tags_mpp: tuple[float | None, float | None] = (None, None)
    """um per px in x and y by the TIFF's resolution tags."""

    ome_mpp: tuple[tuple[float | None, float | None], ...] = ()
    """um per px in x and y of each image of the OME-XML that can be the page."""

    def stated(self, *, tags: bool) -> list[StatedMpp]:
        """Return the plausible scales that the header states.

        Args:
            tags: whether the resolution tags count; vendors with a scale of their own fill them with anything.
        """
        from_tags = stated_mpp("TIFF tags", *self.tags_mpp) if tags else []
        return from_tags + [one for pair in self.ome_mpp for one in stated_mpp("OME-XML", *pair)]


def read_tiff_header(path: Path) -> TiffHeader | None:
    """Return facts about a TIFF, or None for a file that is no TIFF or cannot be parsed."""
    with path.open("rb") as file:
        if file.read(2) not in (b"II", b"MM"):
            return None
    try:
        import tifffile

        with tifffile.TiffFile(path) as tiff:
            pages: list[Any] = []
            for page in tiff.pages:
                pages.append(page)
                if len(pages) == MOST_PAGES:
                    break
            page = max(pages, key=lambda one: one.imagewidth * one.imagelength)
            return _facts(page, str(pages[0].description))
    except Exception:  # noqa: BLE001 -- on damaged files the parser raises whatever comes; the readers report the damage
        return None


def _facts(page: Any, description: str) -> TiffHeader:
    """Return the header's facts about a page."""
    tag = page.tags.get(ORIENTATION)
    unit = UM_PER_UNIT.get(int(page.resolutionunit or 0))
    x, y = (unit / per if unit and per > 0 else None for per in page.resolution)
    bits = page.bitspersample
    return TiffHeader(
        (page.imagewidth, page.imagelength),
        orientation=int(tag.value) if tag is not None else 1,
        bits=max(bits) if isinstance(bits, tuple) else int(bits),
        is_float=int(page.sampleformat) == 3,
        is_signed=int(page.sampleformat) not in (3, *PLAIN_SAMPLES),
        has_alpha=int(page.samplesperpixel) > N_COLOURS.get(int(page.photometric), 4),
        is_opacity=any(int(kind) in (1, 2) for kind in page.extrasamples),
        n_subifds=len(page.subifds or ()),
        tags_mpp=(x, y),
        ome_mpp=ome_mpp(description, (page.imagewidth, page.imagelength)),
    )


def ome_mpp(description: str, size: tuple[int, int]) -> tuple[tuple[float | None, float | None], ...]:
    """Return um per px in x and y of the images of an OME-XML text that have a size; of all images if none has it.

    Scanners store a slide with its label and macro image, each with a scale of its own. Attributes are read by
    patterns, because the text can come from anyone and an XML parser would expand its entities.

    Args:
        description: of the first page of a TIFF.
        size: width and height of the largest page in px.

    Returns:
        Different scales in the order of the text, with None where the text states none; () for another text.
    """
    if "<OME" not in description and ":OME" not in description:
        return ()
    images = [_attributes(tag) for tag in re.findall(r"<(?:\w+:)?Pixels\b[^>]*>", description)]
    same_size = [image for image in images if (image.get("SizeX"), image.get("SizeY")) == tuple(map(str, size))]
    return tuple(dict.fromkeys((_um(image, "X"), _um(image, "Y")) for image in same_size or images))


def _attributes(tag: str) -> dict[str, str]:
    """Return the attributes of an XML tag."""
    pairs = re.findall(r"""(\w+)\s*=\s*(?:"([^"]*)"|'([^']*)')""", tag)
    return {name: html.unescape(one or other) for name, one, other in pairs}


def _um(image: Mapping[str, str], axis: str) -> float | None:
    """Return the um per px that attributes of Pixels state for an axis, None if they state none."""
    unit = image.get(f"PhysicalSize{axis}Unit", "um").replace("\N{MICRO SIGN}", "u")
    factor = OME_UNITS.get(unit.replace("\N{GREEK SMALL LETTER MU}", "u"))
    try:
        value = float(image[f"PhysicalSize{axis}"])
    except (KeyError, ValueError):
        return None
    return value * factor if factor else None


def check_header(path: Path, header: TiffHeader) -> None:
    """Check that the pixels of a TIFF can be shown as they are stored.

    Raises:
        BadSlide: stored rotated or mirrored, deeper than 8 bits, or as signed numbers.
    """
    if header.is_float or header.is_signed or header.bits > 8:
        kind = f"{header.bits} bits a channel" + (", signed" if header.is_signed else "")
        kind = f"{header.bits}-bit float" if header.is_float else kind
        raise BadSlide(f"{path}: {kind}: convert it to 8 bits a channel, the scale of its values is not known")
    check_orientation(path, header.orientation)


def check_main_image(path: Path, header: TiffHeader, read: tuple[int, int]) -> None:
    """Check that a reader shows the largest image of a TIFF, not the label or a thumbnail before it.

    Args:
        path: the slide.
        header: of the file.
        read: width and height in px of what the reader shows.

    Raises:
        BadSlide: another image.
    """
    if read != header.size:
        raise BadSlide(
            f"{path}: its first image ({read[0]}x{read[1]} px) is read, but another one is the slide ({header.size[0]}x"
            f"{header.size[1]} px): write that image alone: vips tiffsave 'IN[page=N]' OUT.tif --tile --pyramid"
        )


def is_cut(path: Path) -> bool:
    """Return whether a TIFF ends before one of its directories, as an interrupted copy leaves it.

    It explains why a reader failed. Some vendors store offsets in their own way, and these files are not cut.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(16)
        order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
        layout = CLASSIC if b"*" in head[2:4] else BIG if b"+" in head[2:4] else None
        if not order or layout is None or len(head) < 16:
            return False
        offset_type, count_type, entry_bytes = order + layout[0], order + layout[1], layout[2]
        width, count_bytes = struct.calcsize(offset_type), struct.calcsize(count_type)
        (offset,) = struct.unpack(offset_type, head[width : 2 * width])
        for _ in range(MOST_PAGES):
            if offset == 0:
                return False
            if offset + count_bytes > size:
                return True
            file.seek(offset)
            (n_entries,) = struct.unpack(count_type, file.read(count_bytes))
            end = offset + count_bytes + n_entries * entry_bytes
            if end + width > size:
                return True
            file.seek(end)
            (offset,) = struct.unpack(offset_type, file.read(width))
    return False


def check_orientation(path: Path, orientation: int) -> None:
    """Check that a picture is stored upright: readers differ in whether they apply the tag.

    Raises:
        BadSlide: stored rotated or mirrored.
    """
    if orientation not in (0, 1):  # 0 is no valid value, and means nothing
        raise BadSlide(
            f"{path}: stored rotated or mirrored (orientation {orientation}): rewrite it: vips autorot IN OUT.tif"
        )
