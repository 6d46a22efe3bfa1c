"""Encode figures for a web page."""

import io
from pathlib import Path

from PIL import Image

LOSSY_QUALITY = 85

MOST_LOSSLESS = 3
"""A picture whose lossless form is so many times larger than the lossy one is a photograph."""

SURELY = 6
"""A PNG that is so many times larger is a photograph, too: the lossless WebP takes a second of processor time, and is
at least half as large as the PNG."""


def web_image(path: Path) -> bytes:
    """Return a PNG as WebP: lossless for plots, lossy for photographs of tiles."""
    with Image.open(path) as image:
        pixels = image.convert("RGB")
    lossy = _webp(pixels, lossless=False)
    if path.stat().st_size > SURELY * len(lossy):
        return lossy
    lossless = _webp(pixels, lossless=True)
    return lossless if len(lossless) <= MOST_LOSSLESS * len(lossy) else lossy


def _webp(pixels: Image.Image, *, lossless: bool) -> bytes:
    file = io.BytesIO()
    pixels.save(file, "WEBP", lossless=lossless, quality=LOSSY_QUALITY)
    return file.getvalue()
