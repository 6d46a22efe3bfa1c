"""Tiles that engines are tried on: a few of all for the check, training tiles alone for int8."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch

from pipeline.errors import BadInput
from pipeline.network.batches import TileFiles, TileSource
from pipeline.tiles.manifest import Manifest
from pipeline.tiles.stain import Stain

N_SAMPLE = 64
"""Tiles on which an engine is compared with plain fp32."""

N_CALIBRATION = 128
"""Training tiles that int8's scales come from."""


def spread(rows: Sequence[int] | np.ndarray, n: int) -> np.ndarray:
    """Return at most n of the rows, evenly spread over their order."""
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(n, len(rows))).round().astype(int))
    return np.asarray(rows, dtype=int)[chosen]


def decoded(tiles: TileSource, rows: Sequence[int] | np.ndarray) -> torch.Tensor:
    """Return the tiles of some rows, (N, 3, S, S) uint8, channels_last, without those that cannot be read."""
    found = [pixels for _, pixels, _, problem in (tiles[int(row)] for row in rows) if not problem]
    stacked = np.stack(found) if found else np.zeros((0, tiles.size, tiles.size, 3), np.uint8)
    return torch.from_numpy(stacked).permute(0, 3, 1, 2)


def sample_pixels(tiles: TileSource) -> torch.Tensor:
    """Return up to `N_SAMPLE` tiles, evenly spread, for the comparison of an engine with plain fp32."""
    return decoded(tiles, spread(tiles.promising(), N_SAMPLE))


def calibration_pixels(manifest: Manifest, size: int, *, stain: Stain | None = None) -> torch.Tensor:
    """Return up to `N_CALIBRATION` training tiles, evenly spread: test and validation tiles never decide a scale (P7).

    Args:
        manifest: of the run.
        size: side in px that the network sees.
        stain: what its tiles are normalised to.

    Raises:
        BadInput: the manifest has no training tile that can be read.
    """
    table = manifest.table[manifest.table["split"] == "train"]
    tiles = TileFiles(manifest.root, list(table["path"]), list(table["sha256"]), size, stain=stain)
    pixels = decoded(tiles, spread(range(len(tiles)), N_CALIBRATION))
    if not len(pixels):
        raise BadInput(
            f"{manifest.path}: no training tile can be read, and --embed-precision int8 is calibrated on them alone: "
            "give bf16 or fp32"
        )
    return pixels


def fingerprint(pixels: torch.Tensor) -> str:
    """Return the SHA-256 of calibration tiles: other ones make other rows."""
    return hashlib.sha256(pixels.permute(0, 2, 3, 1).contiguous().numpy().tobytes()).hexdigest()
