"""Where on a slide there is tissue: by the colour of its thumbnail."""

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter
from skimage.filters import apply_hysteresis_threshold, threshold_otsu

from pipeline.slides.base import Thumbnail
from pipeline.tiles.audit.measure import BLACK

THRESHOLDS = (0.03, 0.10)
"""Otsu's threshold is held within these: it always parts in two, even bare glass or a picture full of tissue. White
balanced glass stays below 0.02, pale tissue begins at 0.1."""

LOW = 0.4
"""Share of the threshold that suffices beside pixels above it: the walls of fat cells fade in a thumbnail."""

HOLE_UM = 40.0
"""Gaps up to twice as wide are tissue too: fat cells, lumina."""

BRIGHTEST = 95.0
"""Percentile from which on pixels may be glass, whose median colour then becomes white."""

LEAST_GLASS, MOST_GLASS_SATURATION = 200, 0.1
"""Darkest channel and saturation that the colour of glass may have; else the picture has none."""


def saturation(pixels: np.ndarray) -> np.ndarray:
    """Return the saturation of HSV after a white balance by the glass, (h, w) float32 of 0..1; 0 where black.

    Args:
        pixels: (h, w, 3) uint8.
    """
    smooth = gaussian_filter(pixels.astype(np.float32), (1, 1, 0))
    low = smooth.min(axis=2)
    glass = np.median(smooth[low >= np.percentile(low, BRIGHTEST)], axis=0)
    if glass.min() > LEAST_GLASS and 1 - glass.min() / glass.max() < MOST_GLASS_SATURATION:
        smooth = np.minimum(smooth / glass * 255, 255)
    high, low = smooth.max(axis=2), smooth.min(axis=2)
    return np.where(high > BLACK, (high - low) / np.maximum(high, 1), 0).astype(np.float32)


def tissue_mask(thumbnail: Thumbnail, *, mpp: float, threshold: float | None) -> tuple[np.ndarray, float]:
    """Return where there is tissue, (h, w) bool, and the threshold of saturation.

    Tissue is what is above the threshold, what touches it and is above `LOW` of it, and the gaps in it. What could not
    be decoded counts as tissue: its tiles are tried and marked, not left out in silence.

    Args:
        thumbnail: of the slide.
        mpp: micrometres per level-0 px.
        threshold: 0..1; None: Otsu's (1979, doi:10.1109/TSMC.1979.4310076) of the logarithm, within `THRESHOLDS`: glass
            and tissue differ by a factor.
    """
    values = saturation(thumbnail.pixels)
    if threshold is None:
        known = values[~thumbnail.unreadable]
        spread = known.size > 0 and float(np.ptp(known)) > 0
        found = np.exp(threshold_otsu(np.log(known + 0.01))) - 0.01 if spread else THRESHOLDS[0]
        threshold = float(np.clip(float(found), *THRESHOLDS))
        mask = apply_hysteresis_threshold(values, max(THRESHOLDS[0], LOW * threshold), threshold)
    else:
        mask = values > threshold
    return closed(mask, HOLE_UM / (mpp * thumbnail.downsample)) | thumbnail.unreadable, threshold


def closed(mask: np.ndarray, radius: float) -> np.ndarray:
    """Return a mask (h, w) bool closed by a disc: what is farther than `radius` px from all that is farther from it.

    By distances, whose cost does not grow with the disc.
    """
    if not mask.any():
        return mask
    margin = int(radius) + 1
    grown = distance_transform_edt(~np.pad(mask, margin)) <= radius
    return (distance_transform_edt(grown) > radius)[margin:-margin, margin:-margin]


def tissue_shares(mask: np.ndarray, x: np.ndarray, y: np.ndarray, side: float) -> np.ndarray:
    """Return the share of tissue of the squares at all pairs of x and y, (len(y), len(x)) float32 of 0..1.

    Exact sums by an integral image, whose values between pixels are interpolated.

    Args:
        mask: (h, w) bool.
        x: left edges in px of the mask, (columns,).
        y: upper edges, (rows,).
        side: of the squares in px of the mask.
    """
    integral = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1))
    np.cumsum(np.cumsum(mask, axis=0, dtype=np.float64), axis=1, out=integral[1:, 1:])

    def at(values: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Interpolate along the first axis."""
        inside = np.clip(places, 0, len(values) - 1)
        below = np.minimum(inside.astype(int), len(values) - 2)
        part = (inside - below)[:, None]
        return values[below] * (1 - part) + values[below + 1] * part

    rows = at(integral, y + side) - at(integral, y)
    sums = (at(rows.T, x + side) - at(rows.T, x)).T
    return np.clip(sums / side**2, 0, 1).astype(np.float32)
