"""Read annotations with a class from GeoJSON, as QuPath exports it.

Read are polygons, multi-polygons and the polygons of geometry collections, with holes. QuPath exports ellipses as
polygons. The class is `properties.classification`: an object with `name` or `names`, or a text (before QuPath 0.4).
Points, lines, cells and detections are passed over.

QuPath (qupath.readthedocs.io, "Pixel classification") ignores classes whose names end with `*`. Here `Ignore*`, and any
other such class, takes tiles from all classes. `Region*` outlines a part of the slide and has no effect.
"""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.annotations.json_stream import read_features
from pipeline.errors import BadInput
from pipeline.runtime.console import visible
from pipeline.runtime.extras import import_library

MOST_AREAS = 200_000
"""Most annotations of a slide. More are cells that were not exported as cells."""

PASSED_OVER = ("cell", "detection", "tma_core", "root")
"""Kinds of objects without a region drawn by a person: `objectType`, or a word in the `id` before QuPath 0.3."""

OUTLINE = "Region*"
"""Class of an outline around a part of the slide."""

NO_EFFECT = (OUTLINE, "rejected*")
"""Classes without effect; the second one is that of cells that `predict --reject` gives no class."""

MARK = "histoheads prediction"
"""Entry of the metadata of an object of our maps: its class and its shape when it was written."""

FARTHEST = 1e9
"""Largest coordinate in px."""

COLON = "\N{RATIO}"
"""Replaces ':' in the names of classes in our maps, because QuPath reads `a: b` as the class b derived from a."""


def shapely(otherwise: str = "") -> Any:
    """Import shapely.

    Args:
        otherwise: what else the user can do.

    Raises:
        PipelineError: it is not installed.
    """
    return import_library("shapely", extra="slides", needed_for="a region or annotation of QuPath", otherwise=otherwise)


def is_class(name: str) -> bool:
    """Return whether tiles can have the class: its name does not end with `*`."""
    return not name.endswith("*")


@dataclasses.dataclass(frozen=True)
class Annotations:
    """The annotations of one file."""

    path: Path
    names: list[str]
    """Class of each, (N,)."""

    shapes: np.ndarray
    """Valid polygons and multi-polygons in px as the file counts them, (N,) objects of shapely."""

    passed_over: Mapping[str, int]
    """Reason -> number of objects without effect."""

    repaired: list[str]
    """Class and number of each self-intersecting annotation."""


def prediction_mark(properties: Mapping[str, Any], rings: Any) -> str:
    """Return the mark of an object of our maps: its class, its area and its bounds in px.

    QuPath keeps the metadata of an object that a person changes: then the mark is not that of the object any more.

    Args:
        properties: properties of the feature, with its class.
        rings: closed rings of its polygon, the outer one first.
    """
    areas = [
        abs(sum(x0 * y1 - x1 * y0 for (x0, y0, *_), (x1, y1, *_) in itertools.pairwise(ring))) / 2 for ring in rings
    ]
    x, y = ([corner[axis] for corner in rings[0]] for axis in (0, 1))
    bounds = " ".join(str(round(value)) for value in (min(x), min(y), max(x), max(y)))
    return f"{_class_name(properties)}: {round(2 * areas[0] - sum(areas))} px2 at {bounds}"


