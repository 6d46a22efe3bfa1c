"""Augment batches of uint8 tiles on their device: orientation, place, stain, blur, resolution, colours, mixing.

The changes of a tile depend only on its column of random numbers, drawn from a seed, e.g. (run's seed, epoch, step).
They do not depend on the device, workers, a resume or other tiles of the batch. Only mixing combines two tiles.
"""

import functools
import math
from collections.abc import Sequence

import numpy as np
import torch
from skimage.color import hed_from_rgb, rgb_from_hed
from torch.nn import functional

from pipeline.network.batches import to_device
from pipeline.network.orientation import orient
from pipeline.network.training.recipe import Recipe

DRAWN = 17
"""Numbers per tile: orientation 3, stain scale 3, stain shift 3, brightness, contrast, saturation, blur, resolution,
place 2, zoom."""

BLURRED, COARSE = 0.5, 0.25
"""Shares of the tiles that are blurred, and that lose resolution."""

COARSE_LEVELS = 2
"""Resolutions between the lowest and the full one."""

GREY = (0.299, 0.587, 0.114)
"""Luma of ITU-R BT.601, as Pillow's and torchvision's grey."""


def draw(seed: Sequence[int], n: int) -> np.ndarray:
    """Return the random numbers of n tiles, (DRAWN, n) in [0, 1); they depend on `seed` alone.

    All are drawn for every recipe, so that a switch changes only its own effect.
    """
    return np.random.default_rng(list(seed)).random((DRAWN, n))


def orient_each(pixels: torch.Tensor, coins: np.ndarray) -> torch.Tensor:
    """Return (B, 3, S, S), channels_last, each tile in its own orientation.

    Args:
        pixels: (B, 3, S, S) of any type.
        coins: (2 or 3, B) bool: flip left-right, flip up-down, swap the two axes.
    """
    orientation = (1 << np.arange(len(coins))) @ coins
    order = np.argsort(orientation, kind="stable")
    # sort the tiles by orientation, transform each group at once, and restore the order
    there, back = to_device(torch.from_numpy(np.stack([order, np.argsort(order)])), pixels.device)
    counts = np.bincount(orientation, minlength=8).tolist()
    groups = pixels.index_select(0, there).split(counts)
    sorted_tiles = torch.cat([orient(group, k) for k, group in enumerate(groups)])
    return sorted_tiles.index_select(0, back).contiguous(memory_format=torch.channels_last)


def augment(pixels: torch.Tensor, recipe: Recipe, numbers: np.ndarray, *, side: int) -> torch.Tensor:
    """Return the augmented tiles of one step of a recipe.

    The order is that of a tile's origin: orientation, place, stain, focus, resolution, colours of the scanner. In
    between, values are float32 on the scale 0..255; they are rounded once, at the end.

    Args:
        pixels: (B, 3, S, S) uint8 on their device.
        recipe: kinds and strengths of the changes.
        numbers: (DRAWN, B) from `draw`.
        side: side of the result in px.

    Returns:
        (B, 3, side, side) uint8, channels_last.
    """
    coins, scale, shift = numbers[:3] < 0.5, numbers[3:6], numbers[6:9]
    pixels = orient_each(pixels, coins[:2] if recipe.orientations == "flips" else coins)
    is_coloured = recipe.stain_scale or recipe.stain_shift or recipe.colour_jitter
    is_moved = recipe.shift or recipe.zoom
    if not (is_moved or is_coloured or recipe.blur or recipe.low_resolution < 1 or side != pixels.shape[-1]):
        return pixels
    x = pixels.to(torch.float32).contiguous()
    if side != x.shape[-1]:
        x = resized(x, side)
    if is_moved:
        x = move_each(x, recipe.shift * (2 * numbers[14:16] - 1), 1 + recipe.zoom * (2 * numbers[16] - 1))
    if recipe.stain_scale or recipe.stain_shift:
        x = vary_stain(x, 1 + recipe.stain_scale * (2 * scale - 1), recipe.stain_shift * (2 * shift - 1))
    if recipe.blur:
        # below the bound, the number is also the strength
        rows = np.flatnonzero(numbers[12] < BLURRED)
        x = apply_to_rows(
            x, rows, functools.partial(blur_each, share=recipe.blur, strength=numbers[12, rows] / BLURRED)
        )
    if recipe.low_resolution < 1:
        level = np.floor(numbers[13] / COARSE * COARSE_LEVELS).astype(int)
        for k in range(COARSE_LEVELS):
            share = recipe.low_resolution + (1 - recipe.low_resolution) * k / COARSE_LEVELS
            x = apply_to_rows(x, np.flatnonzero(level == k), functools.partial(reduce_resolution, share=share))
    if recipe.colour_jitter:
        x = vary_colour(x, 1 + recipe.colour_jitter * (2 * numbers[9:12] - 1))
    return x.round_().clamp_(0, 255).to(torch.uint8).contiguous(memory_format=torch.channels_last)


