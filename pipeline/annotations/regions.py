"""Combine the annotation files of a slide into the region of each class."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.annotations.geojson import Annotations, shapely

Regions = Mapping[str, Any]
"""Class -> its region in level-0 px of the slide, a valid polygon or multi-polygon."""


def combine(files: Sequence[Annotations], *, origin: tuple[int, int]) -> Regions:
    """Return the region of each class, also of those that only take tiles away (`Ignore*`), sorted by name.

    Args:
        files: annotations of the slide; later ones win where they overlap with earlier ones.
        origin: x and y in level-0 px from which the files count (`Slide.bounds`).
    """
    geometry = shapely()
    regions: dict[str, Any] = {}
    for i, file in enumerate(files):
        names = np.array(file.names)
        own = {name: geometry.union_all(file.shapes[names == name]) for name in sorted(set(file.names))}
        if i:
            corrected = geometry.union_all(list(own.values()))
            regions = {name: geometry.difference(region, corrected) for name, region in regions.items()}
        for name, region in own.items():
            regions[name] = geometry.union(regions[name], region) if name in regions else region
    moved = {name: geometry.transform(region, lambda xy: xy + origin) for name, region in regions.items()}
    return {name: moved[name] for name in sorted(moved) if moved[name].area}


def parts_of(region: Any) -> list[Any]:
    """Return the polygons of a region."""
    return [part for part in shapely().get_parts(region) if part.geom_type == "Polygon" and part.area]