def read_annotations(path: Path, *, predicted: bool = False) -> Annotations:
    """Return the annotations of a GeoJSON file.

    Args:
        path: the file.
        predicted: also take objects of our maps that nobody changed.

    Raises:
        BadInput: not GeoJSON, damaged coordinates, no annotation with a class, or too many annotations.
    """
    geometry = shapely()
    names: list[str] = []
    shapes: list[Any] = []
    passed: Counter[str] = Counter()
    repaired: list[str] = []
    for number, feature in enumerate(_flat(path, read_features(path)), start=1):
        properties = feature.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        if kind := _passed_over(feature, properties):
            passed[kind] += 1
            continue
        try:
            shape = _polygons(geometry, feature.get("geometry"))
            is_ours = not predicted and _is_unchanged(feature, properties)
        except (
            ArithmeticError,
            ValueError,
            TypeError,
            IndexError,
            KeyError,
            AttributeError,
            geometry.errors.ShapelyError,
        ):
            raise BadInput(f"{path}: object {number} has damaged coordinates: export the annotations again") from None
        if shape is None:
            passed["points and lines"] += 1
            continue
        if is_ours:
            passed["of a map, which nobody changed"] += 1
            continue
        name = _class_name(properties)
        if name in NO_EFFECT or not name:
            passed[f"of {name}" if name else "without a class"] += 1
            continue
        if not shape.is_valid:
            shape = geometry.make_valid(shape, method="structure", keep_collapsed=False)
            repaired.append(f"{visible(name)} (object {number})")
        if not shape.area:
            passed["without an area"] += 1
            continue
        names.append(name)
        shapes.append(shape)
        if len(names) > MOST_AREAS:
            raise BadInput(
                f"{path}: more than {MOST_AREAS} annotations: these are cells, not regions: export annotations only"
            )
    if not names:
        found = ", ".join(f"{n} {what}" for what, n in passed.items()) or "no object"
        ours = passed["of a map, which nobody changed"]
        remedy = "correct them in QuPath, or pass --predicted-regions" if ours else "give each a class in QuPath"
        raise BadInput(f"{path}: no annotation has a class ({found}): {remedy}, and export again")
    return Annotations(path, names, np.array(shapes, dtype=object), dict(passed), repaired)


def _flat(path: Path, features: Iterator[Any]) -> Iterator[dict[str, Any]]:
    """Yield the features, those of nested collections too; a bare geometry counts as a feature.

    Raises:
        BadInput: an element is no object.
    """
    for feature in features:
        if not isinstance(feature, dict):
            raise BadInput(f"{path}: not GeoJSON: a feature is no object: export the annotations again")
        if isinstance(inner := feature.get("features"), list):
            yield from _flat(path, iter(inner))
        else:
            yield feature if "geometry" in feature else {"geometry": feature}


def _passed_over(feature: Mapping[str, Any], properties: Mapping[str, Any]) -> str:
    """Return the kind of an object without a drawn region, "" for an annotation."""
    kind = properties.get("objectType", properties.get("object_type", feature.get("id", "")))
    word = (
        str(kind).lower().removeprefix("path").removesuffix("object").replace(" ", "_").replace("tmacore", "tma_core")
    )
    return f"of kind {word}" if word in PASSED_OVER else ""


def _is_unchanged(feature: Mapping[str, Any], properties: Mapping[str, Any]) -> bool:
    """Return whether an object is one of our maps, with its class and shape as they were written."""
    metadata = properties.get("metadata")
    mark = metadata.get(MARK) if isinstance(metadata, dict) else None
    geometry = feature["geometry"]
    is_polygon = geometry["type"] == "Polygon"
    return mark is not None and is_polygon and mark == prediction_mark(properties, geometry["coordinates"])


def _class_name(properties: Mapping[str, Any]) -> str:
    """Return the class of an object, "" without one."""
    found = properties.get("classification")
    if isinstance(found, dict):
        found = found.get("names", found.get("name"))
    if isinstance(found, list):
        found = ": ".join(map(str, found))
    name = found if isinstance(found, str) else ""
    return " ".join(visible(name.replace(COLON, ":")).split())


def _polygons(geometry: Any, found: Any) -> Any:
    """Return a geometry of GeoJSON as a polygon or multi-polygon, which can be invalid; None for points and lines."""
    kind = found["type"]
    if kind == "Polygon":
        return _polygon(geometry, found["coordinates"])
    if kind == "MultiPolygon":
        return geometry.MultiPolygon([_polygon(geometry, rings) for rings in found["coordinates"]])
    if kind == "GeometryCollection":
        parts = [part for one in found["geometries"] if (part := _polygons(geometry, one)) is not None]
        return geometry.union_all([geometry.make_valid(part, method="structure") for part in parts]) if parts else None
    if kind not in ("Point", "MultiPoint", "LineString", "MultiLineString"):
        raise ValueError(kind)
    return None


def _polygon(geometry: Any, rings: Any) -> Any:
    """Return a polygon of closed or open rings, the outer one first."""
    corners = [[(float(corner[0]), float(corner[1])) for corner in ring] for ring in rings]
    if not all(abs(value) <= FARTHEST for ring in corners for corner in ring for value in corner):
        raise ValueError("too far, or not finite")
    return geometry.Polygon(corners[0], corners[1:])
