"""Draw noise, fibre flow and scattered points, the parts of the demo tissue.

Lengths are in field units: a tile always shows a field of 150 units (0.495 um each), however many
pixels it has, so that a 64 px tile is the same tissue as a 150 px one at a lower resolution.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

FIELD = 150.0
"""Side of the field of view in field units."""

SPREAD = 1.0
"""Part of the range of a property that the tiles of one source and class cover."""

_LATTICE = 128
"""Side of the periodic lattice of random values behind the strands of fibrous tissue."""


class Flow(NamedTuple):
    """Curved coordinates of fibrous tissue and the direction (radians) of the fibres at each pixel."""

    along: Floats
    across: Floats
    angle: Floats


class Field:
    """The pixel grid of one tile in field units, and its random numbers.

    Attributes:
        px: Side of the tile in pixels.
        x, y: (px, px) float32, pixel centres in field units.
        rng: The tile's own generator of random places.
    """

    def __init__(self, px: int, *, rng: np.random.Generator, habit: np.random.Generator) -> None:
        """Take the tile's generator and that of its patient's `habit`, the same for all tiles of a kind."""
        self.px = px
        self.rng = rng
        self._habit = habit
        axis = ((np.arange(px) + 0.5) * (FIELD / px)).astype(np.float32)
        self.axis = axis
        self.x, self.y = np.meshgrid(axis, axis)

    def uniform(self, low: float, high: float) -> float:
        """Return a uniform random property of the tissue: similar in the tiles of one source and class.

        Over many sources the draw is uniform; within a source it covers a part of the range, because the
        tiles of a patient are similar to each other.
        """
        u = abs(self._habit.random() + SPREAD * (self.rng.random() - 0.5))
        return low + (high - low) * (1 - abs(1 - u))  # mirrored at both ends of the range

    def chance(self, probability: float) -> bool:
        """Return True with this probability, but more often in some sources than in others."""
        return self.uniform(0, 1) < probability

    def pick(self, n: int) -> int:
        """Return a number in range(n), the same in most tiles of one source and class."""
        return min(int(self.uniform(0, n)), n - 1)

    def noise(self, cell: float, *, octaves: int = 1) -> Floats:
        """Return smooth noise, (px, px) float32, mean 0, standard deviation about 1.

        `cell` is the size of its grains; every further octave halves it at half the amplitude. A
        quadratic B-spline over white noise (standard deviation 0.55) is separable: three taps per
        axis, and no BLAS, so the result does not depend on the number of threads.
        """
        total = np.zeros((self.px, self.px), np.float32)
        for octave in range(octaves):
            position = self.axis / np.float32(cell / 2**octave)
            base = np.floor(position + 0.5)
            t = (position - base)[:, None]
            base = base.astype(np.intp)
            taps = (0.5 * (0.5 - t) ** 2, 0.75 - t * t, 0.5 * (0.5 + t) ** 2)
            n = int(np.ceil(FIELD / cell * 2**octave)) + 3
            values = self.rng.standard_normal((n, n), dtype=np.float32)
            for _ in range(2):  # rows, then columns
                down = taps[0] * values[base] + taps[1] * values[base + 1] + taps[2] * values[base + 2]
                values = np.ascontiguousarray(down.T)
            total += values * np.float32(0.5**octave)
        return total * np.float32(1 / 0.55 / np.sqrt(sum(0.25**k for k in range(octaves))))

    def noise_along(self, flow: Flow, *, length: float, width: float) -> Floats:
        """Return noise in the curved coordinates of `flow`: strands of this length and width."""
        lattice = self.rng.standard_normal(_LATTICE * _LATTICE, dtype=np.float32)
        across, along = flow.across / np.float32(width), flow.along / np.float32(length)
        row, column = np.floor(across), np.floor(along)
        t, s = across - row, along - column
        row, column = row.astype(np.intp), column.astype(np.intp)
        t, s = t * t * (3 - 2 * t), s * s * (3 - 2 * s)
        wrap = _LATTICE - 1  # a power of two less one: the lattice is periodic
        upper, lower = (row & wrap) * _LATTICE, ((row + 1) & wrap) * _LATTICE
        left, right = column & wrap, (column + 1) & wrap
        above = lattice[upper + left] * (1 - s) + lattice[upper + right] * s
        below = lattice[lower + left] * (1 - s) + lattice[lower + right] * s
        values: Floats = (above + (below - above) * t) * np.float32(1 / 0.743)
        return values

    def flow(self, *, waviness: float) -> Flow:
        """Return wavy fibre coordinates: straight ones in a random direction, bent by smooth noise."""
        turn = self.rng.uniform(0, np.pi)
        bend = self.noise(75) * np.float32(9 * waviness) + self.noise(28) * np.float32(2.4 * waviness)
        along = self.x * np.float32(np.cos(turn)) + self.y * np.float32(np.sin(turn))
        across = self.y * np.float32(np.cos(turn)) - self.x * np.float32(np.sin(turn)) + bend
        d_y, d_x = np.gradient(across)
        return Flow(along + self.noise(50) * np.float32(5 * waviness), across, np.arctan2(-d_x, d_y))

    def blob(self, *, x: float, y: float, radius: float, rough: float = 0.25) -> Floats:
        """Return the signed distance (negative inside) to an irregular round outline."""
        wobble = self.noise(radius * 0.9) * np.float32(rough * radius)
        distance: Floats = np.hypot(self.x - np.float32(x), self.y - np.float32(y)) - np.float32(radius) + wobble
        return distance

    def scatter(self, spacing: float, *, jitter: float, margin: float = 15) -> npt.NDArray[np.float64]:
        """Return points (N, 2) as x, y on a turned, jittered hexagonal lattice, `margin` over the edges."""
        n = int(np.ceil((FIELD + 2 * margin) * 0.82 / spacing)) + 1  # rows are 0.866 apart: half diagonal
        i, j = np.meshgrid(np.arange(-n, n + 1), np.arange(-n, n + 1))
        points = np.stack([i + 0.5 * (j % 2), j * 0.866], axis=-1).reshape(-1, 2) * spacing
        turn = self.rng.uniform(0, np.pi)
        c, s = np.cos(turn), np.sin(turn)
        points = np.stack([points[:, 0] * c - points[:, 1] * s, points[:, 0] * s + points[:, 1] * c], axis=1)
        points += FIELD / 2 + self.rng.uniform(-spacing, spacing, 2)
        points += self.rng.normal(0, jitter * spacing, points.shape)
        return points[np.all((points > -margin) & (points < FIELD + margin), axis=1)]

    def at(self, values: Floats, points: npt.NDArray[np.float64]) -> Floats:
        """Return `values` (px, px) at `points` (N, 2), the nearest pixel for points outside."""
        index = np.clip((points * (self.px / FIELD)).astype(np.intp), 0, self.px - 1)
        return values[index[:, 1], index[:, 0]]