def apply_to_rows(x: torch.Tensor, rows: np.ndarray, change: functools.partial[torch.Tensor]) -> torch.Tensor:
    """Return a batch with `change` applied to some rows; it keeps their shape."""
    if not len(rows):
        return x
    chosen = to_device(torch.from_numpy(rows), x.device)
    return x.index_copy(0, chosen, change(x.index_select(0, chosen)))


def per_tile(values: np.ndarray, device: torch.device) -> torch.Tensor:
    """Return an array as a float32 tensor on a device."""
    return to_device(torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)), device)


def resized(x: torch.Tensor, side: int) -> torch.Tensor:
    """Return float tiles (B, 3, S, S) at another side, by the antialiased bilinear filter of decoding."""
    return functional.interpolate(x, size=(side, side), mode="bilinear", antialias=True)


def move_each(x: torch.Tensor, shift: np.ndarray, zoom: np.ndarray) -> torch.Tensor:
    """Return the tiles moved and enlarged about their centre, by bilinear interpolation, mirrored at the borders.

    Args:
        x: (B, 3, S, S) float32.
        shift: (2, B) right and down, as a share of the side.
        zoom: (B,) factor; above 1 the tile shows less.
    """
    if not len(x):  # a process without a tile of the last batch; torch makes no empty grid
        return x
    # torch's grid counts from -1 to 1: half a side is 1
    n = len(zoom)
    theta = np.zeros((n, 2, 3))
    theta[:, 0, 0] = theta[:, 1, 1] = 1 / zoom
    theta[:, :, 2] = -2 * shift.T / zoom[:, None]
    grid = functional.affine_grid(per_tile(theta, x.device), [*x.shape], align_corners=False)
    return functional.grid_sample(x, grid, padding_mode="reflection", align_corners=False)


