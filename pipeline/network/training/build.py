"""Build a trainer from a manifest and the options: tiles, start weights, network, setup."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from pipeline.errors import BadInput, UsageError
from pipeline.names import IMAGENET
from pipeline.network.distributed import Ranks
from pipeline.network.precision import choose_precision
from pipeline.network.preprocess import Preprocess, mpp_of
from pipeline.network.pretrained import imagenet_file
from pipeline.network.resnet import as_channels_last, build_network
from pipeline.network.start_weights import StartWeights, load_start_weights
from pipeline.network.tile_files import TileFiles, log_colours
from pipeline.network.training.epoch_log import EpochLog
from pipeline.network.training.recipe import Recipe
from pipeline.network.training.setup import LabelledTiles, TrainingSetup
from pipeline.network.training.trainer import Trainer
from pipeline.runtime.console import log
from pipeline.storage.atomic import sha256_file
from pipeline.tiles.manifest import Manifest
from pipeline.tiles.stain_normalisation import LEAST_SOURCE_TILES, SourceColours, mean_stains

LEAST_TILES = {"train": 2, "val": 1}
"""Readable tiles that each split needs."""


@dataclasses.dataclass(frozen=True)
class TrainingRequest:
    """The options of a training."""

    recipe: Recipe
    arch: str
    init: str | None
    """Start weights: "imagenet", a file, or None for random ones."""

    precision: str
    """auto, fp32 or bf16."""

    device: torch.device
    seed: int
    workers: int
    checkpoint: Path
    normalise: Literal["none", "source"]
    """Whether colours are normalised by source."""

    options: Mapping[str, Any]
    """All options of the command as plain values; a checkpoint with other options is not continued."""

    compiled: bool = False
    log: EpochLog | None = None
    """Where finished epochs are written."""


def build_trainer(manifest: Manifest, request: TrainingRequest) -> Trainer:
    """Return an untrained trainer of the manifest's tiles.

    Raises:
        BadInput: a split has too few readable tiles.
        BadArtifact: the start weights cannot be used.
        UsageError: fewer tiles in a batch than processes.
    """
    recipe, ranks = request.recipe, Ranks()
    if recipe.batch_size < ranks.n:
        raise UsageError(f"--batch-size {recipe.batch_size}: fewer tiles than torchrun started processes, {ranks.n}")
    preprocess = Preprocess(size=recipe.tile_px, mpp=mpp_of(manifest, recipe.tile_px))
    train, val = (tiles_of(manifest, split, preprocess) for split in LEAST_TILES)
    if request.normalise == "source":
        preprocess = normalise_by_source(train[0], val[0], workers=request.workers)
    network = build_network(
        request.arch, n_classes=len(manifest.classes), seed=request.seed, zero_init=recipe.last_norm == "zero"
    )
    start = StartWeights("", "")
    if request.init:
        file = imagenet_file(request.arch, ranks) if request.init == IMAGENET else Path(request.init)
        start = load_start_weights(network, file)
        if start.removed:
            log.info(f"train: {file}: {start.removed} removed from the names of the weights")
    as_channels_last(network, request.device)
    # machines may have different defaults: the first process decides
    precision = ranks.broadcast_from_first(choose_precision(request.precision, request.device))
    setup = TrainingSetup(
        recipe=recipe,
        preprocess=preprocess,
        precision=choose_precision(precision, request.device),
        seed=request.seed,
        workers=request.workers,
        checkpoint=request.checkpoint,
        identity={
            "manifest": sha256_file(manifest.path),
            "options": dict(request.options),
            "seed": request.seed,
            "init": start.sha256 or None,
            "init_removed": start.removed or None,
            "normalised": None if train[0].colours is None else train[0].colours.facts["sha256"],
        },
        compiled=request.compiled,
        log=request.log,
    )
    return Trainer(network, train, val, setup)


def normalise_by_source(train: TileFiles, val: TileFiles, *, workers: int) -> Preprocess:
    """Normalise the colours of both splits to the mean of the training sources; return the preprocessing.

    Raises:
        BadInput: no training source has enough tiles with two stains.
        Interrupted: SIGINT or SIGTERM.
    """
    fits = train.fit_sources(workers=workers)
    target = mean_stains(fits)
    if target is None:
        raise BadInput(
            f"{train.root}: --normalise source: none of {len(fits)} training sources has {LEAST_SOURCE_TILES} tiles "
            "and two stains: give --normalise none"
        )
    preprocess = dataclasses.replace(train.preprocess, stains=target)
    train.preprocess = val.preprocess = preprocess
    train.colours = SourceColours(fits, target)
    val.fit_colours(workers=workers)
    log_colours("train", [train, val])
    return preprocess


def tiles_of(manifest: Manifest, split: str, preprocess: Preprocess) -> LabelledTiles:
    """Return the readable tiles of a split and their class codes.

    Raises:
        BadInput: fewer tiles than `LEAST_TILES`.
    """
    rows = manifest.readable[manifest.readable["split"] == split]
    if len(rows) < LEAST_TILES[split]:
        raise BadInput(f"{manifest.path}: {len(rows)} readable {split} tile(s), at least {LEAST_TILES[split]} needed")
    code = {name: i for i, name in enumerate(manifest.classes)}
    files = TileFiles.of_table(manifest.root, rows, preprocess)
    return files, np.array([code[label] for label in rows["label"]], dtype=np.int64)
