"""Make small annotated slides: glass, and two textures that a network can learn."""

import json
from pathlib import Path
from typing import Any

import numpy as np

MPP = 0.5
BOX_A, BOX_B = (32, 32, 128, 224), (128, 32, 224, 224)
"""Left, top, right, bottom of the two textures in a slide of 256 px."""


def ring(left: float, top: float, right: float, bottom: float) -> list[list[float]]:
    """Return the closed outline of a box."""
    return [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]


def feature(name: Any, *rings: list[list[float]], **properties: Any) -> dict[str, Any]:
    """Return a polygon as QuPath exports it."""
    classification = {"name": name, "color": [200, 0, 0]} if isinstance(name, str) else name
    return {
        "type": "Feature",
        "id": "0d9a1c0e",
        "geometry": {"type": "Polygon", "coordinates": list(rings)},
        "properties": {"objectType": "annotation", "classification": classification, "isLocked": True} | properties,
    }


def box_of(name: Any, *box: float, **properties: Any) -> dict[str, Any]:
    """Return a rectangle as QuPath exports it."""
    return feature(name, ring(*box), **properties)


def write_features(path: Path, *features: Any) -> Path:
    """Write a FeatureCollection."""
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(features)}), encoding="utf-8")
    return path


def draw_slide(path: Path, *, seed: int, side: int = 256) -> Path:
    """Write a slide with the textures A (red, at `BOX_A`) and B (violet, at `BOX_B`) on glass."""
    from pipeline.slides.synthetic import write_pyramid

    rng = np.random.default_rng(seed)
    pixels = np.full((side, side, 3), 240, np.uint8)
    for (left, top, right, bottom), colour in ((BOX_A, (200, 90, 120)), (BOX_B, (110, 60, 160))):
        noise = rng.integers(-40, 40, (bottom - top, right - left, 3))
        pixels[top:bottom, left:right] = np.array(colour) + noise
    path.parent.mkdir(parents=True, exist_ok=True)
    write_pyramid(path, iter([pixels]), side=side, mpp=MPP)
    return path


def annotated_folder(folder: Path, *, n: int = 4) -> Path:
    """Make n slides s0.tif, s1.tif ... with s0.geojson ... next to them."""
    for i in range(n):
        slide = draw_slide(folder / f"s{i}.tif", seed=i)
        write_features(slide.with_suffix(".geojson"), box_of("A", *BOX_A), box_of("B", *BOX_B))
    return folder
