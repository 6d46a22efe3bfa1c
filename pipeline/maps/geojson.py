"""Write a class map as GeoJSON for QuPath: regions of one class as annotations, or one object per cell.

The structure is that of QuPath's own export (qupath.readthedocs.io, "Exporting annotations", and its class
`PathObject` as JSON since 0.4). A FeatureCollection has coordinates in level-0 px from the upper left corner of the
slide or, where the slide states bounds (MIRAX, SCN), of its scanned area, because QuPath crops it to that area.
`properties` hold `objectType`, `name`, `classification` (`name`, `color` as [r, g, b]), `measurements` (name ->
number) and `metadata` (name -> text), by which `prepare` recognises objects that nobody changed.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy import ndimage

from pipeline.annotations.geojson import COLON, MARK, prediction_mark, shapely
from pipeline.evaluation.validate import FloatArray, IntArray
from pipeline.maps.cells import REJECTED, ClassMap
from pipeline.runtime.console import visible
from pipeline.storage import atomic

Objects = Literal["regions", "tiles", "detections"]

KINDS: Mapping[Objects, str] = {"regions": "annotation", "tiles": "tile", "detections": "detection"}
"""Kind of object -> QuPath's objectType."""

REJECTED_CLASS, REJECTED_RGB = "rejected*", (128, 128, 128)
"""Class and colour of rejected cells. QuPath and `prepare` give no class to regions whose class ends with `*`."""

OTHERWISE = ", or pass --geojson tiles or none"
"""What a user without shapely can do."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """Cells of one class that become one object."""

    code: int
    """Code of the class, or `REJECTED`."""

    rings: list[list[list[int]]]
    """Closed rings of a GeoJSON Polygon in level-0 px, the outer one first."""

    n_cells: int
    area_mm2: float
    p: FloatArray
    """(K,) mean probabilities of the cells."""


def qupath_name(name: str) -> str:
    """Return a class's name in a form that QuPath accepts: one line, not empty, no colon."""
    return visible(name).replace(":", COLON).strip() or "(no name)"


def cell_shapes(class_map: ClassMap) -> Iterator[Shape]:
    """Yield each cell that has a class."""
    x, y, areas_mm2 = class_map.grid.x_edges, class_map.grid.y_edges, class_map.grid.areas_mm2
    for row, column in np.argwhere(_shown(class_map)):
        (left, right), (top, bottom) = x[column : column + 2].tolist(), y[row : row + 2].tolist()
        ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
        code = int(class_map.code[row, column])
        yield Shape(code, [ring], 1, float(areas_mm2[row, column]), class_map.p[row, column])


def region_shapes(class_map: ClassMap) -> Iterator[Shape]:
    """Yield each region: cells of one class that are connected by their edges.

    Raises:
        PipelineError: shapely is not installed.
    """
    geometry = shapely(OTHERWISE)
    x, y, areas_mm2 = class_map.grid.x_edges, class_map.grid.y_edges, class_map.grid.areas_mm2
    for code in np.unique(class_map.code[_shown(class_map)]):
        member, n_regions = ndimage.label(class_map.code == code)
        row, start, stop = _runs(member > 0)
        boxes = geometry.box(x[start], y[row], x[stop], y[row + 1])
        region = member[row, start]
        order = np.argsort(region, kind="stable")
        bounds = np.searchsorted(region[order], np.arange(1, n_regions + 2))
        n_cells = np.bincount(member.ravel(), minlength=n_regions + 1)
        size = np.bincount(member.ravel(), areas_mm2.ravel(), n_regions + 1)
        inside = member > 0
        p = class_map.p[inside]
        sums = np.array([np.bincount(member[inside], p[:, k], n_regions + 1) for k in range(p.shape[1])])
        for i in range(n_regions):
            merged = geometry.union_all(boxes[order[bounds[i] : bounds[i + 1]]])
            merged = geometry.orient_polygons(geometry.simplify(merged, 0))  # no corners along straight edges
            rings = [
                [[int(left), int(top)] for left, top in ring.coords] for ring in (merged.exterior, *merged.interiors)
            ]
            yield Shape(int(code), rings, int(n_cells[i + 1]), float(size[i + 1]), sums[:, i + 1] / n_cells[i + 1])


def _shown(class_map: ClassMap) -> np.ndarray:
    """Return which cells become objects, (R, C) bool."""
    return np.asarray((class_map.code >= 0) | (class_map.code == REJECTED))


def _runs(mask: np.ndarray) -> tuple[IntArray, IntArray, IntArray]:
    """Return row, first column and column after the last of each run of True in the rows of a mask (R, C)."""
    padded = np.pad(mask.astype(np.int8), ((0, 0), (1, 1)))
    change = np.diff(padded, axis=1)
    row, start = np.nonzero(change == 1)
    _, stop = np.nonzero(change == -1)
    return row, start, stop


def write_geojson(
    path: Path,
    class_map: ClassMap,
    *,
    classes: Sequence[str],
    colours: Sequence[tuple[int, int, int]],
    objects: Objects,
    name: str,
    origin: tuple[int, int],
    about: Mapping[str, Any],
) -> int:
    """Write a map as GeoJSON, feature by feature, and return their number.

    Args:
        path: the file.
        class_map: the map.
        classes: K names.
        colours: K colours.
        objects: regions: connected cells of one class merged, as annotations; tiles, detections: one object per cell.
        name: first part of the name of every object, e.g. the head's.
        origin: x and y in level-0 px from which the coordinates count.
        about: facts about the map, written to the file's member "histoheads", which QuPath ignores.

    Raises:
        PipelineError: regions are requested and shapely is not installed.
    """
    n = 0
    x, y = origin
    with atomic.atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.write(f'{{"type": "FeatureCollection", "histoheads": {_json(about)}, "features": [')
        for shape in region_shapes(class_map) if objects == "regions" else cell_shapes(class_map):
            measurements = {"area mm^2": shape.area_mm2, "cells": shape.n_cells}
            measurements |= {f"p {label}": round(float(p), 6) for label, p in zip(classes, shape.p, strict=True)}
            is_rejected = shape.code == REJECTED
            label = REJECTED_CLASS if is_rejected else classes[shape.code]
            properties = {
                "objectType": KINDS[objects],
                "name": f"{name}: {label}",
                "classification": {
                    "name": qupath_name(label),
                    "color": list(REJECTED_RGB if is_rejected else colours[shape.code]),
                },
                "measurements": measurements,
            }
            rings = [[[left - x, top - y] for left, top in ring] for ring in shape.rings]
            properties["metadata"] = {MARK: prediction_mark(properties, rings)}
            geometry = {"type": "Polygon", "coordinates": rings}
            file.write(f"{',' if n else ''}\n")
            file.write(_json({"type": "Feature", "geometry": geometry, "properties": properties}))
            n += 1
        file.write("\n]}\n")
    return n


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True)
