"""Draw rough annotations of a demo slide from its ground truth, as a hurried person would."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from pipeline.annotations.geojson import shapely
from pipeline.storage import atomic

KEPT_OFF = 0.6
"""Distance in cells of the truth that an outline keeps from the border of its region."""

ROUGHNESS = 1.2
"""Distance in cells by which an outline misses the shape of its region."""

LEAST_CELLS = 12
"""Least cells of the truth of a region that is drawn."""


def rough_outlines(code: np.ndarray, *, cell: int, most: int) -> list[tuple[int, Any]]:
    """Return the outlines of the largest regions of each class: (code, polygon in level-0 px).

    Args:
        code: class of each cell, (R, C); negative: nothing is drawn there.
        cell: side of a cell in level-0 px.
        most: most outlines of a class.
    """
    geometry = shapely()
    found = []
    for value in np.unique(code[code >= 0]):
        member, n = ndimage.label(code == value)
        sizes = np.bincount(member.ravel(), minlength=n + 1)[1:]
        for region in np.argsort(-sizes, kind="stable")[:most] + 1:
            if sizes[region - 1] < LEAST_CELLS:
                break
            rows, columns = np.nonzero(member == region)
            cells = geometry.box(columns * cell, rows * cell, (columns + 1) * cell, (rows + 1) * cell)
            shape = geometry.union_all(cells).buffer(-KEPT_OFF * cell, join_style="mitre")
            parts = [part.simplify(ROUGHNESS * cell) for part in geometry.get_parts(shape)]
            drawn = max((part for part in parts if not part.is_empty), key=lambda part: part.area, default=None)
            if drawn is not None:
                found.append((int(value), drawn))
    return found


def write_annotations(path: Path, outlines: list[tuple[int, Any]], classes: list[str]) -> None:
    """Write outlines as a GeoJSON file in the form of QuPath's export."""
    features = [
        {
            "type": "Feature",
            "geometry": json.loads(shapely().to_geojson(shape)),
            "properties": {"objectType": "annotation", "classification": {"name": classes[code]}},
        }
        for code, shape in outlines
    ]
    atomic.write_text(path, atomic.to_json({"type": "FeatureCollection", "features": features}))
