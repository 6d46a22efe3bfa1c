"""Turn a decoded tile into the network's input: resize, crop, scale the channels; and to which stains before."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.tiles.decoding import INTERPOLATIONS, resize
from pipeline.tiles.manifest import Manifest
from pipeline.tiles.stain_normalisation import Stains

MOST_PX = 1024
"""Largest side of a network's input, as `train` takes it."""

MOST_STAIN = 1000
"""Largest number that describes stains; white points end at 255."""


@dataclasses.dataclass(frozen=True)
class Preprocess:
    """How a decoded tile becomes the network's input; stored as a JSON object in model.json and embeddings.h5."""

    size: int
    """Side in px the tile is resized to."""

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Per channel, of pixels scaled to 0..1; torchvision's constants."""

    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Per channel, as `mean`; torchvision's constants."""

    interpolation: str = "bilinear"
    """Pillow's antialiased filter: bilinear or bicubic."""

    mpp: float | None = None
    """Micrometres per pixel of the resized tile, if known."""

    crop: int | None = None
    """Side in px of the central square that the network gets; None: the whole tile."""

    stains: Stains | None = None
    """Stains that tiles are normalised to by source, before they are resized; None: colours stay."""

    @property
    def input_px(self) -> int:
        """Side of the network's input in px."""
        return self.crop or self.size

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Return a tile (h, w, 3) uint8 as the network gets it, (input_px, input_px, 3) uint8.

        Resizing comes first because tiles of slides are read at their final size.
        """
        pixels = resize(pixels, self.size, self.interpolation)
        if self.crop is None:
            return pixels
        first = round((self.size - self.crop) / 2)  # as torchvision's CenterCrop
        return np.ascontiguousarray(pixels[first : first + self.crop, first : first + self.crop])

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object, without `stains` where colours stay."""
        values = dataclasses.asdict(self)
        if self.stains is None:
            del values["stains"]
        return values


def preprocess_of(values: Mapping[str, Any]) -> Preprocess:
    """Return the preprocessing that a JSON object describes, after `preprocess_fault` found none."""
    found = {**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])}
    if (stains := values.get("stains")) is not None:
        vectors = tuple(tuple(row) for row in stains["vectors"])
        found["stains"] = Stains(tuple(stains["white"]), vectors, tuple(stains["strengths"]))
    return Preprocess(**found)


def preprocess_fault(values: Any) -> str:
    """Return what is wrong with a JSON object that has to describe a preprocessing, or ""."""
    optional = ("crop", "stains")
    names = [field.name for field in dataclasses.fields(Preprocess) if field.name not in optional]
    if not isinstance(values, dict) or not set(names) <= set(values):
        return f"preprocess is no object of {', '.join(names)}"
    if unknown := sorted(set(values) - {*names, *optional}):
        return f"preprocess.{unknown[0]} is unknown here, so that tiles would be prepared in another way"
    size, crop, constants = values["size"], values.get("crop"), [values["mean"], values["std"]]
    if not isinstance(size, int) or not 1 <= size <= MOST_PX:
        return f"preprocess has no size from 1 to {MOST_PX} px"
    if crop is not None and (not isinstance(crop, int) or not 1 <= crop <= size):
        return "preprocess.crop is no side from 1 px to the size"
    if values["interpolation"] not in list(INTERPOLATIONS):  # a list in JSON has no hash
        return f"preprocess.interpolation is none of {', '.join(INTERPOLATIONS)}"
    if not all(isinstance(c, list) and len(c) == 3 and all(isinstance(v, int | float) for v in c) for c in constants):
        return "preprocess has no mean and std of three channels"
    return _stains_fault(values.get("stains"))


def _stains_fault(values: Any) -> str:
    """Return what is wrong with the stains of a preprocessing, or ""."""
    if values is None:
        return ""
    try:
        arrays = [np.array(values[name]) for name in ("white", "vectors", "strengths")]
        is_complete = len(values) == 3 and [array.shape for array in arrays] == [(3,), (2, 3), (2,)]
    except (TypeError, ValueError, KeyError):
        is_complete = False
    if not is_complete or not all(array.dtype.kind in "if" for array in arrays):
        return "preprocess.stains is no object of white, vectors and strengths"
    white, vectors, strengths = arrays
    in_range = (np.abs(vectors) <= MOST_STAIN).all() and 0 < strengths.min() <= strengths.max() <= MOST_STAIN
    if not in_range or not 0 < white.min() <= white.max() <= 255:
        return f"preprocess.stains: white has values up to 255, vectors and strengths up to {MOST_STAIN}"
    return ""


def mpp_of(manifest: Manifest, tile_px: int) -> float | None:
    """Return the micrometres per pixel of a resized tile; None if unknown, or if the tiles differ in size."""
    mpp, sides = manifest.details.get("mpp"), manifest.readable["width"]
    return mpp * float(sides.iloc[0]) / tile_px if mpp and sides.nunique() == 1 else None
