"""Compute features of the colours and the texture of a tile, without learning.

A network must beat these features to be worth its cost. They are computed on the stored tile, not resized, and describe
texture at the scale of the pixels.
"""

import itertools

import numpy as np
from skimage.color import rgb2hed
from skimage.feature import graycomatrix, graycoprops, local_binary_pattern

BINS_PER_CHANNEL = 8
N_COLOURS = BINS_PER_CHANNEL**3
"""Width of the colour histogram."""

CHANNELS = ("red", "green", "blue", "hue", "saturation", "value", "haematoxylin", "eosin")
PERCENTILES = (5, 25, 50, 75, 95)
STATISTICS = ("mean", "std", "skewness", *(f"p{rank}" for rank in PERCENTILES))

LBP_SCALES = ((8, 1), (16, 2))
"""Local binary patterns: (points, radius in px). Ojala, Pietikainen and Maenpaa 2002, "Multiresolution gray-scale and
rotation invariant texture classification with local binary patterns"."""

GLCM_LEVELS = 32
GLCM_DISTANCES = (1, 2, 4)
GLCM_ANGLES = (0, np.pi / 4, np.pi / 2, 3 * np.pi / 4)
GLCM_PROPERTIES = ("contrast", "dissimilarity", "homogeneity", "energy", "correlation")
"""Co-occurrence of grey levels. Haralick, Shanmugam and Dinstein 1973, "Textural features for image classification"."""

HANDCRAFTED_NAMES = (
    *(f"{channel}_{statistic}" for channel, statistic in itertools.product(CHANNELS, STATISTICS)),
    *(f"lbp{points}_{radius}px_{i}" for points, radius in LBP_SCALES for i in range(points + 2)),
    *(f"glcm_{name}_{distance}px" for name, distance in itertools.product(GLCM_PROPERTIES, GLCM_DISTANCES)),
)
"""The columns of `handcrafted_features`, in their order."""

LEAST_SPREAD = 1e-6
"""Least standard deviation; a channel below it is constant up to rounding, and its skewness is 0."""


def colour_histogram(pixels: np.ndarray) -> np.ndarray:
    """Return the square root of the share of a tile's pixels in each of 8 x 8 x 8 cells of the RGB cube.

    Euclidean distances between square roots of shares are Hellinger distances, which depend less on the few
    fullest cells (Arandjelovic and Zisserman 2012, "Three things everyone should know to improve object retrieval").

    Args:
        pixels: (H, W, 3) uint8 RGB.

    Returns:
        (512,) float32 of length 1; the cell of red, green and blue is 64 r + 8 g + b.
    """
    level = pixels.reshape(-1, 3).astype(np.int64) * BINS_PER_CHANNEL // 256
    cell = (level[:, 0] * BINS_PER_CHANNEL + level[:, 1]) * BINS_PER_CHANNEL + level[:, 2]
    shares = np.bincount(cell, minlength=N_COLOURS) / len(cell)
    return np.sqrt(shares).astype(np.float32)


def handcrafted_features(pixels: np.ndarray) -> np.ndarray:
    """Return colour statistics, local binary patterns and grey-level co-occurrence of a tile of any size.

    Args:
        pixels: (H, W, 3) uint8 RGB.

    Returns:
        (107,) float32, always finite, in the order of `HANDCRAFTED_NAMES`. Colours are on the scale 0..1, stains in
        optical density (Ruifrok and Johnston 2001), patterns are shares.
    """
    red, green, blue = (pixels[..., i].astype(np.uint32) for i in range(3))
    grey = ((299 * red + 587 * green + 114 * blue + 500) // 1000).astype(np.uint8)  # ITU-R BT.601
    parts = [_colour_statistics(pixels), *(_patterns(grey, *scale) for scale in LBP_SCALES), _co_occurrence(grey)]
    return np.concatenate(parts).astype(np.float32)


def _hue_saturation_value(rgb: np.ndarray) -> np.ndarray:
    """Return (3, N) float32 from rgb (3, N) float32, all 0..1; the hue is shifted by half a circle.

    It wraps at cyan then, a colour that no stain has, instead of at red, so that its mean and spread are meaningful.
    (A test compares it with scikit-image's rgb2hsv, which takes twice the time.)
    """
    red, green, blue = rgb
    high, low = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    chroma = high - low
    some = np.where(chroma > 0, chroma, 1)
    sixths = np.where(high == green, 2 + (blue - red) / some, 4 + (red - green) / some)
    sixths = np.where(high == red, (green - blue) / some, sixths)
    return np.stack([(sixths / 6 + 0.5) % 1, chroma / np.where(high > 0, high, 1), high])


def _colour_statistics(pixels: np.ndarray) -> np.ndarray:
    """Return `STATISTICS` of each of `CHANNELS`, channel by channel; percentiles by the nearest rank."""
    scaled = pixels.reshape(-1, 3).astype(np.float32) / 255  # float32 halves the time and is exact enough for 8 bits
    rgb = np.ascontiguousarray(scaled.T)
    stains = rgb2hed(scaled)[:, :2].T.astype(np.float32)
    channels = np.concatenate([rgb, _hue_saturation_value(rgb), stains])
    channels.sort(axis=1)
    mean, std = (moment[:, None] for moment in (channels.mean(axis=1), channels.std(axis=1)))
    standard = (channels - mean) / np.maximum(std, LEAST_SPREAD)
    skewness = np.where(std > LEAST_SPREAD, (standard * standard * standard).mean(axis=1, keepdims=True), 0)
    ranks = np.rint(np.array(PERCENTILES) / 100 * (channels.shape[1] - 1)).astype(np.int64)
    return np.hstack([mean, std, skewness, channels[:, ranks]]).ravel()


def _patterns(grey: np.ndarray, points: int, radius: int) -> np.ndarray:
    """Return the shares of the uniform patterns, (points + 2,)."""
    # otherwise pixels beyond the border count as black, and the features depend on the size of the tile
    padded = np.pad(grey, radius, mode="edge")
    codes = local_binary_pattern(padded, points, radius, method="uniform")[radius:-radius, radius:-radius]
    shares: np.ndarray = np.bincount(codes.astype(np.int64).ravel(), minlength=points + 2) / codes.size
    return shares


def _co_occurrence(grey: np.ndarray) -> np.ndarray:
    """Return `GLCM_PROPERTIES` at `GLCM_DISTANCES`, property by property, means over the angles.

    A tile that is too small for a distance has no pairs: 0, and correlation 1, as for a constant tile.
    """
    levels = (grey // (256 // GLCM_LEVELS)).astype(np.uint8)
    matrix = graycomatrix(levels, GLCM_DISTANCES, GLCM_ANGLES, levels=GLCM_LEVELS, symmetric=True, normed=True)
    means: np.ndarray = np.concatenate([graycoprops(matrix, name).mean(axis=1) for name in GLCM_PROPERTIES])
    return means
