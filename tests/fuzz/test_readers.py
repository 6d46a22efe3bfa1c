"""Whatever a file holds, its reader gives its content or one line: files made up from their own grammar."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import PipelineError
from pipeline.names import RunFile
from pipeline.network import model_file
from pipeline.network.resnet import build_network
from pipeline.storage import atomic, freshness, records
from pipeline.storage.embeddings.partial_rows import PartialRows, row_type
from pipeline.storage.embeddings.reader import Embeddings, read_embeddings
from pipeline.storage.embeddings.writer import write_embeddings
from pipeline.storage.predictions.csv_table import HeadOutput, classes_of, read_predictions, write_predictions
from pipeline.storage.protocol import PartEntry, Protocol, read_protocol, write_protocol
from pipeline.tiles.datasets.sources import csv_tiles
from pipeline.tiles.decoding import decode_tile
from pipeline.tiles.manifest import COLUMNS, SCHEMA, read_manifest

some = settings(max_examples=60, deadline=None, derandomize=True)
names = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=8)
"""What a file, class or group may be called."""

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "x", "../x", "resnet10"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["", "a", "name"]), inner, max_size=3),
    max_leaves=6,
)
"""Any JSON."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all examples; each writes the same names anew."""
    return tmp_path_factory.mktemp("made-up")


def outcome(read: Callable[..., Any], *words: Any, **more: Any) -> Any:
    """Return what a reader gives, or None if it refuses in one line; anything else fails the test."""
    try:
        return read(*words, **more)
    except PipelineError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017
        return None


