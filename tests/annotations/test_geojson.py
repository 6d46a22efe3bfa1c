"""Annotations are read in every form that QuPath has exported; what cannot be used is counted or refused."""

import json
from pathlib import Path

import pytest

from pipeline.annotations.geojson import COLON, read_annotations
from pipeline.errors import BadInput

from .making import box_of, feature, ring, write_features

pytest.importorskip("shapely")


def test_classes_in_all_forms(tmp_path: Path) -> None:
    found = read_annotations(
        write_features(
            tmp_path / "a.geojson",
            box_of("Tumor", 0, 0, 10, 10),
            box_of({"name": " Stroma  dense", "colorRGB": -1}, 0, 0, 10, 10),
            box_of({"names": ["Tumor", "Positive"]}, 0, 0, 10, 10),
            {**box_of("x", 0, 0, 10, 10), "properties": {"classification": "Old"}},
            box_of(f"a{COLON}b", 0, 0, 10, 10),
            box_of("x\ny", 0, 0, 10, 10),
        )
    )
    assert found.names == ["Tumor", "Stroma dense", "Tumor: Positive", "Old", "a:b", "x\\x0ay"]
    assert not found.passed_over


def test_geometries(tmp_path: Path) -> None:
    """Holes, multi-polygons, collections and ellipses count by their area; nested collections are read."""
    multi = feature("B")
    multi["geometry"] = {"type": "MultiPolygon", "coordinates": [[ring(0, 0, 10, 10)], [ring(20, 0, 30, 10)]]}
    mixed = feature("C")
    point = {"type": "Point", "coordinates": [1, 1]}
    mixed["geometry"] = {
        "type": "GeometryCollection",
        "geometries": [{"type": "Polygon", "coordinates": [ring(0, 0, 4, 4)]}, point],
    }
    ellipse = feature("D", [[0, 5, 7], [5, 10, 7], [10, 5, 7], [5, 0, 7]])  # open, with a third coordinate
    ellipse["geometry"]["isEllipse"] = True
    nested = {"type": "FeatureCollection", "features": [box_of("E", 0, 0, 2, 2)]}
    found = read_annotations(
        write_features(
            tmp_path / "a.geojson", feature("A", ring(0, 0, 10, 10), ring(2, 2, 6, 6)), multi, mixed, ellipse, nested
        )
    )
    assert found.names == ["A", "B", "C", "D", "E"]
    assert [shape.area for shape in found.shapes] == [84, 200, 16, 50, 4]


def test_what_has_no_effect_is_counted(tmp_path: Path) -> None:
    line = feature("A")
    line["geometry"] = {"type": "LineString", "coordinates": [[0, 0], [1, 1]]}
    old_cell = box_of("A", 0, 0, 1, 1)
    old_cell["id"] = "PathCellObject"
    del old_cell["properties"]["objectType"]
    found = read_annotations(
        write_features(
            tmp_path / "a.geojson",
            box_of("A", 0, 0, 10, 10),
            box_of("A", 0, 0, 1, 1, objectType="detection"),
            old_cell,
            line,
            box_of(None, 0, 0, 10, 10),
            box_of("Region*", 0, 0, 10, 10),
            box_of("A", 3, 3, 3, 3),
        )
    )
    assert found.names == ["A"]
    assert found.passed_over == {
        "of kind detection": 1,
        "of kind cell": 1,
        "points and lines": 1,
        "without a class": 1,
        "of Region*": 1,
        "without an area": 1,
    }


def test_a_self_intersecting_annotation_is_repaired_and_named(tmp_path: Path) -> None:
    bow_tie = feature("A", [[0, 0], [10, 10], [10, 0], [0, 10], [0, 0]])
    found = read_annotations(write_features(tmp_path / "a.geojson", box_of("B", 0, 0, 4, 4), bow_tie))
    assert found.repaired == ["A (object 2)"]
    assert found.shapes[1].is_valid
    assert found.shapes[1].area == pytest.approx(50)


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ([], "no annotation has a class (no object)"),
        ([box_of(None, 0, 0, 10, 10)], "no annotation has a class (1 without a class)"),
        ([3], "a feature is no object"),
        ([feature("A", [[0, 0], [1, 1]])], "object 1 has damaged coordinates"),
        ([feature("A", [[0, 0], [1, "x"], [2, 2], [0, 0]])], "object 1 has damaged coordinates"),
        ([{"type": "Feature", "geometry": {"type": "Blob"}, "properties": {}}], "object 1 has damaged coordinates"),
        ([feature("A")], "object 1 has damaged coordinates"),
    ],
)
def test_what_is_refused(tmp_path: Path, features: list[object], words: str) -> None:
    path = write_features(tmp_path / "a.geojson", *features)
    with pytest.raises(BadInput) as caught:
        read_annotations(path)
    assert f"{path}: " in str(caught.value)
    assert words in str(caught.value)


def test_a_number_that_overflows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps(box_of("A", 0, 0, 12345, 10)).replace("12345", "1e999"))
    with pytest.raises(BadInput, match="damaged coordinates"):
        read_annotations(path)


def test_cells_exported_as_annotations_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.annotations.geojson.MOST_AREAS", 3)
    path = write_features(tmp_path / "a.geojson", *[box_of("A", 0, 0, 1, 1)] * 4)
    with pytest.raises(BadInput, match="these are cells"):
        read_annotations(path)
