"""Which squares are tiles of which class, against a count of pixels; and the even draw."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.annotations.geojson import read_annotations
from pipeline.annotations.labels import covers, draw_evenly, labelled
from pipeline.annotations.regions import combine
from pipeline.slides.grid import Squares

from .making import box_of, write_features

shapely = pytest.importorskip("shapely")
SLIDE: Any = SimpleNamespace(dimensions=(64, 48), path=Path("s.tif"))


def labels_of(*layers: list[Any], folder: Path, min_cover: float = 0.75, stride: int = 8) -> dict[tuple[int, int], str]:
    """Return (x, y) -> class of the tiles of 8 px in a slide of 64 x 48 px."""
    files = [read_annotations(write_features(folder / f"{i}.geojson", *layer)) for i, layer in enumerate(layers)]
    table = covers(combine(files, origin=(0, 0)), SLIDE, Squares(8, stride, 8, 0.5, 0, 1.0))
    found = labelled(table, min_cover=min_cover)
    return {(int(x), int(y)): label for x, y, label in zip(found["x"], found["y"], found["label"], strict=True)}


boxes = st.tuples(st.sampled_from("ABC"), *[st.integers(-4, 70)] * 2, *[st.integers(1, 40)] * 2)


@settings(max_examples=40, deadline=None)
@given(st.lists(boxes, min_size=1, max_size=6), st.sampled_from([0.6, 0.75, 1.0]), st.sampled_from([8, 5]))
def test_labels_are_those_of_a_count_of_pixels(drawn, min_cover, stride) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        features = [box_of(name, x, y, x + w, y + h) for name, x, y, w, h in drawn]
        found = labels_of(features, folder=Path(folder), min_cover=min_cover, stride=stride)
    member = {name: np.zeros((48, 64), bool) for name in "ABC"}
    for name, x, y, w, h in drawn:
        member[name][max(y, 0) : max(y + h, 0), max(x, 0) : max(x + w, 0)] = True
    expected = {}
    for y in range(0, 41, stride):
        for x in range(0, 57, stride):
            share = {name: float(mask[y : y + 8, x : x + 8].mean()) for name, mask in member.items()}
            good = [
                name
                for name in share
                if share[name] >= min_cover and sum(share[o] for o in share if o != name) <= 1 - min_cover + 1e-9
            ]
            if good:
                (expected[x, y],) = good
    assert found == expected


def test_ignore_takes_tiles_and_region_does_not(tmp_path: Path) -> None:
    whole = box_of("A", 0, 0, 24, 8)
    assert set(labels_of([whole], folder=tmp_path)) == {(0, 0), (8, 0), (16, 0)}
    cut = labels_of([whole, box_of("Ignore*", 8, 0, 16, 8), box_of("Region*", 0, 0, 8, 8)], folder=tmp_path)
    assert cut == {(0, 0): "A", (16, 0): "A"}


def test_later_files_win_where_they_overlap(tmp_path: Path) -> None:
    first = [box_of("A", 0, 0, 24, 8), box_of("B", 24, 0, 32, 8)]
    second = [box_of("B", 8, 0, 16, 8), box_of("C", 24, 0, 32, 8)]
    assert labels_of(first, second, folder=tmp_path) == {(0, 0): "A", (8, 0): "B", (16, 0): "A", (24, 0): "C"}
    assert labels_of(first, second, [box_of("A", 0, 0, 64, 48)], folder=tmp_path)[24, 0] == "A"


def test_regions_count_from_the_origin_of_the_scanned_area(tmp_path: Path) -> None:
    file = read_annotations(write_features(tmp_path / "a.geojson", box_of("A", 0, 0, 8, 8)))
    assert combine([file], origin=(16, 24))["A"].bounds == (16, 24, 24, 32)


def test_the_draw_is_even_over_slides_and_annotations() -> None:
    sizes = {("s1", 0): 50, ("s1", 1): 3, ("s2", 0): 2, ("s3", 0): 40}
    rows = [(slide, "A", part) for (slide, part), n in sizes.items() for _ in range(n)] + [("s3", "B", 1)] * 2
    table = pd.DataFrame(rows, columns=["slide", "label", "part"])
    drawn = draw_evenly(table, per_class=16, seed=0)
    counts = drawn[drawn["label"] == "A"].value_counts(["slide", "part"]).to_dict()
    assert counts == {("s1", 0): 4, ("s1", 1): 3, ("s2", 0): 2, ("s3", 0): 7}
    assert (drawn["label"] == "B").sum() == 2
    assert list(drawn.index) == sorted(drawn.index)
    assert draw_evenly(table, per_class=16, seed=0).equals(drawn)
    assert not draw_evenly(table, per_class=16, seed=1).equals(drawn)
