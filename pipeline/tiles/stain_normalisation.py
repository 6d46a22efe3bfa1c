"""Normalise the colours of tiles by source: exchange the white point and stains of each source for a target's.

Macenko et al. 2009, "A method for normalizing histology slides for quantitative analysis", with one estimate for all
tiles of a source (slide, patient, scanner) together. A tile alone has too few stains, and an estimate by tile follows
its tissue. No label is used, but the other tiles of the source: predictions are transductive.

Every number follows from the pixels alone: no draw depends on the process, the number of threads, or the other sources.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from pipeline.evaluation.folds import evenly_spaced
from pipeline.runtime.process import n_ranks
from pipeline.runtime.progress import progress
from pipeline.runtime.signals import StopRequest
from pipeline.tiles.decoding import as_pixels

MOST_TILES, PIXELS = 1000, 100_000
"""Tiles of a source, evenly spaced, and their pixels in all, that its stains are estimated on. On 50 tiles of many
slides and classes the estimates of two splits differed by 5 levels of 255, on 750 by 1."""

ESTIMATE_PX = 32
"""Side in px to which tiles are averaged at least before the estimate: the extreme percentiles of single pixels follow
focus, JPEG and noise instead of stains."""

LEAST_SOURCE_TILES, LEAST_TISSUE = 5, 0.02
"""Fewest tiles of a source, and least share of tissue in their pixels: below, the source keeps its colours."""

SHRINK = 5
"""Tiles at which a source's own stains and the target have the same weight."""

WHITE_PERCENTILE, STRENGTH_PERCENTILE = 99, 99
"""Percentile of a channel that is the white point, and of the amount of a stain that is its strength."""

TISSUE, ANGLES = 0.15, (1, 99)
"""Least mean optical density of tissue, natural logarithm, and percentiles of the angles of the stains (Macenko)."""

LEAST_ANGLE = 0.1
"""Least angle between the two stains in radians: below, there is one stain, and unmixing would amplify noise."""

DARKEST_WHITE, LEAST_STRENGTH = 100.0, 0.05
"""Least white point, of 255, and least strength of a stain."""

DECIMALS = 6
"""Decimals that are kept, so that machines whose last bits differ agree."""

MOST_LOG = 25.0
"""Largest logarithm of a factor in a table; three of them multiplied are still a finite float32."""


@dataclasses.dataclass(frozen=True)
class Stains:
    """White point and stains of a source; a JSON object in model.json."""

    white: tuple[float, ...]
    """(3,) brightest red, green and blue, 0..255."""

    vectors: tuple[tuple[float, ...], ...]
    """(2, 3) optical density of each stain in red, green and blue; the first one absorbs more red (haematoxylin)."""

    strengths: tuple[float, ...]
    """(2,) amount of each stain in the most stained pixels."""

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return white (3,), vectors (2, 3) and strengths (2,) float64."""
        return np.array(self.white), np.array(self.vectors), np.array(self.strengths)


REFERENCE = Stains(
    white=(240.0, 240.0, 240.0),
    vectors=((0.5626, 0.7201, 0.4062), (0.2159, 0.8012, 0.5581)),
    strengths=(1.9705, 1.0308),
)
"""The reference of the published Matlab code of Macenko's method: a target that follows from no tile."""


class Source(NamedTuple):
    """Tiles with one map of colours: those of a group in one split, so that no test tile changes a training tile."""

    group: str = ""
    """"" = not known."""

    split: str = ""
    """"" = the map is of all splits, or the tiles are of none."""

    def __str__(self) -> str:
        return f"{self.group or 'all tiles'} ({self.split})" if self.split else self.group


@dataclasses.dataclass(frozen=True)
class SourceFit:
    """The stains of one source."""

    n_tiles: int
    stains: Stains | None
    """None: too few tiles, too little tissue, or one stain only."""


def stains_of(white: np.ndarray, vectors: np.ndarray, strengths: np.ndarray) -> Stains:
    """Return rounded stains of arrays (3,), (2, 3) and (2,)."""
    rows = [tuple(float(value) for value in np.round(row, DECIMALS)) for row in (white, *vectors, strengths)]
    return Stains(rows[0], (rows[1], rows[2]), rows[3])


def estimate_stains(pixels: np.ndarray) -> Stains | None:
    """Return the stains of pixels (N, 3) uint8; None with too little tissue or one stain only.

    The plane of the two largest principal directions of the optical density of tissue; in it the extreme angles are the
    stains (Macenko et al. 2009, section 2). Sums are numpy's own: those of BLAS depend on its threads.
    """
    white = np.percentile(pixels, WHITE_PERCENTILE, axis=0).clip(DARKEST_WHITE, 255)
    density = -np.log(np.maximum(pixels, 1) / white)
    tissue = density[density.mean(axis=1) >= TISSUE]
    if not len(pixels) or len(tissue) < LEAST_TISSUE * len(pixels):
        return None
    plane = np.linalg.eigh(np.einsum("ni,nj->ij", tissue, tissue))[1][:, 1:]
    mean = tissue.mean(axis=0) @ plane
    mean /= np.linalg.norm(mean)
    along, across = plane @ mean, plane @ np.array([-mean[1], mean[0]])
    angle = np.arctan2(np.einsum("ni,i->n", tissue, across), np.einsum("ni,i->n", tissue, along))
    ends = np.percentile(angle, ANGLES)
    if ends[1] - ends[0] < LEAST_ANGLE:
        return None
    vectors = np.outer(np.cos(ends), along) + np.outer(np.sin(ends), across)
    vectors = vectors[np.argsort(-vectors[:, 0])]
    amounts = np.einsum("ni,ik->nk", tissue, np.linalg.pinv(vectors))
    strengths = np.percentile(amounts, STRENGTH_PERCENTILE, axis=0)
    return stains_of(white, vectors, np.maximum(strengths, LEAST_STRENGTH))


