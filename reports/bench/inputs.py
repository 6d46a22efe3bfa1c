"""Give the network and the tiles that engines are compared on: a real run's, or a network trained on demo tiles.

Random weights would do for speed, but not for agreement with fp32: their outputs are nearly the same for all tiles.
"""

import dataclasses

import numpy as np
import torch

from pipeline.benchmark.training import begin_training, cache_tiles, take_steps
from pipeline.network.batches import load_batches
from pipeline.network.model_file import Model, load_model
from pipeline.network.preprocess import Preprocess
from pipeline.network.resnet import build_network
from pipeline.network.tile_files import TileFiles
from pipeline.tiles.manifest import read_manifest
from pipeline.tiles.synthetic.tiles import CLASSES, render_tile

N_TRAIN, N_HELD_OUT = 400, 600
"""Tiles to train on and fit a head on; tiles to compare engines on: one tile is 0.17 points."""

STEPS = 60


@dataclasses.dataclass(frozen=True)
class Tiles:
    pixels: torch.Tensor
    """(N, 3, S, S) uint8, channels_last."""

    y: np.ndarray
    """(N,) int64 class codes."""


@dataclasses.dataclass(frozen=True)
class BenchInputs:
    model: Model
    """Its network on the CPU, in eval mode."""

    train: Tiles
    held_out: Tiles
    origin: str
    """Where they come from, as a sentence."""


def demo_tiles(n, *, tile_px, seed):
    """Draw n demo tiles, classes and sources in turn."""
    rng = np.random.default_rng([seed, 2])
    y = np.arange(n) % len(CLASSES)
    drawn = [
        render_tile(CLASSES[code], source=1 + i // len(CLASSES) % 10, tile_px=tile_px, rng=rng)
        for i, code in enumerate(y)
    ]
    return Tiles(torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2), y.astype(np.int64))


def demo_inputs(config, *, arch, tile_px):
    """Draw demo tiles and train a network on them for `STEPS` steps of the real training."""
    n_train, n_held_out, steps = config.size(N_TRAIN, 64), config.size(N_HELD_OUT, 64), config.size(STEPS, 5)
    every = demo_tiles(n_train + n_held_out, tile_px=tile_px, seed=config.seed)
    train = Tiles(every.pixels[:n_train], every.y[:n_train])
    held_out = Tiles(every.pixels[n_train:], every.y[n_train:])
    network, preprocess = build_network(arch, n_classes=len(CLASSES), seed=config.seed), Preprocess(size=tile_px)
    training = begin_training(network, config=config, preprocess=preprocess, batch=32)
    take_steps(training, cache_tiles(train.pixels, config.device), train.y, n=steps)
    info = {"arch": arch, "classes": list(CLASSES), "preprocess": dataclasses.asdict(preprocess)}
    model = Model(network=network.cpu().to(memory_format=torch.contiguous_format).eval(), info=info, record={})
    origin = f"{arch}, trained for {steps} steps on {n_train} synthetic tiles of {tile_px} px; {n_held_out} compared"
    return BenchInputs(model, train, held_out, origin)


def run_inputs(path, config):
    """Load a run's network (model.safetensors) and tiles of the manifest next to it."""
    model, manifest = load_model(path), read_manifest(path.parent / "manifest.csv")
    code = {name: i for i, name in enumerate(model.classes)}
    parts = []
    for splits, most in ((("train",), config.size(N_TRAIN, 64)), (("val", "test"), config.size(N_HELD_OUT, 64))):
        rows = manifest.readable[manifest.readable["split"].isin(splits) & manifest.readable["label"].isin(code)]
        if len(np.unique(rows["label"])) < 2:
            raise SystemExit(f"{manifest.path}: tiles of two classes are needed in {' or '.join(splits)}")
        rows = rows.iloc[np.random.default_rng(config.seed).permutation(len(rows))[:most]]
        tiles = TileFiles.of_table(manifest.root, rows, model.preprocess).fit_colours()
        (batch,) = load_batches(tiles, [range(len(tiles))], workers=0)
        for problem in filter(None, batch.problems):
            raise SystemExit(problem)
        parts.append(Tiles(batch.pixels, np.array([code[label] for label in rows["label"]], dtype=np.int64)))
    train, held_out = parts
    origin = f"{model.info['arch']} of a run on {manifest.details['dataset']}, {model.preprocess.size} px"
    return BenchInputs(model, train, held_out, f"{origin}; {len(held_out.y)} tiles of val and test compared")
