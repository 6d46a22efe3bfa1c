"""Open a slide file and read regions as 8-bit RGB pixels. The only place that opens slides.

| stored as | read by |
|---|---|
| formats of OpenSlide (Aperio, Hamamatsu, MIRAX, Leica, DICOM, tiled TIFF, ...; extra `slides`) | OpenSlide, any size |
| plain TIFF, uncompressed | a memory map, any size |
| plain TIFF, compressed; PNG, JPEG, WebP | Pillow, decoded as a whole: at most 89 million pixels (9400 x 9400) |
| rotated or mirrored (orientation other than 1), in any format | BadSlide: readers differ, so coordinates would |
| 16 bits a channel or more, float | BadSlide: the scale of its values is not known |
| an alpha channel that hides nearly all of it | BadSlide: it is a mask, not opacity |

Coordinates are level-0 px. `scale` decides the um per px; nothing is guessed.
"""

import collections
import math
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.errors import BadSlide, BadTile
from pipeline.slides.base import VISIBLE, Slide, check_size, reason_of
from pipeline.slides.flat_reader import FlatSlide
from pipeline.slides.scale import GivenMpp, resolve_mpp, stated_mpp
from pipeline.slides.tiff_header import TiffHeader, check_header, check_main_image, is_cut, read_tiff_header
from pipeline.storage.placeholder import no_file, placeholder
from pipeline.tiles.image_limits import MAX_SIDE

CACHE_BYTES = 128_000_000
"""OpenSlide's cache of decoded blocks in each reading process, for all slides that the process has open: two rows of
blocks of a wide slide, so that the next row of tiles finds the blocks that it shares with this one."""

_CACHES: dict[int, Any] = {}
"""Process -> its cache. The locks of a cache that another process made may never be released."""

CUT = "truncated: the file ends before a directory of its images: copy or download it again"
"""Why a TIFF cannot be opened that an interrupted copy left."""

KEPT_OPEN = 4
"""Slides that each thread keeps open between two squares."""

MOST_SQUARE_PX = 16_384
"""Largest side of a square in px of the level that is read."""

_OPEN = threading.local()
"""Slides that a thread keeps open: an error of one thread must not close the slide of another."""

MOST_BLOCK_PX = 4096 * 4096
"""Largest block of a slide, because each block is decoded as a whole."""


class PyramidSlide(Slide):
    """A slide read by OpenSlide.

    A handle serves one process, and none of its calls works after an error: each process opens its own, and a new one
    after an error.
    """

    def __init__(self, path: Path, header: TiffHeader | None, given: GivenMpp | None) -> None:
        self.path = path
        self._handle: Any = None
        self._pid = -1
        opened = self._opened()
        properties = opened.properties
        self.format = properties.get("openslide.vendor", "OpenSlide")
        self.dimensions = opened.dimensions
        self.level_dimensions, self.level_downsamples = opened.level_dimensions, opened.level_downsamples
        check_size(path, self.dimensions)
        if header is not None and self.format == "generic-tiff":  # the vendors' formats lay images out on the glass
            check_main_image(path, header, self.dimensions)
        for level in range(len(self.level_dimensions)):
            sides = [_number(properties.get(f"openslide.level[{level}].tile-{side}")) for side in ("width", "height")]
            if math.prod(side or 1 for side in sides) > MOST_BLOCK_PX:
                raise BadSlide(f"{path}: stored in blocks of more than {MOST_BLOCK_PX / 1e6:.0f} million px: damaged")
        colour = properties.get("openslide.background-color", "ffffff")
        self._background = tuple(bytes.fromhex(colour)) if len(colour) == 6 else (255, 255, 255)
        x, y = (_number(properties.get(f"openslide.bounds-{axis}")) for axis in "xy")
        self.bounds = int(x or 0), int(y or 0)
        if header is not None:
            self.n_subifds = header.n_subifds if len(self.level_dimensions) == 1 else 0
            self.alpha_counts = np.zeros(256, np.int64) if header.has_alpha else None
            self.least_alpha = VISIBLE if header.is_opacity else 255
        stated = stated_mpp("OpenSlide", *(_number(properties.get(f"openslide.mpp-{axis}")) for axis in "xy"))
        stated += header.stated(tags=False) if header is not None else []
        self.scale = resolve_mpp(path, stated, given)

    def _opened(self) -> Any:
        """Return this process's handle.

        Raises:
            BadSlide: the file cannot be opened.
        """
        if self._handle is None or self._pid != os.getpid():
            import openslide

            try:
                self._handle, self._pid = openslide.OpenSlide(self.path), os.getpid()
                self._handle.set_cache(_CACHES.setdefault(self._pid, openslide.OpenSlideCache(CACHE_BYTES)))
            except (openslide.OpenSlideError, OSError) as error:
                self._handle = None
                reason = CUT if is_cut(self.path) else f"cannot be opened ({reason_of(error, self.path)})"
                raise BadSlide(f"{self.path}: {reason}") from None
        return self._handle

    def read_region_rgb(self, x: int, y: int, w: int, h: int, level: int) -> np.ndarray:
        """See `Slide`."""
        import openslide

        try:
            image = self._opened().read_region((x, y), level, (w, h))
        except (openslide.OpenSlideError, BadSlide) as error:
            self.close()
            raise BadTile(
                f"{self.path}: the region at {x}, {y} cannot be read ({reason_of(error, self.path)})"
            ) from None
        alpha = image.getchannel("A")
        if self.alpha_counts is not None:
            self.alpha_counts += np.array(alpha.histogram(), np.int64)
        if alpha.getextrema()[0] == 255:
            return np.asarray(image.convert("RGB"))
        filled = Image.new("RGB", image.size, self._background)
        filled.paste(image, mask=alpha)
        return np.asarray(filled)

    def close(self) -> None:
        """See `Slide`."""
        if self._handle is not None and self._pid == os.getpid():
            self._handle.close()
        self._handle = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_handle": None}


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def check_file(path: Path) -> None:
    """Check that a slide's file is there and has content of its own.

    Raises:
        BadSlide: no file, a file without the right to read it, an empty one, or a pointer of Git LFS.
    """
    try:
        if path.is_dir():
            raise BadSlide(f"{path}: no slides in this folder")
        if what := no_file(path):
            raise BadSlide(f"{path}: {what}")
        path.open("rb").close()
    except OSError as error:
        raise BadSlide(f"{path}: cannot be read ({error.strerror})") from None
    if what := placeholder(path):
        raise BadSlide(f"{path}: {what}")


