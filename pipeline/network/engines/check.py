"""Compare an engine with the unchanged network in plain fp32 on a few tiles."""

import dataclasses

import numpy as np
import torch

from pipeline.network.batches import normalise
from pipeline.network.encoders.frozen import embed
from pipeline.network.engines.base import Engine, NetworkOutput, as_output
from pipeline.network.model_file import Model

LEAST_COSINE = 0.999
"""Lowest cosine of centred features that passes: errors of 4.5 % of their spread."""

LEAST_RESOLUTION = 0.1
"""Difference of two logits that is always taken for rounding: odds of 1.1 to 1."""

CHUNK = 16
"""Tiles per forward pass of the reference."""


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How the outputs of an engine compare with those of plain fp32."""

    cosine: float
    """Between the features of all tiles, each less the mean of fp32's features, taken as one vector. One number for all
    tiles weighs errors by the spread of the features, as the scaling of the heads does; the direction of a single tile
    near the mean is made of rounding."""

    changed: int
    """Tiles whose largest logit is that of another class."""

    tiles: int

    margin: float
    """Largest fp32 margin of a changed tile: fp32's logit of its own class less that of the engine's class. 0 if no
    tile changed."""

    resolution: float
    """Smallest fp32 margin at which a changed class counts: the largest error of a margin (between fp32's two best
    classes) on the tiles that keep their class, at least `LEAST_RESOLUTION`."""

    @property
    def passes(self) -> bool:
        """Return whether the engine may be used in place of fp32."""
        return self.cosine >= LEAST_COSINE and self.margin <= self.resolution

    def __str__(self) -> str:
        text = f"cosine {self.cosine:.5f} to fp32, {self.changed} of {self.tiles} tiles in another class"
        if not self.changed:
            return text
        return f"{text} (fp32 margin at most {self.margin:.3f}, resolution {self.resolution:.3f})"


def in_plain_fp32(model: Model, pixels: torch.Tensor) -> NetworkOutput:
    """Return the output of the unchanged network for N uint8 tiles, computed on the CPU, where fp32 is exact."""
    constants = model.preprocess
    parts = []
    with torch.inference_mode():
        for part in torch.split(pixels, CHUNK):
            x = normalise(part.contiguous(), mean=constants.mean, std=constants.std)
            parts.append(as_output([found.numpy() for found in embed(model.network, x)]))
    return np.concatenate([f for f, _ in parts]), np.concatenate([z for _, z in parts])


def check_engine(engine: Engine, pixels: torch.Tensor, reference: NetworkOutput) -> Agreement:
    """Run N uint8 tiles through an engine and compare them with `in_plain_fp32` of the same tiles."""
    found = list(engine.run(torch.split(pixels, engine.batch)))
    return agree((np.concatenate([f for f, _ in found]), np.concatenate([z for _, z in found])), reference)


def agree(found: NetworkOutput, reference: NetworkOutput) -> Agreement:
    """Compare features (N, D) and logits (N, K) with those of the reference."""
    if not reference[1].shape[1]:  # a frozen encoder has no logits
        return Agreement(_cosine(found[0], reference[0]), 0, len(reference[0]), 0.0, LEAST_RESOLUTION)
    rows, fp32, classes = np.arange(len(reference[1])), reference[1], found[1].argmax(axis=1)
    best = fp32.argmax(axis=1)
    changed = classes != best
    margins = fp32[rows, best] - fp32[rows, classes]  # 0 where the class is the same
    return Agreement(
        cosine=_cosine(found[0], reference[0]),
        changed=int(changed.sum()),
        tiles=len(rows),
        margin=float(margins.max()),
        resolution=float(_margin_errors(found[1], fp32)[~changed].max(initial=LEAST_RESOLUTION)),
    )


def _cosine(found: np.ndarray, reference: np.ndarray) -> float:
    """Return the cosine of two arrays (N, D) as vectors, less the mean row of the reference."""
    centre = reference.mean(axis=0, dtype=np.float64)
    a, b = found - centre, reference - centre
    if np.linalg.norm(b) <= 1e-4 * np.linalg.norm(reference):
        a, b = found.astype(np.float64), reference.astype(np.float64)  # all tiles are alike: there is no spread
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return float((a * b).sum() / norms) if norms else float(np.array_equal(a, b))


def _margin_errors(found: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return the error (N,) of the difference between the reference's two largest logits of each row."""
    if reference.shape[1] < 2:
        return np.zeros(len(reference))
    second, first = np.argsort(reference, axis=1)[:, -2:].T
    rows = np.arange(len(reference))
    error = found.astype(np.float64) - reference
    of_margin: np.ndarray = np.abs(error[rows, first] - error[rows, second])
    return of_margin
