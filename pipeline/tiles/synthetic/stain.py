"""Turn stain densities into a picture: Beer-Lambert absorption, with a stain and a scanner for each source."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from pipeline.tiles.synthetic.texture import FIELD, Field, Floats


class Stain(NamedTuple):
    """The stain and the scanner of a source.

    Attributes:
        haematoxylin, eosin: Strength of each stain, 1 = the norm.
        blue: 0 purple ... 1 blue haematoxylin.
        red: 0 magenta ... 1 brick-red eosin.
        background: RGB of the empty slide, 0..255.
        blur: Standard deviation of the focus blur in field units.
        noise: Standard deviation of the camera noise in grey levels.
        quality: JPEG quality that the scanner stores its pictures with.
    """

    haematoxylin: float
    eosin: float
    blue: float
    red: float
    background: tuple[float, float, float]
    blur: float
    noise: float
    quality: int


STAINS: dict[int, Stain] = {
    1: Stain(0.90, 1.40, 0.25, 1.00, (243, 241, 240), 0.75, 2.0, 80),
    2: Stain(1.20, 0.58, 1.00, 0.25, (240, 243, 247), 0.60, 2.6, 70),
    3: Stain(1.00, 1.00, 0.55, 0.60, (244, 243, 243), 0.70, 1.8, 90),
    4: Stain(1.42, 0.85, 0.30, 0.10, (236, 231, 239), 0.95, 3.2, 60),
    5: Stain(0.76, 0.80, 0.60, 0.45, (248, 247, 246), 0.65, 2.2, 95),
    6: Stain(1.05, 1.10, 0.75, 0.80, (243, 244, 243), 0.80, 1.6, 85),
    7: Stain(0.72, 1.28, 0.05, 0.75, (240, 236, 229), 1.10, 2.0, 70),
    8: Stain(1.12, 0.95, 0.45, 0.00, (245, 242, 246), 0.70, 2.8, 92),
    9: Stain(0.68, 0.66, 0.90, 0.55, (245, 246, 248), 0.95, 2.4, 75),
    10: Stain(1.30, 1.32, 0.25, 0.50, (234, 233, 234), 0.85, 3.0, 65),
}
"""The ten sources: fixed, so that a source looks the same in every demo set."""

_PURPLE, _BLUE = np.array([0.57, 0.75, 0.33]), np.array([0.69, 0.66, 0.30])
_MAGENTA, _RED = np.array([0.11, 0.90, 0.44]), np.array([0.16, 0.80, 0.58])
"""Optical density of R, G, B per unit of stain: ends of the range around Ruifrok and Johnston (2001),
Anal. Quant. Cytol. Histol. 23:291; the eosin end points have more blue absorption, as in scanned slides."""


def develop(field: Field, *, haematoxylin: Floats, eosin: Floats, source: int) -> np.ndarray:
    """Return the picture (px, px, 3) uint8 of two optical-density maps (px, px) with the stain and scanner of `source`.

    Intensity = background * 10 ** -(density of the stains), per channel (Beer-Lambert).
    """
    stain, rng = STAINS[source], field.rng
    blue = float(np.clip(stain.blue + rng.normal(0, 0.1), 0, 1))
    red = float(np.clip(stain.red + rng.normal(0, 0.1), 0, 1))
    h_vector = (_PURPLE + blue * (_BLUE - _PURPLE)).astype(np.float32)
    e_vector = (_MAGENTA + red * (_RED - _MAGENTA)).astype(np.float32)
    h = haematoxylin * np.float32(stain.haematoxylin * np.exp(rng.normal(0, 0.14)))
    e = eosin * np.float32(stain.eosin * np.exp(rng.normal(0, 0.16)))

    density = np.maximum(h, 0)[..., None] * h_vector + np.maximum(e, 0)[..., None] * e_vector
    light = np.exp(density * np.float32(-np.log(10)))
    sigma = stain.blur * float(np.exp(rng.normal(0, 0.15))) * field.px / FIELD
    light = gaussian_filter(light, (sigma, sigma, 0))
    tilt = rng.normal(0, 0.008, 2).astype(np.float32)
    shading = 1 + tilt[0] * (field.x / FIELD - 0.5) + tilt[1] * (field.y / FIELD - 0.5)
    picture = light * shading[..., None] * np.asarray(stain.background, np.float32)
    grain = rng.standard_normal(picture.shape, dtype=np.float32)
    # A camera's noise falls with the signal: black stays black.
    picture += grain * (np.float32(stain.noise) * np.sqrt(light * 0.8 + np.float32(0.2)) * np.float32(0.8))
    pixels: npt.NDArray[np.uint8] = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    return pixels
