"""Find the tissue of a slide by the colour of its thumbnail."""

import dataclasses

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter
from skimage import filters

from pipeline.slides.base import Thumbnail
from pipeline.slides.ink import channel_range, ink_mask
from pipeline.tiles.audit.measure import BLACK

THRESHOLDS = (0.03, 0.10)
"""Range of the threshold. Otsu's method always finds two parts, even in bare glass or in a picture full of tissue.
White balanced glass stays below 0.02, pale tissue begins at 0.1."""

LOW = 0.4
"""Share of the threshold that suffices next to pixels above it: the walls of fat cells fade in a thumbnail."""

HOLE_UM = 40.0
"""Radius of gaps that count as tissue: fat cells, lumina."""

BRIGHTEST = 95.0
"""Percentile from which on pixels can be glass; their median colour then becomes white."""

LEAST_GLASS, MOST_GLASS_SATURATION = 200, 0.1
"""Least value of the darkest channel of glass, and its highest saturation. Without such pixels nothing is balanced."""


@dataclasses.dataclass(frozen=True)
class Tissue:
    """The tissue on a thumbnail."""

    mask: np.ndarray
    """(h, w) bool: tissue."""

    ink: np.ndarray
    """(h, w) bool: pen marks, which are left out of `mask`."""

    threshold: float
    """Saturation from which on a pixel is tissue."""


def white_balanced(pixels: np.ndarray) -> np.ndarray:
    """Return a picture whose glass is white, (h, w, 3) float32 of 0..255, slightly smoothed.

    Args:
        pixels: (h, w, 3) uint8.
    """
    smooth = gaussian_filter(pixels.astype(np.float32), (1, 1, 0))
    low, _ = channel_range(smooth)
    glass = np.median(smooth[low >= np.percentile(low, BRIGHTEST)], axis=0)
    if glass.min() > LEAST_GLASS and 1 - glass.min() / glass.max() < MOST_GLASS_SATURATION:
        smooth = np.minimum(smooth / glass * 255, 255)
    return np.asarray(smooth)


def saturation(balanced: np.ndarray) -> np.ndarray:
    """Return the saturation of HSV, (h, w) float32 of 0..1; 0 in black.

    Args:
        balanced: (h, w, 3) float32 by `white_balanced`.
    """
    low, high = channel_range(balanced)
    return np.where(high > BLACK, (high - low) / np.maximum(high, 1), 0).astype(np.float32)


def find_tissue(thumbnail: Thumbnail, *, mpp: float, threshold: float | None, keep_ink: bool = False) -> Tissue:
    """Return the tissue and the pen marks of a slide.

    Tissue is what is above the threshold, what touches it and is above `LOW` of it, and the gaps in it. Parts that
    could not be decoded count as tissue: their tiles are tried and marked.

    Args:
        thumbnail: thumbnail of the slide.
        mpp: micrometres per level-0 px.
        threshold: 0..1; None: Otsu's (1979, doi:10.1109/TSMC.1979.4310076) of the logarithm, within `THRESHOLDS`,
            because glass and tissue differ by a factor.
        keep_ink: count pen marks as tissue.
    """
    um_per_px = mpp * thumbnail.downsample
    balanced = white_balanced(thumbnail.pixels)
    values = saturation(balanced)
    ink = np.zeros(values.shape, bool) if keep_ink else ink_mask(balanced, um_per_px) & ~thumbnail.unreadable
    if threshold is None:
        known = values[~(thumbnail.unreadable | ink)]
        varies = known.size > 0 and float(np.ptp(known)) > 0
        otsu = np.exp(filters.threshold_otsu(np.log(known + 0.01))) - 0.01 if varies else THRESHOLDS[0]
        threshold = float(np.clip(float(otsu), *THRESHOLDS))
        mask = filters.apply_hysteresis_threshold(values, max(THRESHOLDS[0], LOW * threshold), threshold)
    else:
        mask = values > threshold
    tissue = closed(mask & ~ink, HOLE_UM / um_per_px) | thumbnail.unreadable
    return Tissue(tissue & ~ink, ink, threshold)


def closed(mask: np.ndarray, radius: float) -> np.ndarray:
    """Return the morphological closing of a mask (h, w) bool by a disc of `radius` px.

    It is computed by distances, so that the time does not grow with the disc.
    """
    if not mask.any():
        return mask
    margin = int(radius) + 1
    grown = distance_transform_edt(~np.pad(mask, margin)) <= radius
    return np.asarray((distance_transform_edt(grown) > radius)[margin:-margin, margin:-margin])


def tissue_shares(mask: np.ndarray, x: np.ndarray, y: np.ndarray, side: float) -> np.ndarray:
    """Return the share of tissue of the squares at all pairs of x and y, (len(y), len(x)) float32 of 0..1.

    The sums are exact: an integral image, linearly interpolated between pixels.

    Args:
        mask: (h, w) bool.
        x: left edges in px of the mask, (columns,).
        y: upper edges in px of the mask, (rows,).
        side: side of the squares in px of the mask.
    """
    integral = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1))
    np.cumsum(np.cumsum(mask, axis=0, dtype=np.float64), axis=1, out=integral[1:, 1:])

    def at(values: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Interpolate along the first axis."""
        inside = np.clip(places, 0, len(values) - 1)
        below = np.minimum(inside.astype(int), len(values) - 2)
        part = (inside - below)[:, None]
        return np.asarray(values[below] * (1 - part) + values[below + 1] * part)

    rows = at(integral, y + side) - at(integral, y)
    sums = (at(rows.T, x + side) - at(rows.T, x)).T
    return np.asarray(np.clip(sums / side**2, 0, 1), np.float32)
