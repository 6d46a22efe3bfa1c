"""Draw the tiles that engines are compared on, and the training tiles that int8 is calibrated on."""

import hashlib

import torch

from pipeline.errors import BadInput
from pipeline.evaluation.folds import evenly_spaced
from pipeline.network.batches import decoded
from pipeline.network.preprocess import Preprocess
from pipeline.network.tile_files import TileFiles, TileSource
from pipeline.tiles.manifest import Manifest

N_SAMPLE = 64
"""Tiles on which an engine is compared with plain fp32."""

N_SAMPLE_SAME = 16
"""The same for torch in fp32 on a CPU, which rounds differently only where batch normalisations are folded."""

N_CALIBRATION = 128
"""Training tiles from which the scales of int8 are computed."""


def sample_pixels(tiles: TileSource, n: int = N_SAMPLE) -> torch.Tensor:
    """Return up to n evenly spaced tiles, to compare an engine with plain fp32."""
    return decoded(tiles, evenly_spaced(tiles.promising(), n))


def calibration_pixels(manifest: Manifest, preprocess: Preprocess, *, workers: int = 1) -> torch.Tensor:
    """Return up to `N_CALIBRATION` evenly spaced training tiles; test and validation tiles decide no scale (P7).

    Where colours are normalised, `workers` threads estimate the stains of the sources of these tiles.

    Raises:
        BadInput: the manifest has no training tile that can be read.
    """
    table = manifest.table[manifest.table["split"] == "train"]
    tiles = TileFiles.of_table(manifest.root, table, preprocess)
    chosen = evenly_spaced(range(len(tiles)), N_CALIBRATION)
    pixels = decoded(tiles.fit_colours(chosen, workers=workers), chosen)
    if not len(pixels):
        raise BadInput(
            f"{manifest.path}: no training tile can be read, and --embed-precision int8 is calibrated on them alone: "
            "give bf16 or fp32"
        )
    return pixels


def fingerprint(pixels: torch.Tensor) -> str:
    """Return the SHA-256 of calibration tiles: other tiles make other rows."""
    return hashlib.sha256(pixels.permute(0, 2, 3, 1).contiguous().numpy().tobytes()).hexdigest()
