"""Turn and mirror tiles."""

import torch

AXES = (-1, -2)
"""Axes that bits 0 and 1 of an orientation mirror: left to right, top to bottom. Bit 2 swaps the two axes."""


def orient(pixels: torch.Tensor, orientation: int) -> torch.Tensor:
    """Return (B, 3, S, S) in one of the eight exact orientations of a square, 0 for as it is: the same pixels."""
    axes = [axis for bit, axis in enumerate(AXES) if orientation >> bit & 1]
    pixels = pixels.flip(axes) if axes else pixels
    return pixels.transpose(*AXES) if orientation & 4 else pixels
