"""Draw the eight classes of the demo set: each arranges its tissues in a field of view."""

import numpy as np
import numpy.typing as npt

from pipeline.tiles.synthetic.texture import FIELD, Field, Floats
from pipeline.tiles.synthetic.tissue import (
    Layer,
    bodies,
    epithelium,
    infiltrate,
    lumen,
    lymphocytes,
    mix,
    mucus,
    necrosis,
    no_nuclei,
    ramp,
    shreds,
    stroma,
)


def tumor(field: Field) -> Layer:
    """Draw glandular or cribriform tumour epithelium: nests with lumina, at times a strip of stroma."""
    layer = epithelium(field)
    for _ in range(max(field.pick(5) - 1, 0)):
        place = field.rng.uniform(-10, FIELD + 10, 2)
        layer = lumen(field, layer, x=place[0], y=place[1], radius=field.uniform(9, 26))
    if field.chance(0.4):
        strip = field.noise(70, octaves=4) + np.float32(field.uniform(-1.8, -0.9))
        layer = mix(field, layer, stroma(field), ramp(strip, low=-0.06, high=0.06))
    return infiltrate(field, layer, reach=-0.9) if field.chance(0.2) else layer


def fibrous(field: Field) -> Layer:
    """Draw plain stroma, at times with a few inflammatory cells: the border to the mixed class is not sharp."""
    layer = stroma(field)
    return infiltrate(field, layer, reach=-1.2) if field.chance(0.2) else layer


def mixed(field: Field) -> Layer:
    """Draw stroma with a few tumour nests, with lymphocytes, or with both."""
    layer = stroma(field)
    nests, cells = ((True, False), (False, True), (True, True))[field.pick(3)]
    if nests:
        island = field.noise(field.uniform(30, 55), octaves=3) - np.float32(field.uniform(0.0, 0.8))
        layer = mix(field, layer, epithelium(field), ramp(island, low=-0.07, high=0.07))
    return infiltrate(field, layer, reach=0.6) if cells else layer


def lympho(field: Field) -> Layer:
    """Draw a carpet of lymphocytes, tightly packed to loose."""
    spacing = field.uniform(12.2, 17.5)
    points = field.scatter(spacing, jitter=0.14)
    thin = field.noise(40)
    points = points[field.rng.random(len(points)) < 0.97 - 0.25 * ramp(field.at(thin, points), low=0.6, high=1.6)]
    haze = field.noise(7, octaves=3)
    eosin = field.uniform(0.04, 0.5) * (1 + 0.3 * haze)
    blue = field.uniform(0.06, 0.32) * (1 + 0.3 * field.noise(10, octaves=2))
    cells = lymphocytes(field, points)
    large = field.rng.random(len(cells)) < field.uniform(0.0, 0.12)
    cells.long[large] *= 1.35
    cells.short[large] *= 1.35
    cells.vesicular[large] = 0.9
    layer = Layer(np.maximum(blue, 0.0), np.maximum(eosin, 0.0), cells)
    if field.chance(0.35):
        strip = field.noise(55, octaves=3) - np.float32(field.uniform(0.8, 1.6))
        layer = mix(field, layer, stroma(field), ramp(strip, low=-0.1, high=0.1))
    return layer


def debris(field: Field) -> Layer:
    """Draw necrosis, mucus or torn fibres; often two of them in one tile."""
    kinds = (necrosis, mucus, shreds)
    first = field.pick(3)
    second = (first + int(field.rng.integers(1, 3))) % 3
    layer = kinds[first](field)
    if field.chance(0.4):
        border = field.noise(60, octaves=3) - np.float32(field.uniform(-0.3, 0.9))
        layer = mix(field, layer, kinds[second](field), ramp(border, low=-0.3, high=0.3))
    return layer


