"""GeoJSON as QuPath reads it: closed rings in level-0 px, names, colours, measurements; areas are kept."""

import json
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.annotations.geojson import COLON, NO_EFFECT, read_annotations
from pipeline.annotations.regions import combine
from pipeline.errors import BadInput, PipelineError
from pipeline.maps.cells import REJECTED, ClassMap, class_areas, grid_of
from pipeline.maps.geojson import REJECTED_CLASS, cell_shapes, region_shapes, write_geojson
from pipeline.storage.embeddings.slide_info import SlideInfo

shapely = pytest.importorskip("shapely")
SLIDE = SlideInfo("s.tif", "a" * 64, 5000, 4000, 0.5, 100, 0.5, 100, 100)
CLASSES = ["ADI", "a:b \"<'", "TÜM"]
COLOURS = [(1, 2, 3), (255, 0, 0), (0, 128, 0)]


def map_of(codes):
    codes = np.array(codes, np.int16)
    n_rows, n_columns = codes.shape
    grid = grid_of(np.array([[200, 100], [200 + 100 * (n_columns - 1), 100 * n_rows]]), SLIDE, 3)
    p = np.full((*codes.shape, 3), 0.1, np.float32)
    for k in range(3):
        p[codes == k, k] = 0.8
    p[codes < 0] = np.nan
    return ClassMap(grid, p, codes)


def written(tmp_path, found, **more):
    arguments = {
        "classes": CLASSES,
        "colours": COLOURS,
        "objects": "regions",
        "name": "svm",
        "origin": (0, 0),
        "about": {},
    }
    n = write_geojson(tmp_path / "map.geojson", found, **arguments | more)
    content = json.loads((tmp_path / "map.geojson").read_text(encoding="utf-8"))
    assert len(content["features"]) == n
    return content


def as_qupath_reads(content):
    """Read features as QuPath's adapters do: what they ask for must be there and of the type they cast to."""
    assert content["type"] == "FeatureCollection"
    objects = []
    for feature in content["features"]:
        assert feature["type"] == "Feature"
        assert feature["geometry"]["type"] in ("Polygon", "MultiPolygon")
        properties = feature["properties"]
        assert properties["objectType"] in ("annotation", "tile", "detection")
        assert isinstance(properties["name"], str)
        name, colour = properties["classification"]["name"], properties["classification"]["color"]
        assert ":" not in name
        assert "\n" not in name
        assert len(colour) == 3
        assert all(type(value) is int and 0 <= value <= 255 for value in colour)
        assert all(type(value) in (int, float) for value in properties["measurements"].values())
        polygon = shapely.from_geojson(json.dumps(feature["geometry"]))
        assert polygon.is_valid
        for ring in feature["geometry"]["coordinates"]:
            assert ring[0] == ring[-1]
            assert all(type(value) is int for point in ring for value in point)
        objects.append((properties["objectType"], name, polygon, properties["measurements"]))
    return objects


def test_connected_cells_of_a_class_become_one_annotation(tmp_path):
    found = map_of([[0, 0, 1], [0, 2, 1], [0, 0, 0], [-1, -2, 0]])
    objects = as_qupath_reads(written(tmp_path, found))
    assert [(kind, name) for kind, name, _, _ in objects] == [
        ("annotation", "ADI"),
        ("annotation", f"a{COLON}b \"<'"),
        ("annotation", "TÜM"),
    ]
    _, _, polygon, measurements = objects[0]
    boxes = [(200, 100, 300, 400), (300, 100, 400, 200), (300, 300, 500, 400), (400, 400, 500, 500)]
    assert polygon.equals(shapely.union_all([shapely.box(*box) for box in boxes]))
    assert measurements["cells"] == 7
    assert measurements["area mm^2"] == pytest.approx(7 * 0.05**2)
    assert measurements["p ADI"] == pytest.approx(0.8)
    assert measurements["p TÜM"] == pytest.approx(0.1)


def test_rings_have_no_corners_on_straight_edges_and_turn_as_rfc_7946_asks(tmp_path):
    found = map_of(np.pad(np.zeros((1, 1), int), 1, constant_values=2))
    outer, inner = written(tmp_path, found)["features"][1]["geometry"]["coordinates"]
    assert len(outer) == len(inner) == 5
    assert shapely.LinearRing(outer).is_ccw
    assert not shapely.LinearRing(inner).is_ccw