def places(content: Any, so_far: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the keys that lead to every value inside a JSON content."""
    items: list[tuple[Any, Any]] = []
    if isinstance(content, dict):
        items = list(content.items())
    elif isinstance(content, list):
        items = list(enumerate(content))
    return [so_far] * bool(so_far) + [place for key, value in items for place in places(value, (*so_far, key))]


def changed(content: Any, data: st.DataObject) -> Any:
    """Return a copy of a JSON content with one value inside replaced by any, or removed."""
    content = json.loads(json.dumps(content))
    *way, last = data.draw(st.sampled_from(places(content)), label="place")
    inner = content
    for key in way:
        inner = inner[key]
    if data.draw(st.booleans(), label="removed"):
        del inner[last]
    else:
        inner[last] = data.draw(values, label="value")
    return content


PLAN = Protocol(
    Path(), "logo", 2, [0, 1], 0, [PartEntry("grouped-seed0-fold1", "grouped", 0, 1, None, "0", {"test": 1}, ["g"], {})]
)
PREPROCESS = {"size": 32, "mean": [0.5] * 3, "std": [0.2] * 3, "interpolation": "bilinear", "mpp": None}
MODEL = {"arch": "resnet10", "classes": ["A", "B"], "preprocess": PREPROCESS}


@some
@given(st.data())
def test_any_plan(folder: Path, data: st.DataObject) -> None:
    table = folder / "manifest.csv"
    path = write_protocol(Protocol(folder, *(getattr(PLAN, name) for name in list(PLAN.__dataclass_fields__)[1:])))
    path.write_text(json.dumps(changed(json.loads(path.read_text()), data)))
    table.write_text("x")
    records.write_record(records.Artifact(table, SCHEMA, "prepare"), outputs=[folder / RunFile.PROTOCOL])
    found = outcome(read_protocol, folder)
    if found is not None:
        assert all(found.folder(part).parent == folder / "parts" for part in found.parts)
        assert all(found.predictions(arm).parent == folder for arm in found.arms)


@settings(some, max_examples=25)
@given(st.data())
def test_any_description_of_a_model(folder: Path, data: st.DataObject) -> None:
    path = folder / "model.safetensors"
    if not path.is_file():
        model_file.save_model(path, build_network("resnet10", n_classes=2, seed=0).state_dict(), MODEL)
    description = model_file.description_path(path)
    description.write_text(json.dumps(changed(MODEL, data)))
    records.write_record(records.Artifact(path, model_file.SCHEMA, "train"), outputs=[description])
    found = outcome(model_file.load_model, path)
    if found is not None:
        assert len(found.classes) == 2
        assert found.preprocess.size >= 1


@some
@given(st.data())
def test_any_record(folder: Path, data: st.DataObject) -> None:
    path = folder / "a.csv"
    path.write_text("x")
    records.write_record(records.Artifact(path, "a/1.0", "prepare", {"a": 1}, [path]), outputs=[path])
    content = changed(records.read_record_alone(path), data)
    try:
        text = atomic.to_json(content)
    except ValueError:  # NaN is no JSON of ours
        return
    content["record_sha256"] = records.hashlib.sha256(text.encode()).hexdigest()
    records.record_path(path).write_text(atomic.to_json(content))
    found = outcome(records.check_artifact, path, schema="a/1.0")
    if found is not None:
        outcome(freshness.check_inputs_unchanged, path, found)
        again = records.Artifact(path, "a/1.0", "prepare", {"a": 1}, [path], protects="everything")
        outcome(freshness.reusable_record, again)
        freshness.damaged_outputs(path, found)


@some
@given(st.data())
def test_any_manifest(folder: Path, data: st.DataObject) -> None:
    path = folder / "manifest.csv"
    cell = names | st.sampled_from(["", "0", "1", "-1", "1e9", "nan", "test", "train", '"', "a,b", "../x", "/x"])
    rows = data.draw(st.lists(st.lists(cell, min_size=9, max_size=9), min_size=1, max_size=3))
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    table["problem"] = data.draw(st.sampled_from(["", "x"]))
    table.to_csv(path, index=False)
    details = changed({"root": ".", "dataset": "x", "protocol": "random"}, data)
    try:
        records.write_record(records.Artifact(path, SCHEMA, "prepare"), details=details)
    except ValueError:
        return
    found = outcome(read_manifest, path)
    if found is not None:
        assert (found.root / found.table["path"].iloc[0]).is_relative_to(found.root)
        assert found.table["width"].dtype == int


@some
@given(
    st.lists(
        st.sampled_from(["path", "label", "group", "split", ",", "\n", '"', "a.png", "train", " ", "\t", "é", "="])
    )
)
def test_any_list_of_tiles(folder: Path, words: list[str]) -> None:
    (folder / "tiles.csv").write_text("".join(words))
    outcome(csv_tiles, folder / "tiles.csv", group_regex="")


TAGS = [
    256,
    257,
    258,
    259,
    262,
    273,
    274,
    277,
    278,
    279,
    284,
    317,
    320,
    322,
    323,
    324,
    325,
    338,
    339,
    700,
    34665,
    34675,
]
"""TIFF tags that decide how pixels are read."""

entry = st.tuples(
    st.sampled_from(TAGS),
    st.integers(1, 13),
    st.sampled_from([0, 1, 2, 3, 4, 1000, 2**31, 2**32 - 1]),
    st.sampled_from([0, 1, 2, 3, 4, 5, 7, 8, 16, 64, 150, 4096, 2**16, 2**31, 2**32 - 1]),
)
good = [
    (256, 4, 1, 16),
    (257, 4, 1, 16),
    (258, 3, 1, 8),
    (262, 3, 1, 1),
    (273, 4, 1, 8),
    (277, 3, 1, 1),
    (279, 4, 1, 256),
]


@settings(some, max_examples=150)
@given(st.lists(entry, min_size=1, max_size=4), st.sampled_from(["<", ">"]))
def test_any_tags_of_a_tiff(folder: Path, entries: list[tuple[int, int, int, int]], order: str) -> None:
    kept = [tag for tag in good if tag[0] not in {each[0] for each in entries}]
    tags = sorted([*kept, *entries])
    directory = struct.pack(order + "H", len(tags)) + b"".join(struct.pack(order + "HHII", *tag) for tag in tags)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + 256)
    (folder / "a.tif").write_bytes(head + bytes(256) + directory + bytes(4))
    found = outcome(decode_tile, folder / "a.tif")
    if found is not None:
        assert found.dtype == np.uint8
        assert max(found.shape) <= 4096


@pytest.mark.fault("unknown label, classes in another order")
@settings(some, max_examples=30)
@given(st.lists(names, min_size=2, max_size=5, unique=True), st.lists(names, min_size=2, max_size=2, unique=True))
def test_any_names_survive_hdf5_and_predictions(folder: Path, tiles: list[str], classes: list[str]) -> None:
    n = len(tiles)
    scratch = PartialRows(folder / "embeddings.h5", row=row_type(2, 2), identity={}, batch=n)
    scratch.open(restart=True)
    scratch.append(np.zeros(n, scratch.row))
    table = pd.DataFrame({"tile_id": tiles, "path": tiles, "group": tiles[::-1], "label": classes[0], "split": "test"})
    attrs = {
        "classes": classes,
        "preprocess": {},
        "encoder": "trained",
        "layer": "avgpool",
        "model_sha256": "m",
        "manifest_sha256": "m",
    }
    write_embeddings(folder / "embeddings.h5", scratch, table, attrs=attrs)
    found: Embeddings = read_embeddings(folder / "embeddings.h5")
    assert (found.tile_id, found.path, found.group, found.classes) == (tiles, tiles, tiles[::-1], classes)
    p = np.full((n, 2), 0.5)
    write_predictions(folder / "predictions.csv", found, [("softmax", HeadOutput(np.zeros(n, int), p))])
    said = read_predictions(folder / "predictions.csv")
    assert (list(said["tile_id"]), list(said["group"]), classes_of(said)) == (tiles, tiles[::-1], classes)
    assert set(said["predicted"]) == {classes[0]}