def open_slide(path: Path, mpp: GivenMpp | float | None = None) -> Slide:
    """Open a slide or large image.

    Args:
        path: the file.
        mpp: micrometres per level-0 px by the user; a number counts as `--mpp`.

    Raises:
        BadSlide: not there, damaged, of a format that nothing here reads, too large for its format, not stored as it is
            shown (see the table above), or its scale is not known.
    """
    given = GivenMpp(mpp) if isinstance(mpp, float | int) else mpp
    check_file(path)
    header = read_tiff_header(path)
    if header is not None:
        check_header(path, header)
    try:
        import openslide

        if openslide.OpenSlide.detect_format(path) is not None:
            return PyramidSlide(path, header, given)
        known = "OpenSlide does not know it, or it is damaged"
    except ImportError:
        known = "most slides are read by OpenSlide: pip install 'histoheads[slides]'"
    try:
        return FlatSlide(path, header, given)
    except BadTile as error:
        if is_cut(path):
            raise BadSlide(f"{path}: {CUT}") from None
        raise BadSlide(f"{path}: {known}; as a plain picture: {reason_of(error, path)}") from None


def read_square(path: Path, x: int, y: int, *, side: int, px: int) -> tuple[np.ndarray, str]:
    """Return a square of a slide as a tile, (px, px, 3) uint8, and a note on how it was read.

    Args:
        path: the slide.
        x: left edge in level-0 px.
        y: upper edge in level-0 px.
        side: side in level-0 px.
        px: side of the tile in px.

    Raises:
        BadTile: the slide cannot be opened, or the square is not in it, too large or not decodable.
    """
    try:
        slide = _kept_open(path)
    except BadSlide as error:
        raise BadTile(str(error)) from None
    width, height = slide.dimensions
    if not 0 < px <= MAX_SIDE or not 0 < side <= min(width - x, height - y):
        raise BadTile(f"{path}: no tile of {px} px from {side} px at {x}, {y}: the slide has {width}x{height} px")
    if side / slide.level_downsamples[slide.best_level(side / px)] > MOST_SQUARE_PX:
        raise BadTile(f"{path}: the square of {side} px at {x}, {y} is too large: the slide has no level for it")
    return slide.read_tile(x, y, side, px), slide.note


def _kept_open(path: Path) -> Slide:
    """Return a slide of this thread, opened unless it is one of the last `KEPT_OPEN` and its file is unchanged."""
    slides: collections.OrderedDict[tuple[Path, int, int], Slide] = _OPEN.__dict__.setdefault(
        "slides", collections.OrderedDict()
    )
    try:
        facts = path.stat()
    except OSError as error:
        raise BadSlide(f"{path}: cannot be read ({error.strerror})") from None
    key = path, facts.st_size, facts.st_mtime_ns
    if key not in slides:
        # the scale is in the tile's name: that which the file states does not matter here
        slides[key] = open_slide(path, GivenMpp(1.0, "the tile", overrules=True))
    slides.move_to_end(key)
    while len(slides) > KEPT_OPEN:
        slides.popitem(last=False)[1].close()
    return slides[key]