def mucosa(field: Field) -> Layer:
    """Draw round or oval glands (goblet cells around a lumen, nuclei at the base) in a lamina propria."""
    rng = field.rng
    spacing = field.uniform(115, 185)
    warp_x, warp_y = field.noise(45) * np.float32(4), field.noise(45) * np.float32(4)
    centres = field.scatter(spacing, jitter=0.06, margin=90)
    oval, turn = np.sqrt(field.uniform(1.0, 1.45)), field.rng.uniform(0, np.pi)
    c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    dx = np.stack([field.x + warp_x - x for x in centres[:, 0].astype(np.float32)])
    dy = np.stack([field.y + warp_y - y for y in centres[:, 1].astype(np.float32)])
    # Gland coordinates: rotated and scaled so that an oval gland is a circle.
    u, v = (dx * c + dy * s) / np.float32(oval), (dy * c - dx * s) * np.float32(oval)
    nearest = np.argmin(u * u + v * v, axis=0)[None]
    u, v = np.take_along_axis(u, nearest, 0)[0], np.take_along_axis(v, nearest, 0)[0]
    gland, rho = nearest[0], np.hypot(u, v)

    radius = spacing * field.uniform(0.4, 0.47)
    inner = radius * field.uniform(0.08, 0.4)
    if field.chance(0.35):
        crypt = tangential_cut(field)
    else:
        crypt = columnar_cells(field, gland=gland, rho=rho, phi=np.arctan2(v, u), radius=radius, inner=inner)

    n_basal = round(2 * np.pi * radius / field.uniform(8, 11))
    owner = np.repeat(np.arange(len(centres)), n_basal)
    phi = np.tile(np.arange(n_basal) * (2 * np.pi / n_basal), len(centres))
    phi += rng.normal(0, 1.6 / n_basal, len(phi))
    base = radius - rng.uniform(4.5, 9.5, len(phi))
    u_basal, v_basal = base * np.cos(phi) * oval, base * np.sin(phi) / oval
    points = centres[owner] + np.stack([u_basal * c - v_basal * s, u_basal * s + v_basal * c], axis=1)
    points -= np.stack([field.at(warp_x, points), field.at(warp_y, points)], axis=1)
    basal = bodies(
        field,
        points,
        shape=((4.6, 6.4), (1.2, 2.4)),
        haematoxylin=(0.85, 1.4),
        eosin=0.25,
        vesicular=(0.0, 0.6),
        angle=phi + turn,
    ).where(field.at(gland, points) == owner)

    between = lamina_propria(field)
    between.nuclei = between.nuclei.where(field.at(rho, between.nuclei.points) > radius + 4)
    slit = np.exp(-((rho - np.float32(radius + 1.2)) ** 2)) * ramp(field.noise(40), low=0.9, high=1.6)
    between.haematoxylin, between.eosin = between.haematoxylin * (1 - slit), between.eosin * (1 - slit)
    both = mix(field, between, crypt, ramp(rho, low=radius + 0.8, high=radius - 0.8))
    return Layer(both.haematoxylin, both.eosin, between.nuclei + basal)


def columnar_cells(
    field: Field, *, gland: npt.NDArray[np.intp], rho: Floats, phi: Floats, radius: float, inner: float
) -> Layer:
    """Draw wedge-shaped cells around a lumen, some of them goblet cells filled with pale mucin.

    `gland`, `rho`, `phi` (px, px): number of the nearest gland and polar coordinates in it.
    """
    rng = field.rng
    n_cells = round(2 * np.pi * 0.62 * radius / field.uniform(18, 32))
    n_all = (int(gland.max()) + 1) * n_cells
    phase = gland.astype(np.float32)  # no two glands alike
    turns = (phi / np.float32(2 * np.pi) + 1 + phase * np.float32(0.37)) % 1
    place = turns * np.float32(n_cells) + np.float32(0.2) * np.sin(rho * np.float32(0.12) + phase)
    cell = gland * n_cells + np.floor(place).astype(np.intp) % n_cells
    across = 2 * np.abs(place % 1 - np.float32(0.5))  # 0 in the middle of a cell .. 1 at its walls
    height = (np.float32(radius) - rho) / np.float32(radius - inner)  # 0 base .. 1 apex
    width = np.float32(np.pi / n_cells) * rho  # half a cell, in field units

    def per_cell(low: float, high: float) -> Floats:
        return np.asarray(rng.uniform(low, high, n_all).astype(np.float32)[cell])

    goblet = (per_cell(0, 1) < field.uniform(0.4, 1.1)).astype(np.float32)
    belly = (across / np.float32(0.9)) ** 2 + np.abs((height - per_cell(0.5, 0.64)) / per_cell(0.3, 0.4)) ** 2.6
    vacuole = goblet * ramp(belly, low=1.15, high=0.85)
    skin = goblet * np.exp(-(((belly - 1.1) / 0.16) ** 2))
    wall = np.exp(-(((1 - across) * width / np.float32(1.3)) ** 2))
    hole = ramp(rho, low=inner + 1.5, high=inner - 1.5)

    fine = field.noise(3.0, octaves=2)
    blue = field.uniform(0.16, 0.36) * (1 + 0.2 * field.noise(8, octaves=2)) + 0.12 * wall + 0.08 * skin
    eosin = field.uniform(0.3, 0.55) * (1 + 0.15 * fine) + 0.16 * wall + 0.1 * skin
    blue += vacuole * (per_cell(0.05, 0.2) * (1 + 0.2 * fine) - blue)
    eosin += vacuole * (per_cell(0.05, 0.14) * (1 + 0.2 * fine) - eosin)
    return Layer(blue * (1 - hole) + 0.03 * hole, eosin * (1 - hole) + 0.03 * hole, no_nuclei())


