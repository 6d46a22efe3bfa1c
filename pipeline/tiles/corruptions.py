"""Corrupt a tile in fixed ways, like scanners, stains and storage, for the robustness test.

Each function takes a tile's pixels (H, W, 3) uint8 RGB and returns new pixels of the same shape and type; nothing is
random.
"""

import dataclasses
import io
from collections.abc import Callable

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage.color import hed_from_rgb, rgb_from_hed

from pipeline.tiles.decoding import as_pixels

GAIN, OFFSET = (0.90, 1.05, 1.10), (12.0, -8.0, 0.0)
"""Colour shift: factors of red, green and blue, then offsets (of 255)."""

STAIN = (1.3, 0.7, 1.0)
"""Stain change: factors of haematoxylin, eosin and the third colour of the HED space."""

BRIGHTNESS = 0.75
BLUR_OF_SIDE = 0.01
"""Sigma of the blur as a share of the tile's shorter side, so that tiles of any resolution get the same blur."""

JPEG_QUALITY = 30


def colour_shift(pixels: np.ndarray) -> np.ndarray:
    """Return the tile with another scanner's colour balance: a gain and an offset for each channel."""
    return as_pixels(pixels * np.array(GAIN) + np.array(OFFSET))


def stain_change(pixels: np.ndarray) -> np.ndarray:
    """Return the tile with more haematoxylin and less eosin, like the stain of another laboratory.

    Stains are unmixed in optical density by Ruifrok and Johnston 2001, "Quantification of histochemical staining by
    color deconvolution", with scikit-image's matrices, and scaled as in Tellez et al. 2018, "Whole-slide mitosis
    detection in H&E breast histology using PHH3". Unlike `skimage.color.rgb2hed`, negative amounts of a stain are
    not clipped, so that stains scaled by 1 return the tile itself.
    """
    density = -np.log(np.maximum(pixels, 1) / 255)
    return as_pixels(255 * np.exp(-(density @ hed_from_rgb * np.array(STAIN)) @ rgb_from_hed))


def brightness(pixels: np.ndarray) -> np.ndarray:
    """Return the tile with less light."""
    return as_pixels(pixels * BRIGHTNESS)


def blur(pixels: np.ndarray) -> np.ndarray:
    """Return the tile slightly out of focus: a Gaussian, mirrored at the borders."""
    sigma = BLUR_OF_SIDE * min(pixels.shape[:2])
    return as_pixels(ndimage.gaussian_filter(pixels.astype(np.float64), (sigma, sigma, 0), mode="reflect"))


def jpeg(pixels: np.ndarray, *, quality: int = JPEG_QUALITY) -> np.ndarray:
    """Return the tile after storing it as a JPEG file, by default a small one."""
    stored = io.BytesIO()
    Image.fromarray(pixels).save(stored, format="JPEG", quality=quality)
    return np.asarray(Image.open(stored, formats=("JPEG",)).convert("RGB"))


def half_resolution(pixels: np.ndarray) -> np.ndarray:
    """Return the tile at half the resolution: mean of 2 x 2 px, then bilinear to its size."""
    height, width = pixels.shape[:2]
    small = Image.fromarray(pixels).resize((max(1, width // 2), max(1, height // 2)), Image.Resampling.BOX)
    return np.asarray(small.resize((width, height), Image.Resampling.BILINEAR))


def rotation(pixels: np.ndarray) -> np.ndarray:
    """Return the tile rotated by 90 degrees counterclockwise, (W, H, 3): the same pixels, none interpolated."""
    return np.ascontiguousarray(np.rot90(pixels))


@dataclasses.dataclass(frozen=True)
class Corruption:
    """One corruption."""

    apply: Callable[[np.ndarray], np.ndarray]
    description: str
    """Text about its effect, with its numbers."""


CORRUPTIONS: dict[str, Corruption] = {
    "colour_shift": Corruption(
        colour_shift,
        "red, green and blue times "
        + ", ".join(f"{gain:.2f}" for gain in GAIN)
        + " and moved by "
        + ", ".join(f"{offset:+.0f}" for offset in OFFSET)
        + " of 255",
    ),
    "stain_change": Corruption(
        stain_change, f"haematoxylin times {STAIN[0]:g} and eosin times {STAIN[1]:g} in optical density"
    ),
    "brightness": Corruption(brightness, f"all values times {BRIGHTNESS:g}"),
    "blur": Corruption(blur, f"Gaussian blur, sigma {100 * BLUR_OF_SIDE:g} % of the shorter side"),
    "jpeg": Corruption(jpeg, f"stored as JPEG of quality {JPEG_QUALITY}"),
    "half_resolution": Corruption(half_resolution, "half the resolution, and back to its size"),
    "rotation": Corruption(rotation, "turned by 90 degrees, exactly"),
}
"""Name -> corruption, in the order of tables and figures."""
