"""Tiles that engines are tried on: a few of all for the check, training tiles alone for int8."""

import hashlib

import torch

from pipeline.errors import BadInput
from pipeline.network.batches import TileFiles, TileSource, decoded, spread
from pipeline.tiles.manifest import Manifest
from pipeline.tiles.stain_normalisation import Stain

N_SAMPLE = 64
"""Tiles on which an engine is compared with plain fp32."""

N_CALIBRATION = 128
"""Training tiles that int8's scales come from."""


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
