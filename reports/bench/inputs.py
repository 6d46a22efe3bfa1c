"""The network and the tiles that are measured with: a real run's, or a network trained briefly on demo tiles.

Random weights would do for speed, but not to see whether an engine says the same as fp32: their answers are all alike.
"""

import dataclasses
from pathlib import Path

import numpy as np
import torch

from pipeline.benchmark.config import BenchConfig
from pipeline.benchmark.training import train_briefly
from pipeline.errors import BadInput
from pipeline.network.batches import TileFiles, load_batches
from pipeline.network.model_file import Model, Preprocess, load_model
from pipeline.network.resnet import build_network
from pipeline.tiles.manifest import read_manifest
from pipeline.tiles.synthetic.tiles import CLASSES, render_tile

N_TRAIN, N_HELD = 400, 600
"""Tiles to train on and fit a head on; tiles to compare engines on: one of them is 0.17 points."""

STEPS = 60


@dataclasses.dataclass(frozen=True)
class Tiles:
    """Tiles in memory."""

    pixels: torch.Tensor
    """(N, 3, S, S) uint8, channels_last."""

    y: np.ndarray
    """(N,) int64 class codes."""

    def batches(self, size: int) -> list[torch.Tensor]:
        """Return the tiles as batches of `size`; the last one is filled up from the start."""
        n = len(self.y)
        rows = np.arange(-(-n // size) * size) % n
        return [
            self.pixels[rows[start : start + size]].contiguous(memory_format=torch.channels_last)
            for start in range(0, len(rows), size)
        ]


@dataclasses.dataclass(frozen=True)
class BenchInputs:
    """What is measured with."""

    model: Model
    """Its network on the CPU, in eval mode."""

    train: Tiles
    held: Tiles
    said: str
    """Where it comes from, as a sentence."""


def demo_tiles(n: int, *, tile_px: int, seed: int) -> Tiles:
    """Draw n demo tiles, classes and sources in turn."""
    rng = np.random.default_rng([seed, 2])
    y = np.arange(n) % len(CLASSES)
    drawn = [
        render_tile(CLASSES[code], source=1 + i // len(CLASSES) % 10, tile_px=tile_px, rng=rng)
        for i, code in enumerate(y)
    ]
    return Tiles(torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2), y.astype(np.int64))


def demo_material(setting: BenchConfig, *, arch: str, tile_px: int) -> BenchInputs:
    """Draw demo tiles and train a network on them for `STEPS` steps of the real training."""
    n_train, n_held = setting.sized(N_TRAIN, 64), setting.sized(N_HELD, 64)
    setting.tell(f"drawing {n_train + n_held} demo tiles of {tile_px} px")
    every = demo_tiles(n_train + n_held, tile_px=tile_px, seed=setting.seed)
    train = Tiles(every.pixels[:n_train], every.y[:n_train])
    held = Tiles(every.pixels[n_train:], every.y[n_train:])
    steps = setting.sized(STEPS, 5)
    setting.tell(f"training {arch} for {steps} steps")
    network = build_network(arch, n_classes=len(CLASSES), seed=setting.seed)
    preprocess = Preprocess(size=tile_px)
    train_briefly(network, train.pixels, train.y, setting=setting, preprocess=preprocess, steps=steps)
    info = {"arch": arch, "classes": list(CLASSES), "preprocess": dataclasses.asdict(preprocess)}
    model = Model(network=network.cpu().to(memory_format=torch.contiguous_format).eval(), info=info, record={})
    said = f"{arch}, trained for {steps} steps on {n_train} synthetic tiles of {tile_px} px; {n_held} others compared"
    return BenchInputs(model, train, held, said)


def run_material(path: Path, setting: BenchConfig) -> BenchInputs:
    """Load a run's network and tiles of its manifest, which stands beside it.

    Args:
        path: model.safetensors.
        setting: how thorough.

    Raises:
        BadArtifact: model or manifest are missing or damaged.
        BadInput: a tile cannot be read, or a split holds none.
    """
    model, manifest = load_model(path), read_manifest(path.parent / "manifest.csv")
    code = {name: i for i, name in enumerate(model.classes)}
    parts = []
    for splits, most in ((("train",), setting.sized(N_TRAIN, 64)), (("val", "test"), setting.sized(N_HELD, 64))):
        rows = manifest.readable[manifest.readable["split"].isin(splits) & manifest.readable["label"].isin(code)]
        if len(np.unique(rows["label"])) < 2:
            raise BadInput(f"{manifest.path}: tiles of two classes are needed in {' or '.join(splits)}")
        rows = rows.iloc[np.random.default_rng(setting.seed).permutation(len(rows))[:most]]
        seen = model.preprocess
        tiles = TileFiles(manifest.root, list(rows["path"]), list(rows["sha256"]), seen.size, stain=seen.stain)
        (batch,) = load_batches(tiles, [range(len(tiles))], workers=0)
        for problem in filter(None, batch.problems):
            raise BadInput(f"{problem}: run `python -m pipeline.prepare --restart` for its run first")
        parts.append(Tiles(batch.pixels, np.array([code[label] for label in rows["label"]], dtype=np.int64)))
    said = f"{model.info['arch']} of a run on {manifest.details['dataset']}, {model.preprocess.size} px"
    train, held = parts
    return BenchInputs(model, train, held, f"{said}; {len(held.y)} tiles of val and test compared")