def test_cells_that_touch_at_a_corner_are_two_regions(tmp_path):
    objects = as_qupath_reads(written(tmp_path, map_of([[0, 1], [1, 0]])))
    assert sorted(name[0] for _, name, _, _ in objects) == ["A", "A", "a", "a"]


@pytest.mark.parametrize(("objects", "kind"), [("tiles", "tile"), ("detections", "detection")])
def test_one_object_per_cell(tmp_path, monkeypatch, objects, kind):
    found = map_of([[0, -1], [2, 2]])
    read = as_qupath_reads(written(tmp_path, found, objects=objects))
    assert [(k, n, p.bounds) for k, n, p, _ in read] == [
        (kind, "ADI", (200, 100, 300, 200)),
        (kind, "TÜM", (200, 200, 300, 300)),
        (kind, "TÜM", (300, 200, 400, 300)),
    ]
    monkeypatch.setitem(sys.modules, "shapely", None)
    assert len(list(cell_shapes(found))) == 3  # needs no extra
    with pytest.raises(PipelineError, match=r"pip install 'histoheads\[slides\]', or pass --geojson"):
        list(region_shapes(found))


def test_facts_stand_beside_the_features(tmp_path):
    content = written(tmp_path, map_of([[-1]]), about={"slide": "</script>", "network_saw_source": True})
    assert content["features"] == []
    assert content["histoheads"] == {"slide": "</script>", "network_saw_source": True}


@pytest.mark.parametrize("objects", ["regions", "tiles"])
def test_a_map_can_be_read_as_annotations(tmp_path, objects):
    """Where the user requests it: the same classes and areas; rejected cells have no effect."""
    found = map_of([[0, 0, 1], [2, REJECTED, 1], [-1, -2, 0]])
    found.p[1, 1] = 1 / 3  # a rejected cell keeps its probabilities
    written(tmp_path, found, objects=objects)
    regions = combine([read_annotations(tmp_path / "map.geojson", predicted=True)], origin=(0, 0))
    assert list(regions) == sorted(["ADI", CLASSES[1], "TÜM"])
    for code, name in enumerate(CLASSES):
        assert regions[name].area == 100**2 * (found.code == code).sum()
    assert REJECTED_CLASS in NO_EFFECT


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.integers(-2, 2), min_size=5, max_size=5), min_size=1, max_size=6))
def test_regions_cover_the_cells_of_their_class_and_nothing_else(codes):
    found = map_of(codes)
    shapes = list(region_shapes(found))
    n_cells, mm2 = class_areas(found)
    for code in range(3):
        own = [shape for shape in shapes if shape.code == code]
        assert sum(shape.n_cells for shape in own) == n_cells[code]
        assert sum(shape.area_mm2 for shape in own) == pytest.approx(mm2[code])
        polygons = [shapely.Polygon(shape.rings[0], shape.rings[1:]) for shape in own]
        cells = [
            shapely.box(200 + 100 * column, 100 + 100 * row, 300 + 100 * column, 200 + 100 * row)
            for row, column in np.argwhere(found.code == code)
        ]
        assert shapely.union_all(polygons).equals(shapely.union_all(cells))


def test_prepare_passes_over_objects_that_nobody_changed(tmp_path):
    """Also after QuPath wrote them: other rings, decimals, a new id; a changed class or shape counts as drawn."""
    content = written(tmp_path, map_of([[0, 0, 1], [0, 2, 1], [0, 0, 0], [0, 0, 2]]), origin=(7, 9))
    path, n = tmp_path / "map.geojson", len(content["features"])
    assert n == 4
    with pytest.raises(BadInput, match="4 of a map"):
        read_annotations(path)
    assert len(read_annotations(path, predicted=True).names) == n
    for feature in content["features"]:
        feature["id"] = "0d9a1c0e"
        (outer, *holes) = feature["geometry"]["coordinates"]
        turned = [[x + 0.0, y + 0.0] for x, y in [*outer[1:], outer[1]]][::-1]
        feature["geometry"]["coordinates"] = [turned, *holes]
    path.write_text(json.dumps(content))
    with pytest.raises(BadInput, match="4 of a map"):
        read_annotations(path)
    content["features"][0]["properties"]["classification"] = {"name": "other"}
    content["features"][1]["geometry"]["coordinates"][0][0][0] += 5
    content["features"][1]["geometry"]["coordinates"][0][-1][0] += 5
    path.write_text(json.dumps(content))
    found = read_annotations(path)
    assert len(found.names) == 2
    assert "other" in found.names
    assert found.passed_over == {"of a map, which nobody changed": 2}
