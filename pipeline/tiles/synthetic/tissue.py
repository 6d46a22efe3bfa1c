"""Draw the tissues of the demo classes as stain densities, a function for each.

A tissue is a Layer: two optical-density maps and the nuclei on them. Layers are mixed through
masks before the nuclei are painted, so that no nucleus is cut by the border between two tissues.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.tiles.synthetic.nuclei import Nuclei
from pipeline.tiles.synthetic.texture import FIELD, Field, Floats, Flow


@dataclass
class Layer:
    """A tissue: optical density of the stains, (px, px) float32 each, and the nuclei on it."""

    haematoxylin: Floats
    eosin: Floats
    nuclei: Nuclei


def ramp(values: Floats, *, low: float, high: float) -> Floats:
    """Return a smooth step: 0 where `values` <= low, 1 where >= high (falling if low > high)."""
    t = np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def mix(field: Field, under: Layer, over: Layer, mask: Floats) -> Layer:
    """Return `over` where `mask` (px, px) is 1 and `under` where it is 0; nuclei go by their centre."""
    return Layer(
        under.haematoxylin + mask * (over.haematoxylin - under.haematoxylin),
        under.eosin + mask * (over.eosin - under.eosin),
        under.nuclei.where(field.at(mask, under.nuclei.points) < 0.5)
        + over.nuclei.where(field.at(mask, over.nuclei.points) >= 0.5),
    )


def bodies(
    field: Field,
    points: npt.NDArray[np.float64],
    *,
    shape: tuple[tuple[float, float], tuple[float, float]],
    haematoxylin: tuple[float, float],
    eosin: float = 0.12,
    vesicular: tuple[float, float] = (0.0, 0.3),
    rough: float = 0.06,
    angle: npt.ArrayLike | None = None,
) -> Nuclei:
    """Return one body per point; pairs are (low, high) of uniform draws, in `shape` of mean semi-axis and stretch."""
    size, stretch = shape
    n, rng = len(points), field.rng
    radius, longer = rng.uniform(*size, n), np.sqrt(rng.uniform(*stretch, n))
    return Nuclei(
        points,
        radius * longer,
        radius / longer,
        rng.uniform(0, np.pi, n) if angle is None else np.asarray(angle, np.float64) + rng.normal(0, 0.12, n),
        rng.uniform(*haematoxylin, n),
        np.full(n, eosin),
        rng.uniform(*vesicular, n),
        np.full(n, rough),
    )


def no_nuclei() -> Nuclei:
    """Return an empty set of bodies."""
    return Nuclei(np.zeros((0, 2)), *(np.zeros(0) for _ in range(7)))


def lymphocytes(field: Field, points: npt.NDArray[np.float64]) -> Nuclei:
    """Return small, round, very dark nuclei of about 7 um."""
    return bodies(field, points, shape=((5.6, 7.1), (1.0, 1.25)), haematoxylin=(1.15, 1.7), vesicular=(0.0, 0.45))


def stroma(field: Field) -> Layer:
    """Return wavy fibrous tissue."""
    return fibres(field, field.flow(waviness=field.uniform(0.5, 1.5)))


def fibres(field: Field, flow: Flow) -> Layer:
    """Draw eosinophilic fibres with spindle nuclei along them; some of it loose and bluish."""
    loose = field.uniform(0, 1) ** 2
    bundle = field.noise_along(flow, length=60, width=field.uniform(6, 12))
    strand = field.noise_along(flow, length=24, width=field.uniform(1.8, 3.0))
    fibril = field.noise_along(flow, length=13, width=1.1)
    mottle = field.noise(5, octaves=3)
    body = 1 + 0.13 * bundle + 0.1 * strand + (0.13 + 0.12 * loose) * fibril + 0.1 * mottle
    eosin = field.uniform(0.5, 0.9) * (1 - 0.6 * loose) * body
    opening = bundle + 0.7 * strand + 0.5 * mottle
    level = -1.9 + 0.8 * loose - field.uniform(0, 0.8)
    cleft = ramp(opening, low=level, high=level - 0.5)
    blue = (0.05 + 0.24 * loose) * (1 + 0.2 * strand + 0.2 * fibril + 0.2 * mottle)
    points = field.scatter(field.uniform(19, 34), jitter=0.3)
    points = points[field.rng.random(len(points)) < 0.75]
    spindle = bodies(
        field,
        points,
        shape=((4.4, 7.0), (1.8, 5.5)),
        haematoxylin=(0.6, 1.2),
        eosin=0.35,
        vesicular=(0.2, 0.9),
        rough=0.14,
        angle=field.at(flow.angle, points),
    )
    fibre = np.maximum(eosin * (1 - 0.93 * cleft), 0.02)
    return Layer(np.maximum(blue * (1 - 0.85 * cleft), 0.0), fibre, spindle)


def epithelium(field: Field) -> Layer:
    """Draw crowded, large, irregular nuclei in a dusky cytoplasm, without lumina: a solid tumour nest."""
    cloud = field.noise(11, octaves=3)
    eosin = field.uniform(0.42, 0.7) * (1 + 0.16 * cloud)
    blue = field.uniform(0.2, 0.4) * (1 + 0.2 * field.noise(9, octaves=3))
    spacing = field.uniform(18.5, 26)
    points = field.scatter(spacing, jitter=0.17)
    turn = field.rng.uniform(0, np.pi) + 0.9 * field.noise(60)
    mean = spacing * field.uniform(0.4, 0.5)
    cells = bodies(
        field,
        points,
        shape=((mean * 0.72, mean * 1.28), (1.05, field.uniform(1.4, 2.4))),
        haematoxylin=(0.7, field.uniform(0.9, 1.7)),
        eosin=0.3,
        vesicular=(field.uniform(0.0, 0.6), 1.0),
        rough=0.15,
        angle=field.at(turn, points) + field.rng.normal(0, 0.3, len(points)),
    )
    return Layer(blue, eosin, cells)


def lumen(field: Field, layer: Layer, *, x: float, y: float, radius: float) -> Layer:
    """Return `layer` with a hole: pale, sharply lined by the apical border, at times with secretion."""
    distance = field.blob(x=x, y=y, radius=radius)
    hole = ramp(distance, low=1.5, high=-1.5)
    border = np.exp(-(((distance - 2.0) / 2.2) ** 2))
    fill = field.uniform(0.0, 0.25) * np.maximum(0.6 + 0.5 * field.noise(12, octaves=2), 0)
    eosin = layer.eosin * (1 + 0.3 * border)
    return Layer(
        layer.haematoxylin * (1 - hole) + 0.3 * fill * hole,
        eosin * (1 - hole) + fill * hole,
        layer.nuclei.where(field.at(distance, layer.nuclei.points) > 7),
    )


def infiltrate(field: Field, layer: Layer, *, reach: float = 0.0) -> Layer:
    """Return `layer` with lymphocytes strewn over it in clouds; with a negative `reach` only a few."""
    points = field.scatter(field.uniform(14, 22), jitter=0.3)
    cloud = field.noise(45) + np.float32(field.uniform(-1.4, 0.4) + reach)
    points = points[field.rng.random(len(points)) < ramp(field.at(cloud, points), low=-0.5, high=1.0)]
    return Layer(layer.haematoxylin, layer.eosin, layer.nuclei + lymphocytes(field, points))


def dust(field: Field, *, spacing: float, clumped: float) -> Nuclei:
    """Return fragments of dead nuclei, gathered in clouds."""
    points = field.scatter(spacing, jitter=0.4)
    points = points[field.at(field.noise(28), points) > clumped]
    return bodies(
        field,
        points,
        shape=((0.9, 3.4), (1.0, 2.2)),
        haematoxylin=(0.5, 1.5),
        eosin=0.35,
        rough=0.25,
    )


def necrosis(field: Field) -> Layer:
    """Draw smudged, granular, eosinophilic dead tissue with nuclear dust and ghosts of nuclei."""
    smudge = field.noise(22, octaves=4)
    grain = field.noise(3.2, octaves=2)
    eosin = field.uniform(0.3, 0.65) * (1 + 0.3 * smudge + 0.12 * grain)
    blue = field.uniform(0.08, 0.3) * (1 + 0.35 * field.noise(18, octaves=4))
    gap = ramp(smudge, low=-1.1, high=-1.8)
    ghosts = bodies(
        field,
        field.scatter(34, jitter=0.3),
        shape=((5, 9), (1.0, 1.8)),
        haematoxylin=(0.3, 0.7),
        eosin=0.4,
        vesicular=(0.0, 0.4),
        rough=0.2,
    )
    fragments = dust(field, spacing=field.uniform(7, 12), clumped=field.uniform(0.2, 1.0))
    return Layer(np.maximum(blue * (1 - 0.8 * gap), 0), np.maximum(eosin * (1 - 0.85 * gap), 0), ghosts + fragments)


def mucus(field: Field) -> Layer:
    """Draw pale bluish mucus in strands with flecks, red cells and a few dead nuclei."""
    flow = field.flow(waviness=field.uniform(0.8, 2.0))
    strand = field.noise_along(flow, length=55, width=5)
    thread = field.noise_along(flow, length=30, width=1.7)
    haze = field.noise(30, octaves=3)
    line = np.exp(-((thread / 0.22) ** 2)) * ramp(strand, low=-0.3, high=0.9)
    blue = field.uniform(0.1, 0.22) * (1 + 0.25 * haze + 0.25 * strand) + 0.1 * line
    eosin = field.uniform(0.08, 0.24) * (1 + 0.3 * haze + 0.25 * thread) + 0.16 * line
    points = field.scatter(field.uniform(20, 40), jitter=0.4)
    flecks = bodies(
        field,
        points,
        shape=((1.5, 6.0), (1.3, 4.5)),
        haematoxylin=(0.1, 0.5),
        eosin=field.uniform(0.35, 0.9),
        rough=0.3,
        angle=field.at(flow.angle, points),
    )
    fragments = dust(field, spacing=14, clumped=0.8)
    return Layer(np.maximum(blue, 0), np.maximum(eosin, 0), flecks + fragments)


def shreds(field: Field) -> Layer:
    """Draw torn fibres with bare slide between them and hardly a nucleus."""
    flow = field.flow(waviness=field.uniform(0.6, 1.6))
    layer = fibres(field, flow)
    strips = field.noise_along(flow, length=90, width=field.uniform(10, 22))
    torn = strips + 0.55 * field.noise(26, octaves=4) + 0.2 * field.noise_along(flow, length=20, width=2.5)
    level = field.uniform(-0.8, 0.4)
    kept = layer.nuclei.where(field.rng.random(len(layer.nuclei)) < 0.4)
    dead = Layer(layer.haematoxylin, layer.eosin, kept)
    return mix(field, blank(field), dead, ramp(torn, low=level, high=level + 0.3))


def blank(field: Field) -> Layer:
    """Draw the bare slide: a trace of tint and a few specks of dust."""
    trace = np.maximum(0.004 + 0.004 * field.noise(50), 0).astype(np.float32)
    points = field.rng.uniform(0, FIELD, (int(field.rng.poisson(2.5)), 2))
    specks = bodies(field, points, shape=((0.6, 2.4), (1.0, 2.0)), haematoxylin=(0.02, 0.14), eosin=0.05, rough=0.3)
    return Layer(trace, trace * np.float32(0.8), specks)