def tangential_cut(field: Field) -> Layer:
    """Draw gland cells seen end on: a mosaic of round goblets in a net of cytoplasm."""
    spacing = field.uniform(24, 36)
    centres = field.scatter(spacing, jitter=0.13, margin=spacing).astype(np.float32)
    x, y = field.x + field.noise(20) * np.float32(1.5), field.y + field.noise(20) * np.float32(1.5)
    square = np.stack([(x - cx) ** 2 + (y - cy) ** 2 for cx, cy in centres])
    cell = np.argmin(square, axis=0)
    near = np.partition(square, 1, axis=0)[:2]
    middle = np.sqrt(near[0])
    wall = np.minimum(np.sqrt(near[1]) - middle, 2 * (np.float32(0.5 * spacing) - middle))  # rounded corners
    thickness = field.rng.uniform(1.0, 9.0, len(centres)).astype(np.float32)[cell]
    vacuole = ramp(wall - thickness, low=-1.0, high=2.0)
    fine = field.noise(3.0, octaves=2)
    slime = field.rng.uniform(0.05, 0.3, len(centres)).astype(np.float32)[cell]
    blue = field.uniform(0.25, 0.45) * (1 + 0.2 * field.noise(8, octaves=2))
    eosin = field.uniform(0.35, 0.6) * (1 + 0.15 * fine)
    blue += vacuole * (slime * (1 + 0.25 * fine) - blue)
    eosin += vacuole * (0.5 * slime * (1 + 0.25 * fine) + 0.03 - eosin)
    return Layer(blue, eosin, no_nuclei())


def lamina_propria(field: Field) -> Layer:
    """Draw loose, pale connective tissue with lymphocytes and plasma cells."""
    cloud = field.noise(14, octaves=3)
    gap = ramp(cloud, low=-0.3, high=-1.2)
    eosin = field.uniform(0.25, 0.5) * (1 + 0.25 * cloud) * (1 - 0.85 * gap)
    blue = field.uniform(0.06, 0.2) * (1 + 0.3 * field.noise(9, octaves=2)) * (1 - 0.85 * gap)
    points = field.scatter(field.uniform(13, 20), jitter=0.25)
    points = points[field.rng.random(len(points)) < 0.7]
    return Layer(np.maximum(blue, 0), np.maximum(eosin, 0), lymphocytes(field, points))


def adipose(field: Field) -> Layer:
    """Draw large empty fat cells between thin membranes, a few flattened nuclei, at times a septum."""
    rng = field.rng
    centres = field.scatter(field.uniform(85, 150), jitter=0.16, margin=110)
    x = field.x + 5 * field.noise(55) + 1.2 * field.noise(12)
    y = field.y + 5 * field.noise(55) + 1.2 * field.noise(12)
    distance = np.sort(np.stack([np.hypot(x - cx, y - cy) for cx, cy in centres.astype(np.float32)]), axis=0)
    edge = (distance[1] - distance[0]) / 2  # about the distance to the membrane
    corner = ramp(distance[2] - distance[0], low=field.uniform(5, 16), high=3) * (1 + 0.25 * field.noise(6, octaves=2))

    width = 0.8 + field.uniform(2, 12) * ramp(field.noise(50), low=-0.3, high=1.4)
    sheet = ramp(edge - width, low=0.9, high=-0.9)
    border = np.exp(-(((edge - width) / 0.9) ** 2))
    seam = np.exp(-((edge / 1.2) ** 2)) * ramp(field.noise(30), low=-0.5, high=1.2)
    dense = field.uniform(0.4, 1.6)
    pink = sheet * (0.09 * dense * (1 + 0.2 * field.noise(9, octaves=2))) + 0.08 * border + 0.3 * dense * seam
    eosin = 0.008 + pink + corner * 0.28 * dense
    blue = 0.006 + 0.05 * sheet + 0.05 * border + 0.28 * seam + corner * 0.14 * dense

    d_y, d_x = np.gradient(edge)
    points = field.scatter(13, jitter=0.3)
    wanted = field.uniform(0.08, 0.7)
    aside = field.at(edge, points)  # not on the ridge itself, where the gradient has no direction
    points = points[(aside > 1.0) & (aside < 2.8) & (rng.random(len(points)) < wanted)]
    flat = bodies(
        field,
        points,
        shape=((3.4, 5.0), (2.0, 5.5)),
        haematoxylin=(0.7, 1.3),
        eosin=0.3,
        angle=field.at(np.arctan2(-d_x, d_y), points),
    )
    layer = Layer(np.maximum(blue, 0), np.maximum(eosin, 0), flat)
    if field.chance(0.25):
        septum = field.noise(75, octaves=4) - np.float32(field.uniform(0.5, 1.5))
        layer = mix(field, layer, stroma(field), ramp(septum, low=-0.08, high=0.08))
    return layer
