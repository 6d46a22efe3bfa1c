"""Hold nuclei and other small bodies of the demo tissue, and paint them over it."""

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from pipeline.tiles.synthetic.texture import FIELD, Field, Floats


@dataclass
class Nuclei:
    """Nuclei and other small bodies, one entry each; later ones cover earlier ones.

    Attributes:
        points: (N, 2) centres as x, y.
        long, short: (N,) semi-axes in field units.
        angle: (N,) radians of the long axis.
        haematoxylin, eosin: (N,) optical density of the body.
        vesicular: (N,) 0 dense and smooth ... 1 pale with a dark rim, coarse chromatin, nucleolus.
        rough: (N,) relative irregularity of the outline.
    """

    points: npt.NDArray[np.float64]
    long: npt.NDArray[np.float64]
    short: npt.NDArray[np.float64]
    angle: npt.NDArray[np.float64]
    haematoxylin: npt.NDArray[np.float64]
    eosin: npt.NDArray[np.float64]
    vesicular: npt.NDArray[np.float64]
    rough: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.points)

    def where(self, keep: npt.NDArray[np.bool_]) -> "Nuclei":
        """Return the nuclei for which `keep` (N,) is True."""
        return Nuclei(*(getattr(self, f.name)[keep] for f in fields(self)))

    def __add__(self, other: "Nuclei") -> "Nuclei":
        both = (np.concatenate([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self))
        return Nuclei(*both)


def paint(field: Field, nuclei: Nuclei, *, haematoxylin: Floats, eosin: Floats) -> tuple[Floats, Floats]:
    """Return the two density maps (px, px) with `nuclei` laid over them."""
    scale = field.px / FIELD
    reach = nuclei.long * (1 + nuclei.rough) + 2.5
    seen = np.all((nuclei.points + reach[:, None] > 0) & (nuclei.points - reach[:, None] < FIELD), axis=1)
    speckle = field.noise(2.4, octaves=2)
    pad = 2 * int(np.ceil(float(reach.max(initial=0.0)) * scale)) + 4  # windows at the border reach outside
    canvas = [np.pad(m, pad, mode="wrap") for m in (haematoxylin, eosin, speckle)]
    large = reach > 12  # in two batches: a window has the size of the largest body of its batch
    for batch in (seen & large, seen & ~large):
        if batch.any():
            half = int(np.ceil(float(reach[batch].max()) * scale)) + 1
            _paint_batch(field, nuclei.where(batch), half=half, pad=pad, canvas=canvas)
    inside = np.s_[pad : pad + field.px, pad : pad + field.px]
    return canvas[0][inside], canvas[1][inside]


def _paint_batch(field: Field, nuclei: Nuclei, *, half: int, pad: int, canvas: list[Floats]) -> None:
    """Paint bodies into `canvas` (haematoxylin, eosin, speckle; padded): all windows computed at once."""
    scale, n = field.px / FIELD, len(nuclei)
    corner = np.floor(nuclei.points * scale).astype(np.intp) - half  # of each window, x and y in pixels
    side = 2 * half + 1

    def column(values: npt.NDArray[np.float64]) -> Floats:
        return values.astype(np.float32)[:, None, None]

    grid = np.arange(side) + 0.5
    dx = ((corner[:, :1] + grid) / scale - nuclei.points[:, :1]).astype(np.float32)[:, None, :]
    dy = ((corner[:, 1:] + grid) / scale - nuclei.points[:, 1:]).astype(np.float32)[:, :, None]
    c, s = np.cos(nuclei.angle), np.sin(nuclei.angle)
    u = dx * column(c / nuclei.long) + dy * column(s / nuclei.long)
    v = dy * column(c / nuclei.short) - dx * column(s / nuclei.short)
    r = np.sqrt(u * u + v * v) + np.float32(1e-3)
    cos, sin = u / r, v / r
    skew, lobes, shift = (column(k * nuclei.rough) for k in field.rng.normal(0, 1, (3, n)))
    outline = 1 + cos * (skew * sin + lobes * (2 * cos * cos - np.float32(1.5))) + shift * sin * np.float32(0.4)
    depth = (outline - r) * column(np.sqrt(nuclei.long * nuclei.short))  # field units inside the outline

    cover = np.clip(0.5 + depth * np.float32(1 / max(1.4, 1.2 / scale)), 0, 1)
    rim = 1 / (1 + (depth - np.float32(1.1)) ** 2)
    place_u, place_v = (column(k) for k in field.rng.uniform(-0.45, 0.45, (2, n)))
    spread = column(nuclei.long * nuclei.short / 5.0)
    nucleolus = 1 / (1 + ((u - place_u) ** 2 + (v - place_v) ** 2) * spread) ** 2
    density, vesicular = column(nuclei.haematoxylin), column(nuclei.vesicular)
    body = density * (1 + vesicular * (0.7 * rim + 0.8 * nucleolus - 0.66))
    grain = column(nuclei.haematoxylin * (0.07 + 0.15 * nuclei.vesicular))
    pink = column(nuclei.eosin)
    h, e, speckle = canvas
    for k, (x, y) in enumerate(corner + pad):
        window = np.s_[y : y + side, x : x + side]
        h[window] += cover[k] * (np.maximum(body[k] + grain[k] * speckle[window], 0.0) - h[window])
        e[window] += cover[k] * (pink[k] - e[window])
