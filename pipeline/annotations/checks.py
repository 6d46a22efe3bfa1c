"""Check annotations against their slide: coordinates in micrometres, files of another slide, overlaps, small ones."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.annotations.geojson import Annotations, is_class, shapely
from pipeline.annotations.regions import Regions, parts_of
from pipeline.errors import BadInput
from pipeline.runtime.console import list_names
from pipeline.slides.base import Slide, Thumbnail
from pipeline.slides.grid import Squares
from pipeline.tiles.audit.finding import Finding

MOST_OUTSIDE = 0.5
"""Largest share of the annotated area outside of the slide."""

LEAST_OUTSIDE = 0.001
"""Share of the annotated area outside of the slide from which there is a finding."""

LOW_TISSUE, HIGH_TISSUE = 0.85, 0.9
"""Coordinates are in micrometres if they, taken as px, cover at most the first share of tissue, and divided by the
um/px at least the second."""

SAMPLES = 300
"""Points along the longer side of a slide at which tissue and annotations are compared."""

LEAST_OVERLAP = 0.01
"""Overlap of two classes, as a share of a tile, from which there is a finding."""


@dataclasses.dataclass(frozen=True)
class SlideFacts:
    """What the audit reports about the annotations of a slide."""

    name: str
    classes: list[str]
    overlaps: Mapping[tuple[str, str], float]
    """Two classes -> area in mm2 that is annotated with both."""

    outside: float
    """Share of the annotated area outside of the slide."""

    n_small: int
    """Annotations with less area than a tile needs."""

    repaired: list[str]
    passed_over: Mapping[str, int]
    corrected: Mapping[str, int]
    """changed, new, removed -> tiles whose class the later annotation files change."""


def check_place(slide: Slide, thumbnail: Thumbnail, tissue: np.ndarray, regions: Regions, *, force: bool) -> float:
    """Return the share of the annotated area that is outside of the slide.

    Args:
        slide: open.
        thumbnail: thumbnail of the slide.
        tissue: (h, w) bool, tissue on the thumbnail.
        regions: regions of the classes in level-0 px.
        force: use coordinates that look like micrometres.

    Raises:
        BadInput: the coordinates are micrometres, or most of the area is outside of the slide.
    """
    geometry = shapely()
    everything = geometry.union_all(list(regions.values()))
    width, height = slide.dimensions
    outside = 1 - geometry.intersection(everything, geometry.box(0, 0, width, height)).area / everything.area
    as_px = _tissue_share(everything, thumbnail, tissue, 1.0)
    as_um = _tissue_share(everything, thumbnail, tissue, slide.mpp)
    right, bottom = everything.bounds[2:]
    fits = max(right / width, bottom / height) <= slide.mpp
    if not force and fits and (outside > MOST_OUTSIDE or as_px <= LOW_TISSUE) and as_um >= HIGH_TISSUE:
        raise BadInput(
            f"{slide.path}: its annotations are in micrometres: divided by {slide.mpp:.4g} um/px {as_um:.0%} is "
            f"tissue, taken as px {as_px:.0%}: export them in px, or pass --force if "
            "they are px"
        )
    if outside > MOST_OUTSIDE:
        raise BadInput(
            f"{slide.path}: {outside:.0%} of the annotated area is outside of its {width}x{height} px (it reaches to "
            f"{right:.0f}, {bottom:.0f}): the annotations are those of another slide"
        )
    return float(outside)


def _tissue_share(region: object, thumbnail: Thumbnail, tissue: np.ndarray, um_per_px: float) -> float:
    """Return the share of tissue in a region whose coordinates are px times `um_per_px`; 0 where no point is in it."""
    step = max(1, max(tissue.shape) // SAMPLES)
    rows, columns = (np.arange(step // 2, length, step) for length in tissue.shape)
    x, y = ((axis.ravel() + 0.5) * thumbnail.downsample * um_per_px for axis in np.meshgrid(columns, rows))
    inside = shapely().contains_xy(region, x, y)
    return float(tissue[np.ix_(rows, columns)].ravel()[inside].mean()) if inside.any() else 0.0


def slide_facts(
    name: str,
    files: Sequence[Annotations],
    regions: Regions,
    *,
    mpp: float,
    squares: Squares,
    least_px2: float,
    outside: float,
    corrected: Mapping[str, int],
) -> SlideFacts:
    """Return the facts about a slide's annotations.

    Args:
        name: the slide's name.
        files: its annotations.
        regions: regions of the classes in level-0 px.
        mpp: um per level-0 px.
        squares: size of the tiles.
        least_px2: least area of a tile's annotation in level-0 px.
        outside: as from `check_place`.
        corrected: see `SlideFacts`.
    """
    geometry = shapely()
    overlaps = {}
    for one, other in itertools.combinations(filter(is_class, regions), 2):
        area = geometry.intersection(regions[one], regions[other]).area
        if area > LEAST_OVERLAP * squares.side**2:
            overlaps[one, other] = area * mpp**2 / 1e6
    return SlideFacts(
        name=name,
        classes=[label for label in regions if is_class(label)],
        overlaps=overlaps,
        outside=outside,
        n_small=sum(part.area < least_px2 for region in regions.values() for part in parts_of(region)),
        repaired=[f"{file.path.name}: {what}" for file in files for what in file.repaired],
        passed_over={
            what: sum(file.passed_over.get(what, 0) for file in files) for file in files for what in file.passed_over
        },
        corrected=corrected,
    )


def annotation_findings(facts: Sequence[SlideFacts]) -> list[Finding]:
    """Return findings on the annotations of all slides."""
    lines = {
        "annotations of different classes overlap, where few tiles get a class": [
            f"{one.name} {a} and {b} {mm2:.3g} mm2" for one in facts for (a, b), mm2 in one.overlaps.items()
        ],
        "annotations reach out of the slide": [
            f"{one.name} {one.outside:.1%} of their area" for one in facts if one.outside >= LEAST_OUTSIDE
        ],
        "annotations are too small for a tile": [f"{one.name} {one.n_small}" for one in facts if one.n_small],
        "self-intersecting annotations were repaired": [what for one in facts for what in one.repaired],
    }
    slides_of: dict[str, list[str]] = {}
    for one in facts:
        for label in one.classes:
            slides_of.setdefault(label, []).append(one.name)
    lines["classes are annotated in one slide only"] = [
        f"{label} in {names[0]}" for label, names in sorted(slides_of.items()) if len(names) == 1
    ]
    findings = [Finding("warning", f"{what}: {list_names(shown)}", []) for what, shown in lines.items() if shown]
    notes = {
        "objects of the annotation files have no effect": [
            f"{one.name} {n} {what}" for one in facts for what, n in one.passed_over.items()
        ],
        "later annotation files changed tiles": [
            f"{one.name} {n} {what}" for one in facts for what, n in one.corrected.items() if n
        ],
    }
    return findings + [Finding("note", f"{what}: {list_names(shown)}", []) for what, shown in notes.items() if shown]
