"""Annotations that are not those of the slide are refused, and the audit reports what costs tiles."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.annotations.checks import annotation_findings, check_place, slide_facts
from pipeline.annotations.geojson import read_annotations
from pipeline.annotations.regions import Regions, combine
from pipeline.errors import BadInput
from pipeline.slides.base import Thumbnail
from pipeline.slides.grid import Squares

from .making import box_of, write_features

shapely = pytest.importorskip("shapely")
SIDE = 1000
TISSUE = (600, 600, 900, 900)


class Slide:
    """A slide of 1000 px with tissue at `TISSUE`."""

    path, dimensions = Path("s.tif"), (SIDE, SIDE)

    def __init__(self, mpp: float) -> None:
        self.mpp = mpp


def share_outside(mpp: float, regions: Regions, *, force: bool = False, first: int = 60) -> float:
    """Check regions on a slide whose tissue begins at `first` hundredths of its sides."""
    tissue = np.zeros((100, 100), bool)
    tissue[first:90, first:90] = True
    thumbnail = Thumbnail(np.zeros((100, 100, 3), np.uint8), 10.0, np.zeros((100, 100), bool))
    return check_place(Slide(mpp), thumbnail, tissue, regions, force=force)  # type: ignore[arg-type]


def box(left: float, top: float, right: float, bottom: float, scale: float = 1.0) -> Regions:
    return {"A": shapely.box(left * scale, top * scale, right * scale, bottom * scale)}


@pytest.mark.parametrize("mpp", [0.25, 0.5, 2.0])
def test_micrometres_are_refused_with_the_ratio(mpp: float) -> None:
    assert share_outside(mpp, box(*TISSUE)) == 0
    with pytest.raises(BadInput, match=rf"in micrometres: divided by {mpp:g} um/px 100% is tissue, taken as px 0%"):
        share_outside(mpp, box(*TISSUE, scale=mpp))
    if mpp < 1:
        assert share_outside(mpp, box(*TISSUE, scale=mpp), force=True) == 0


def test_micrometres_are_refused_where_most_of_them_is_on_tissue_too() -> None:
    """A slide that is full of tissue: taken as px, 84 % of the annotated area is tissue."""
    with pytest.raises(BadInput, match="taken as px 84%"):
        share_outside(0.5, box(170, 170, 900, 900, scale=0.5), first=12)
    assert share_outside(0.5, box(170, 170, 900, 900), first=12) == 0


def test_the_annotations_of_another_slide_are_refused() -> None:
    with pytest.raises(BadInput, match="another slide"):
        share_outside(0.5, box(900, 900, 5000, 5000))
    assert share_outside(0.5, box(800, 800, 1050, 1000)) == pytest.approx(0.2)
    assert share_outside(0.5, box(0, 0, 300, 300)) == 0  # glass is annotated: no tissue at half the coordinates either


def test_the_audit_names_what_costs_tiles(tmp_path: Path) -> None:
    file = read_annotations(
        write_features(
            tmp_path / "s.geojson",
            box_of("A", 0, 0, 100, 100),
            box_of("B", 90, 0, 200, 100),
            box_of("B", 300, 300, 305, 305),
            box_of("Ignore*", 0, 0, 50, 50),
            box_of(None, 0, 0, 5, 5),
        )
    )
    regions = combine([file], origin=(0, 0))
    facts = slide_facts(
        "s",
        [file],
        regions,
        mpp=0.5,
        squares=Squares(32, 32, 32, 0.5, 0, 1.0),
        least_px2=0.75 * 32**2,
        outside=0.02,
        corrected={"changed": 3, "new": 0, "removed": 1},
    )
    assert facts.overlaps == {("A", "B"): pytest.approx(1000 * 0.25 / 1e6)}
    assert (facts.n_small, facts.classes) == (1, ["A", "B"])
    lines = {finding.line for finding in annotation_findings([facts])}
    assert lines == {
        "annotations of different classes overlap, where few tiles get a class: s A and B 0.00025 mm2",
        "annotations reach out of the slide: s 2.0% of their area",
        "annotations are too small for a tile: s 1",
        "classes are annotated in one slide only: A in s, B in s",
        "objects of the annotation files have no effect: s 1 without a class",
        "later annotation files changed tiles: s 3 changed, s 1 removed",
    }