def affine(x: torch.Tensor, matrix: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """Return matrix (B, 3, 3) times the colours of x (B, 3, H, W), plus offset (B, 3, 1)."""
    return torch.baddbmm(offset, matrix, x.flatten(2)).view_as(x)


def vary_stain(x: torch.Tensor, scale: np.ndarray, shift: np.ndarray) -> torch.Tensor:
    """Return the tiles with other amounts of haematoxylin, eosin and the third colour of the HED space.

    Stains are unmixed in optical density with the matrices of Ruifrok and Johnston 2001, "Quantification of
    histochemical staining by color deconvolution", as in scikit-image; amounts are scaled and shifted as in
    Tellez et al. 2018, "Whole-slide mitosis detection in H&E breast histology using PHH3", and Tellez et al. 2019,
    "Quantifying the effects of data augmentation and stain color normalization". Negative amounts are not clipped:
    scales of 1 without a shift return the tile itself (except that 0 counts as 1).

    Args:
        x: (B, 3, H, W) float32, 0..255.
        scale: (3, B).
        shift: (3, B), in decadic optical density.
    """
    # densities of a pixel are a column, so matrices multiply from the left
    matrix = rgb_from_hed.T @ (scale.T[:, :, None] * hed_from_rgb.T)
    offset = math.log(10) * (shift.T @ rgb_from_hed)[:, :, None]
    density = x.clamp(min=1).div_(255).log_().neg_()
    return affine(density, per_tile(matrix, x.device), per_tile(offset, x.device)).neg_().exp_().mul_(255)


def vary_colour(x: torch.Tensor, factors: np.ndarray) -> torch.Tensor:
    """Return the tiles with other brightness, contrast and saturation, in this order, as torchvision defines them.

    All three are one affine map of a tile's colours; values are not clipped in between.

    Args:
        x: (B, 3, H, W) float32, 0..255.
        factors: (3, B): brightness, contrast (about the tile's mean grey), saturation (about each pixel's grey).
    """
    brightness, contrast, saturation = (value[:, None, None] for value in factors)
    matrix = brightness * contrast * (saturation * np.eye(3) + (1 - saturation) * np.tile(GREY, (3, 1)))
    grey = per_tile(np.array(GREY), x.device)
    mean = x.mean(dim=(2, 3)).mul_(grey).sum(dim=1).view(-1, 1, 1)
    offset = per_tile(brightness * (1 - contrast), x.device) * mean
    return affine(x, per_tile(matrix, x.device), offset.expand(-1, 3, 1))


def blur_each(x: torch.Tensor, *, share: float, strength: np.ndarray) -> torch.Tensor:
    """Return the tiles blurred by a Gaussian each, mirrored at the borders.

    Args:
        x: (B, 3, H, W) float32.
        share: largest sigma, as a share of the side.
        strength: (B,) sigma of each tile, as a share of the largest.
    """
    largest = share * x.shape[-1]
    radius = min(math.ceil(3 * largest), x.shape[-1] - 1)
    sigma = np.maximum(strength * largest, 1e-3)[:, None]
    kernel = np.exp(-0.5 * (np.arange(radius + 1) / sigma) ** 2)
    kernel /= kernel[:, :1] + 2 * kernel[:, 1:].sum(axis=1, keepdims=True)
    weights = per_tile(kernel.T, x.device).view(radius + 1, -1, 1, 1, 1)
    for axis in (2, 3):  # a sum of shifted tiles is faster than a convolution with a kernel per tile
        n = x.shape[axis]
        padded = functional.pad(x, (0, 0, radius, radius) if axis == 2 else (radius, radius, 0, 0), mode="reflect")
        x = weights[0] * padded.narrow(axis, radius, n)
        for k in range(1, radius + 1):
            x += weights[k] * (padded.narrow(axis, radius - k, n) + padded.narrow(axis, radius + k, n))
    return x


def reduce_resolution(x: torch.Tensor, *, share: float) -> torch.Tensor:
    """Return the tiles reduced to a share of their resolution and enlarged again by bilinear interpolation."""
    side = x.shape[-1]
    small = resized(x, max(1, round(share * side)))
    return functional.interpolate(small, size=(side, side), mode="bilinear", align_corners=False)


def mix(pixels: torch.Tensor, recipe: Recipe, *, seed: Sequence[int]) -> tuple[torch.Tensor, float]:
    """Mix each tile with the tile before it in the batch, by mixup or CutMix.

    Args:
        pixels: (B, 3, S, S) uint8.
        recipe: alpha of both.
        seed: e.g. (run's seed, epoch, step).

    Returns:
        The tiles, and the share of each tile's own pixels, which weights the labels (Zhang et al. 2018; Yun et al.
        2019).
    """
    ways = [name for name in ("mixup", "cutmix") if getattr(recipe, name)]
    if not ways:
        return pixels, 1.0
    rng = np.random.default_rng([*seed, DRAWN])  # independent of the tiles' numbers
    way = ways[rng.integers(len(ways))]
    own = float(rng.beta(getattr(recipe, way), getattr(recipe, way)))
    others, side = pixels.roll(1, dims=0), pixels.shape[-1]
    if way == "mixup":
        mixed = others.to(torch.float32).lerp_(pixels.to(torch.float32), own).round_().to(torch.uint8)
        return mixed.contiguous(memory_format=torch.channels_last), own
    width = round(side * math.sqrt(1 - own))
    top, left = rng.integers(side - width + 1, size=2)
    mixed = pixels.clone(memory_format=torch.channels_last)
    mixed[:, :, top : top + width, left : left + width] = others[:, :, top : top + width, left : left + width]
    return mixed, 1 - (width / side) ** 2
