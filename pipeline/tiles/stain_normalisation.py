"""Normalise the stain of a tile to a target, by Macenko et al. 2009 or by Reinhard et al. 2001.

A target is fitted on training tiles and belongs to the model; `apply` normalises tiles before the network. Both methods
use the tissue of a tile only, so that the share of glass has no effect, and keep white unchanged. A tile without two
measurable stains (too little tissue, one colour, no colour) is unchanged.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal, Self

import numpy as np

Method = Literal["macenko", "reinhard"]

LEAST_DENSITY = 0.15
"""Pixels of at least this mean optical density (natural logarithm) over the channels are tissue (Macenko's beta)."""

LEAST_TISSUE = 0.05
"""Share of a tile's pixels that must be tissue."""

EXTREMES = (1, 99)
"""Percentiles of the angles of the two stains, and (the second) of a stain's amounts: its strength."""

LEAST_ANGLE = math.radians(5)
"""Least angle between the two stains; closer ones are noise around one colour. Haematoxylin and eosin are about 20
degrees apart in scans, and 40 in Ruifrok's and Johnston's vectors."""

LEAST_STRENGTH = 0.05
"""Least optical density of a stain that is scaled."""

LEAST_SPREAD = 0.5
"""Least standard deviation in CIELAB that is scaled: half a unit is invisible."""

DIGITS = 6
"""Decimals of a stored target."""

DENSITY = -np.log(np.maximum(np.arange(256), 1) / 255).astype(np.float32)
"""8-bit value -> optical density; 0 counts as 1, as in the robustness test."""

_srgb = np.arange(256) / 255
LINEAR = np.where(_srgb <= 0.04045, _srgb / 12.92, ((_srgb + 0.055) / 1.055) ** 2.4).astype(np.float32)
"""8-bit value of sRGB -> light, 0..1 (IEC 61966-2-1)."""

WHITE = np.array([0.95047, 1.0, 1.08883])
"""CIE XYZ of D65."""

XYZ_FROM_RGB = np.array(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
)
"""Matrix from linear sRGB; rows X, Y, Z."""

TO_WHITE = (XYZ_FROM_RGB / WHITE[:, None]).T.astype(np.float32)
FROM_WHITE = np.linalg.inv(XYZ_FROM_RGB / WHITE[:, None]).T.astype(np.float32)
LAB_FROM_ROOTS = np.array([[0, 500, 0], [116, -500, 200], [0, 0, -200]], np.float32)
ROOTS_FROM_LAB = np.linalg.inv(LAB_FROM_ROOTS).astype(np.float32)
KNEE, SLOPE, FOOT = 0.008856, 7.787, 16 / 116
"""CIELAB: below KNEE the cube root is a straight line."""


def to_lab(pixels: np.ndarray) -> np.ndarray:
    """Return uint8 sRGB (..., 3) in CIELAB under D65, (..., 3) float32."""
    light = LINEAR[pixels] @ TO_WHITE
    roots = np.where(light > KNEE, np.cbrt(light), SLOPE * light + np.float32(FOOT))
    lab: np.ndarray = roots @ LAB_FROM_ROOTS - np.array([16, 0, 0], np.float32)
    return lab


def from_lab(lab: np.ndarray) -> np.ndarray:
    """Return CIELAB (..., 3) as uint8 sRGB; colours outside sRGB are clipped."""
    roots = (lab + np.array([16, 0, 0], np.float32)) @ ROOTS_FROM_LAB
    light = np.where(roots**3 > KNEE, roots**3, (roots - np.float32(FOOT)) / np.float32(SLOPE)) @ FROM_WHITE
    light = np.clip(light, 0, 1)
    return as_pixels(255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** np.float32(1 / 2.4) - 0.055))


def as_pixels(values: np.ndarray) -> np.ndarray:
    """Return values on the scale 0..255 as uint8, rounded and clipped."""
    pixels: np.ndarray = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return pixels


def is_tissue(density: np.ndarray) -> np.ndarray | None:
    """Return which pixels (H, W) of optical densities (H, W, 3) are tissue, None if there is too little.

    Macenko's own rule, every channel above beta, would leave out eosin, which takes hardly any red.
    """
    tissue = density.mean(axis=2) >= LEAST_DENSITY
    return tissue if tissue.mean() >= LEAST_TISSUE else None


