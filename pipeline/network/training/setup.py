"""Describe one training: how a network is trained, in what precision, and where it is saved."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.network.precision import Precision
from pipeline.network.preprocess import Preprocess
from pipeline.network.tile_files import TileFiles
from pipeline.network.training.epoch_log import EpochLog
from pipeline.network.training.recipe import Recipe

LabelledTiles = tuple[TileFiles, np.ndarray]
"""N tiles and their class codes (N,) int64."""


@dataclasses.dataclass(frozen=True)
class TrainingSetup:
    """How a network is trained."""

    recipe: Recipe
    preprocess: Preprocess
    """Size, mean and std of the input."""

    precision: Precision
    """fp32, or bf16 autocast."""

    seed: int
    """Seed of tile order and augmentation."""

    workers: int
    """Processes that decode tiles."""

    checkpoint: Path
    """The file to save to and continue from."""

    identity: Mapping[str, Any]
    """Plain values that must agree with those of a checkpoint to continue it."""

    compiled: bool = False
    """Whether full steps run through torch.compile, on CUDA as CUDA graphs; not with several processes."""

    log: EpochLog | None = None
    """Where the first process writes each finished epoch; None: nowhere."""