def averaged(pixels: np.ndarray) -> np.ndarray:
    """Return a tile (H, W, 3) uint8, its squares of pixels averaged so that the side is at least `ESTIMATE_PX`."""
    factor = max(1, min(pixels.shape[:2]) // ESTIMATE_PX)
    return np.asarray(Image.fromarray(pixels).reduce(factor))


def fit_sources(
    sources: Sequence[Source], rows: Sequence[int], read: Callable[[int], np.ndarray | None], *, workers: int = 1
) -> dict[Source, SourceFit]:
    """Return the stains of each source, estimated on a fixed draw of pixels of its tiles.

    Args:
        sources: source of each tile, (N,).
        rows: numbers of the tiles that may be readable.
        read: returns the pixels (H, W, 3) uint8 of a tile by its number, None if it cannot be read.
        workers: threads, each of which estimates a source; below 2, one source after the other.

    Raises:
        Interrupted: SIGINT or SIGTERM.
    """
    rows_of: dict[Source, list[int]] = {}
    for row in rows:
        rows_of.setdefault(sources[row], []).append(row)

    def stop_if_requested() -> None:
        if stop.signum:
            raise stop.interrupted("the stains of the sources are estimated again")

    def fit(own: list[int]) -> SourceFit:
        chosen = evenly_spaced(range(len(own)), MOST_TILES)
        drawn = []
        for i in chosen if len(own) >= LEAST_SOURCE_TILES else ():
            stop_if_requested()
            if (pixels := read(own[i])) is not None:
                flat = averaged(pixels).reshape(-1, 3)
                drawn.append(flat[np.random.default_rng(int(i)).integers(len(flat), size=PIXELS // len(chosen))])
        stains = estimate_stains(np.concatenate(drawn)) if len(drawn) >= LEAST_SOURCE_TILES else None
        return SourceFit(len(own), stains)

    fits: dict[Source, SourceFit] = {}
    bar = progress(len(rows_of), unit="source", label="stains")
    with StopRequest(echoes=n_ranks() > 1) as stop:
        with bar, ThreadPoolExecutor(max(1, workers)) as pool:
            for source, found in zip(rows_of, pool.map(fit, rows_of.values()), strict=True):
                fits[source] = found
                bar.update()
        stop_if_requested()
    return fits


def mean_stains(fits: Mapping[Source, SourceFit]) -> Stains | None:
    """Return the mean over sources, the target of all; None if no source has stains."""
    found = [fit.stains.arrays() for fit in fits.values() if fit.stains is not None]
    if not found:
        return None
    white, vectors, strengths = (np.mean(parts, axis=0) for parts in zip(*found, strict=True))
    return stains_of(white, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), strengths)


def table_of(fit: SourceFit, target: Stains) -> np.ndarray | None:
    """Return the factors (3, 256, 3) float32 of each value of each channel to each new channel; None: no change.

    The optical density d of a pixel becomes d + (d V+) (S W - V) with the stains V and W of source and target, V+ the
    pseudo-inverse, and S the quotients of their strengths: what is not stain is kept. A density is a sum over channels,
    so that a pixel's new value is a product of three factors. Stains of few tiles are shrunk to the target.
    """
    if fit.stains is None:
        return None
    weight = fit.n_tiles / (fit.n_tiles + SHRINK)
    new_white, new_vectors, new_strengths = target.arrays()
    white, vectors, strengths = (
        weight * own + (1 - weight) * aim for own, aim in zip(fit.stains.arrays(), target.arrays(), strict=True)
    )
    scaled = (new_strengths / strengths)[:, None] * new_vectors
    change = np.eye(3) + np.linalg.pinv(vectors) @ (scaled - vectors)
    density = -np.log(np.maximum(np.arange(256), 1) / white[:, None])  # (3, 256)
    factors = np.exp(np.clip(-density[:, :, None] * change[:, None, :], -MOST_LOG, MOST_LOG))
    factors[0] *= new_white
    return factors.astype(np.float32)


class SourceColours:
    """Normalise tiles, each by the map of its source.

    Args:
        fits: source -> its stains.
        target: stains that all tiles get.
    """

    def __init__(self, fits: Mapping[Source, SourceFit], target: Stains) -> None:
        self.fits, self.target = dict(fits), target
        self.tables = {source: table_of(fit, target) for source, fit in fits.items()}

    def apply(self, pixels: np.ndarray, source: Source) -> np.ndarray:
        """Return a tile (H, W, 3) uint8 with the target's colours; unchanged if its source keeps its own."""
        table = self.tables.get(source)
        if table is None:
            return pixels
        values = table[0][pixels[..., 0]] * table[1][pixels[..., 1]] * table[2][pixels[..., 2]]
        return as_pixels(values)

    @property
    def unchanged(self) -> list[Source]:
        """Sources that keep their colours."""
        return [source for source, table in self.tables.items() if table is None]

    @property
    def facts(self) -> dict[str, Any]:
        """Facts for records: number of sources, those that are unchanged, and the hash of all maps."""
        fits = {str(source): dataclasses.asdict(fit) for source, fit in self.fits.items()}
        content = [dataclasses.asdict(self.target), fits]
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return {"sources": len(self.tables), "unchanged": list(map(str, self.unchanged)), "sha256": digest}