@dataclasses.dataclass(frozen=True)
class Macenko:
    """Two stains and their strengths.

    Macenko et al. 2009, "A method for normalizing histology slides for quantitative analysis": in optical density a
    pixel is a sum of two stains. Their plane is spanned by the first two singular vectors of a tile's tissue, and they
    are its extreme directions in it. The amounts of each are scaled to the target's strength, and mixed with the
    target's stains; the part outside the plane is dropped.
    """

    stains: tuple[tuple[float, float, float], tuple[float, float, float]]
    """Haematoxylin (more red absorbed) and eosin: optical density in R, G, B per unit, each of length 1."""

    strength: tuple[float, float]
    """For each stain: 99th percentile of its amount in tissue, natural logarithm."""

    method: Literal["macenko"] = "macenko"

    @staticmethod
    def estimate(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the stains (2, 3) and strengths (2,) of a tile (H, W, 3) uint8, None without two stains."""
        density = DENSITY[pixels]
        tissue = is_tissue(density)
        if tissue is None:
            return None
        found = density[tissue]
        _, axes = np.linalg.eigh(found.T.astype(np.float64) @ found)  # singular vectors, the largest value last
        plane = axes[:, 1:]
        mean = found.mean(axis=0) @ plane
        mean /= np.linalg.norm(mean)
        along, across = plane @ mean, plane @ np.array([-mean[1], mean[0]])
        # angles from the mean, so that they do not wrap at +-180 degrees
        angles = np.arctan2(found @ across.astype(np.float32), found @ along.astype(np.float32))
        ends = np.percentile(angles, EXTREMES)
        if ends[1] - ends[0] < LEAST_ANGLE:
            return None
        stains = np.outer(np.cos(ends), along) + np.outer(np.sin(ends), across)
        stains = stains[np.argsort(-stains[:, 0])]
        strength = np.percentile(found @ np.linalg.pinv(stains).astype(np.float32), EXTREMES[1], axis=0)
        return (stains, strength) if strength.min() >= LEAST_STRENGTH else None

    @classmethod
    def fit(cls, tiles: Iterable[np.ndarray]) -> Self | None:
        """Return the target of some tiles (H, W, 3) uint8: the median tile's stains. None if no tile has two stains."""
        found = [own for own in map(cls.estimate, tiles) if own is not None]
        if not found:
            return None
        stains = np.median([stains for stains, _ in found], axis=0)
        stains /= np.linalg.norm(stains, axis=1, keepdims=True)
        strength = np.median([strength for _, strength in found], axis=0)
        return cls((_numbers(stains[0]), _numbers(stains[1])), _numbers(strength))

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Return a tile (H, W, 3) uint8 in the target's stains; unchanged without two stains."""
        own = self.estimate(pixels)
        if own is None:
            return pixels
        stains, strength = own
        amounts = np.linalg.pinv(stains) * (np.array(self.strength) / strength)
        density = DENSITY[pixels] @ (amounts @ np.array(self.stains)).astype(np.float32)
        return as_pixels(255 * np.exp(-density))


@dataclasses.dataclass(frozen=True)
class Reinhard:
    """Mean and spread of tissue in CIELAB.

    Reinhard et al. 2001, "Color transfer between images": each channel of a decorrelated colour space is moved and
    scaled to the target's mean and standard deviation. The space is CIELAB, as is usual for tissue, instead of their
    l-alpha-beta, which has no black. Pixels lighter than tissue are moved by their share of its least density: glass
    is unchanged, and there are no edges.
    """

    mean: tuple[float, float, float]
    """Means of L, a, b over the pixels of tissue."""

    std: tuple[float, float, float]
    """Standard deviations, in the same order."""

    method: Literal["reinhard"] = "reinhard"

    @staticmethod
    def _look(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
        """Return a tile's optical density, its CIELAB, and mean and spread of its tissue, None if there are none."""
        density = DENSITY[pixels]
        tissue = is_tissue(density)
        if tissue is None:
            return None
        lab = to_lab(pixels)
        found = lab[tissue].astype(np.float64)
        mean, std = found.mean(axis=0), found.std(axis=0)
        return (density, lab, mean, std) if std.min() >= LEAST_SPREAD else None

    @classmethod
    def fit(cls, tiles: Iterable[np.ndarray]) -> Self | None:
        """Return the target of some tiles (H, W, 3) uint8: the median tile's. None if no tile has tissue."""
        found = [own[2:] for own in map(cls._look, tiles) if own is not None]
        if not found:
            return None
        mean, std = np.median(found, axis=0)
        return cls(_numbers(mean), _numbers(std))

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Return a tile (H, W, 3) uint8 with the target's mean and spread; unchanged without tissue."""
        own = self._look(pixels)
        if own is None:
            return pixels
        density, lab, mean, std = own
        scale = np.array(self.std) / std
        weight = np.minimum(density.mean(axis=2, keepdims=True) / np.float32(LEAST_DENSITY), 1)
        offset = np.array(self.mean) - mean * scale
        moved = lab * scale.astype(np.float32) + offset.astype(np.float32)
        return from_lab(lab + weight * (moved - lab))


Stain = Macenko | Reinhard
"""A fitted target."""

KINDS: dict[str, type[Macenko] | type[Reinhard]] = {"macenko": Macenko, "reinhard": Reinhard}


def _numbers(values: np.ndarray) -> Any:
    """Return values as a tuple of floats, rounded."""
    return tuple(round(float(value), DIGITS) for value in values)


def _finite(values: Any, low: float, high: float, *, n: int = 3) -> tuple[float, ...]:
    """Return n finite numbers of JSON from low to high; raises ValueError for anything else."""
    is_right = isinstance(values, Sequence) and not isinstance(values, str) and len(values) == n
    if not is_right or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        raise ValueError(f"{n} numbers are needed")
    if not all(low <= value <= high for value in values):  # nor NaN
        raise ValueError(f"numbers from {low:g} to {high:g} are needed")
    return tuple(map(float, values))


def stain_of(value: Any) -> Stain | None:
    """Return the target in a model's description (`dataclasses.asdict` as JSON), None for null.

    Raises:
        ValueError: not a target of a known method.
    """
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ValueError("not an object")
    given: Any
    if value.get("method") == "macenko":
        stains = value.get("stains")
        if not isinstance(stains, Sequence) or len(stains) != 2:
            raise ValueError("two stains are needed")
        given = tuple(_finite(stain, -1, 1) for stain in stains)
        return Macenko(given, _finite(value.get("strength"), LEAST_STRENGTH, 10, n=2))  # type: ignore[arg-type]
    if value.get("method") == "reinhard":
        mean, std = _finite(value.get("mean"), -200, 200), _finite(value.get("std"), LEAST_SPREAD, 200)
        return Reinhard(mean, std)  # type: ignore[arg-type]
    raise ValueError(f"method is none of {', '.join(KINDS)}")
