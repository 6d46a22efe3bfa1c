"""Write and read the slide attributes of an embeddings file, and check `/coords`.

This project's attributes are at the root and on `/coords`. Attributes for readers of TRIDENT's files are on `/coords`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.storage.hdf5 import Refuse

UNITS = "level0_px"

MOST = 2**31 - 1
"""Largest value of every number: coordinates are int32."""

MAGNIFICATION_MPP = 10.0
"""Magnification times mpp by convention (20x is 0.5 um/px), as in TRIDENT."""


@dataclasses.dataclass(frozen=True)
class SlideInfo:
    """A slide and its tiles."""

    slide: str
    """File name."""

    slide_sha256: str
    """Hash of the file."""

    slide_width: int
    """Level-0 px."""

    slide_height: int
    mpp: float
    """Micrometres per pixel of level 0."""

    tile_px: int
    """Side in px of the network's input."""

    tile_mpp: float
    """Micrometres per pixel of the network's input."""

    patch_size_level0: int
    """Side of a tile in level-0 px."""

    stride_level0: int
    """From one tile to the next in level-0 px."""

    bounds_x: int = 0
    """x in level-0 px of the scanned area, to which QuPath crops the slide (MIRAX, SCN); 0 without such an area."""

    bounds_y: int = 0
    """y of the scanned area."""


def attributes(info: SlideInfo) -> dict[str, Any]:
    """Return the attributes for the root and for `/coords`."""
    return {"units": UNITS, **dataclasses.asdict(info)}


def trident_attributes(info: SlideInfo, *, name: str) -> dict[str, Any]:
    """Return the attributes that TRIDENT's readers need on `/coords`: sizes, and the scales of both levels.

    Args:
        info: the slide.
        name: name of the slide, as in `/group`.
    """
    return {
        "patch_size": info.tile_px,
        "level0_magnification": MAGNIFICATION_MPP / info.mpp,
        "target_magnification": MAGNIFICATION_MPP / info.tile_mpp,
        "overlap": max(0, round((1 - info.stride_level0 / info.patch_size_level0) * info.tile_px)),
        "level0_width": info.slide_width,
        "level0_height": info.slide_height,
        "name": name,
    }


def read_info(attrs: Mapping[str, Any], refuse: Refuse) -> SlideInfo:
    """Return the slide that root attributes describe.

    Raises:
        BadArtifact: an attribute is missing, of another type, or out of range.
    """
    values: dict[str, Any] = {}
    for field in dataclasses.fields(SlideInfo):
        value: Any = attrs.get(field.name)
        if field.type is float and type(value) is int:
            value = float(value)
        if type(value) is not field.type:
            raise refuse(f"the attribute '{field.name}' is missing or of another type")
        least = 0 if field.name.startswith("bounds_") else 1e-300
        if not isinstance(value, str) and not least <= value <= MOST:
            raise refuse(f"the attribute '{field.name}' is {str(value)[:20]}, a number from above 0 to 2^31 is needed")
        values[field.name] = value
    if attrs.get("units") != UNITS:
        raise refuse(f"the attribute 'units' is {attrs.get('units')}, {UNITS} is needed")
    return SlideInfo(**values)


def check_coords(coords: np.ndarray, info: SlideInfo, refuse: Refuse) -> None:
    """Check that the coordinates are of different tiles of the slide, in row order.

    Args:
        coords: (N, 2) int, x and y of the upper left corners.
        info: the slide.
        refuse: makes the error.

    Raises:
        BadArtifact: a tile reaches out of the slide, or the order is not from the upper left to the lower right.
    """
    x, y = coords.astype(np.int64).T
    side = info.patch_size_level0
    if (coords < 0).any() or (x + side > info.slide_width).any() or (y + side > info.slide_height).any():
        raise refuse("a tile reaches out of the slide")
    if not (np.diff(y * info.slide_width + x) > 0).all():
        raise refuse("its tiles are not in row order (y, then x), or one occurs twice")
