"""GeoJSON is read object by object: the same objects as json.loads, in bounded memory, and one line for damage."""

import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.annotations import json_stream
from pipeline.annotations.json_stream import read_features
from pipeline.errors import BadInput

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(VALUES, max_size=5), st.dictionaries(st.text(), VALUES, max_size=2), st.integers(1, 9), st.booleans())
def test_every_object_is_that_of_json(features, members, block, indented) -> None:
    import tempfile

    whole = {**members, "features": features, "more": members}
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "BLOCK", block)
        path = Path(folder) / "a.geojson"
        for value in (whole, features):
            path.write_text(json.dumps(value, indent=1 if indented else None), encoding="utf-8")
            assert list(read_features(path)) == features


def test_a_single_feature_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    path.write_text('\ufeff{"type": "Feature", "geometry": null}', encoding="utf-8")
    assert list(read_features(path)) == [{"type": "Feature", "geometry": None}]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"   ",
        b'{"features": [{"a": 1}',
        b'{"features": [{"a": 1}, ',
        b'{"features": [NaN]}',
        b"[1, 2] 3",
        b"{features: []}",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b"<html>no</html>",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    ],
)
def test_damage_is_one_line_with_the_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.geojson"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"a\.geojson: ") as caught:
        list(read_features(path))
    assert "\n" not in str(caught.value)


def test_an_endless_object_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "MOST_CHARACTERS", 1000)
    monkeypatch.setattr(json_stream, "BLOCK", 100)
    path = tmp_path / "a.geojson"
    path.write_text('["' + "x" * 100_000)
    with path.open() as file:
        text = json_stream._Text(file)
        with pytest.raises(ValueError, match="character"):
            list(text.elements())
    assert len(text.text) < 5000


def test_memory_does_not_grow_with_the_number_of_objects(tmp_path: Path) -> None:
    path = tmp_path / "cells.geojson"
    one = json.dumps({"type": "Feature", "properties": {"objectType": "cell"}, "geometry": [[1.5, 2.5]] * 20})
    n = 20_000
    with path.open("w") as file:
        file.write('{"type": "FeatureCollection", "features": [' + one)
        for _ in range(n - 1):
            file.write(",\n" + one)
        file.write("]}")
    assert path.stat().st_size > 6_000_000
    tracemalloc.start()
    assert sum(1 for _ in read_features(path)) == n
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8_000_000  # all objects together have more than 40 MB
