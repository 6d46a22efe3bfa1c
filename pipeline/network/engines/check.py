"""Does an engine say of a few tiles what the network itself says in fp32?"""

import dataclasses

import numpy as np
import torch

from pipeline.network.batches import normalise
from pipeline.network.engines.base import HeadOutput
from pipeline.network.model_file import Model
from pipeline.network.resnet import features, logits

LEAST_COSINE = 0.999
"""Of centred features: errors of 4.5 % of the features' spread."""

MARGIN = 0.1
"""A tile whose class is another one counts if fp32's score of its class is above that of the other by more than this:
odds of 1.1 to 1 turn by rounding."""

CHUNK = 16
"""Tiles per pass of the reference."""


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How an engine's answers compare with those of plain fp32."""

    cosine: float
    """Between the features of all tiles, each less the mean of fp32's features, taken as one vector. One number for
    all tiles: it weighs errors by the features' spread, as the heads' scaling does, while the direction of a single
    tile near the mean is made of rounding."""

    changed: int
    """Tiles whose largest logit is that of another class, by more than `MARGIN`."""

    tiles: int

    @property
    def passes(self) -> bool:
        """Tell whether the engine may stand in for fp32."""
        return self.cosine >= LEAST_COSINE and not self.changed

    def __str__(self) -> str:
        return f"cosine {self.cosine:.5f} to fp32, {self.changed} of {self.tiles} tiles in another class"


def in_plain_fp32(model: Model, pixels: torch.Tensor) -> HeadOutput:
    """Return what the unchanged network says of N uint8 tiles, computed on the CPU, where fp32 is exact."""
    constants = model.preprocess
    parts = []
    with torch.inference_mode():
        for part in pixels.split(CHUNK):
            x = normalise(part.contiguous(), mean=constants.mean, std=constants.std)
            embedded = features(model.network, x)
            parts.append((embedded.numpy(), logits(model.network, embedded).numpy()))
    return np.concatenate([f for f, _ in parts]), np.concatenate([z for _, z in parts])


def agree(found: HeadOutput, reference: HeadOutput) -> Agreement:
    """Compare features (N, D) and logits (N, K) with those of the reference."""
    centre = reference[0].mean(axis=0, dtype=np.float64)
    a, b = found[0] - centre, reference[0] - centre
    if np.linalg.norm(b) <= 1e-4 * np.linalg.norm(reference[0]):
        a, b = found[0].astype(np.float64), reference[0].astype(np.float64)  # all tiles are alike: no spread to look at
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    rows, named = np.arange(len(reference[1])), found[1].argmax(axis=1)
    lead = reference[1].max(axis=1) - reference[1][rows, named]
    return Agreement(
        cosine=float((a * b).sum() / norms) if norms else float(np.array_equal(a, b)),
        changed=int((lead > MARGIN).sum()),
        tiles=len(rows),
    )
