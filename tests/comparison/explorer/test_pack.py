"""What report.html carries of the test rows."""

import base64
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.comparison.explorer import nearest, pack
from pipeline.comparison.explorer.carried import carry
from pipeline.comparison.predictions import Predictions
from pipeline.comparison.report_data import ReportData
from pipeline.comparison.report_figures import EmbeddingMap
from pipeline.evaluation.bootstrap import resampling_counts
from pipeline.markup.document import Figure
from pipeline.storage.embeddings.reader import Embeddings, read_embeddings
from pipeline.tiles.decoding import pixel_hash

from ...builders import make_run  # noqa: TID252  (no package has the tests)

Y = [0, 1, 2, 0, 1, 2]
SOFTMAX, SVM = [0, 1, 1, 0, 0, 2], [0, 1, 2, 2, 1, 2]


def decode(text: str, dtype: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype)


def payload_of(data: ReportData) -> Any:
    return json.loads(pack.explorer_payload(data, carry(data)))


@pytest.fixture
def data(make_predictions: Callable[..., Predictions], make_data: Callable[..., ReportData]) -> ReportData:
    split = ["test", "test", "train", "test", "test", "test"]
    group = ["x", "x", "t", "y", "y", "z"]
    predictions = make_predictions(Y, {"softmax": SOFTMAX, "svm": SVM}, split=split, group=group)
    return make_data(predictions, draws=100)


def test_it_carries_the_test_rows_alone(data: ReportData) -> None:
    payload = payload_of(data)
    assert payload["n"] == 5
    assert decode(payload["y"], "<i4").tolist() == [0, 1, 0, 1, 2]
    assert [payload["tiles"]["id"][t] for t in decode(payload["tile"], "<i4")] == [f"tile_{i}" for i in (0, 1, 3, 4, 5)]
    assert [payload["groups"][g] for g in decode(payload["group"], "<i4")] == ["x", "x", "y", "y", "z"]
    softmax = payload["heads"][0]
    assert decode(softmax["predicted"], "<i4").tolist() == [0, 1, 0, 0, 2]
    rows = data.predictions.rows("test")
    assert np.array_equal(decode(softmax["p"], "<f8").reshape(5, 3), data.predictions.p["softmax"][rows])


def test_its_draws_are_those_of_the_intervals(data: ReportData) -> None:
    payload = payload_of(data)
    assert payload["n_units"] == 3
    expected = np.concatenate([chunk.T for chunk in resampling_counts(3, n_draws=100, seed=0)])
    assert np.array_equal(decode(payload["draws"], "u1").reshape(100, 3), expected)


def test_too_many_draws_are_left_out(data: ReportData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack, "MOST_DRAWS", 299)
    assert payload_of(data)["draws"] is None


def test_the_rows_of_a_tile_under_several_seeds_are_one_tile(
    make_predictions: Callable[..., Predictions], make_data: Callable[..., ReportData]
) -> None:
    predictions = make_predictions([0, 1, 0, 1], {"svm": [0, 1, 1, 1]}, tile_id=["a", "b", "a", "b"], seed=[0, 0, 1, 1])
    payload = payload_of(make_data(predictions))
    assert payload["tiles"]["id"] == ["a", "b"]
    assert decode(payload["tile"], "<i4").tolist() == [0, 1, 0, 1]
    assert decode(payload["seed"], "<i4").tolist() == [0, 0, 1, 1]


def test_no_name_can_end_the_script_element(
    make_predictions: Callable[..., Predictions], make_data: Callable[..., ReportData]
) -> None:
    names = [f"</script><b>{i}" for i in range(3)]
    predictions = make_predictions([0, 1, 2], {"svm": [0, 1, 2]}, tile_id=names, classes=("</script>", "b", "c"))
    made = make_data(predictions)
    payload = pack.explorer_payload(made, carry(made))
    assert "<" not in payload
    assert json.loads(payload)["tiles"]["id"] == names


def test_the_map_has_the_test_tiles_within_0_and_1(data: ReportData, make_data: Callable[..., ReportData]) -> None:
    ids = np.array(["tile_0", "tile_2", "tile_5"])  # tile_2 is a training tile
    points = np.array([[-4.0, 1.0], [0.0, 3.0], [4.0, 2.0]])
    drawn = EmbeddingMap(Figure("figures/embedding_map.png", "", ""), ids, points)
    payload = payload_of(make_data(data.predictions, map=drawn))
    assert [payload["tiles"]["id"][t] for t in decode(payload["map"]["tile"], "<i4")] == ["tile_0", "tile_5"]
    assert decode(payload["map"]["xy"], "<f8").tolist() == [0, 0, 1, 0.5]


@pytest.fixture
def embedded(
    make_predictions: Callable[..., Predictions], make_data: Callable[..., ReportData], tmp_path: Path
) -> tuple[ReportData, Embeddings]:
    """Return a report on the 24 test tiles of an embeddings file, in reverse order, and the file's content."""
    content = read_embeddings(make_run(tmp_path) / "embeddings.h5")
    rows = np.flatnonzero(content.split == 2)[::-1]
    y = content.label[rows].tolist()
    predictions = make_predictions(
        y, {"svm": y}, tile_id=[content.tile_id[row] for row in rows], classes=tuple(content.classes)
    )
    made = make_data(predictions)
    without = dataclasses.replace(content, features=np.zeros((len(content.label), 0), np.float32))
    return dataclasses.replace(made, files=dataclasses.replace(made.files, embeddings=without)), content


@pytest.mark.parametrize("block_rows", [1024, 10])
def test_the_nearest_training_tiles_are_those_of_the_largest_cosine(
    embedded: tuple[ReportData, Embeddings], monkeypatch: pytest.MonkeyPatch, block_rows: int
) -> None:
    monkeypatch.setattr(nearest, "BLOCK_ROWS", block_rows)
    data, content = embedded
    found = payload_of(data)
    near, names = found["neighbours"], found["tiles"]["id"]
    unit = content.features / np.linalg.norm(content.features, axis=1, keepdims=True)
    train = np.flatnonzero(content.split == 0)
    of_tile, cosine = decode(near["of_tile"], "<i4").reshape(-1, 3), decode(near["cosine"], "<f8").reshape(-1, 3)
    for name, places, values in zip(names, of_tile, cosine, strict=True):
        similar = unit[train] @ unit[content.tile_id.index(name)]
        best = train[np.argsort(-similar)[:3]]
        assert [near["id"][place] for place in places] == [content.tile_id[row] for row in best]
        assert decode(near["y"], "<i4")[places].tolist() == content.label[best].tolist()
        assert values == pytest.approx(np.sort(similar)[::-1][:3], abs=1e-5)
    assert near["thumbnails"] is None  # there is no manifest


def test_too_many_tiles_or_unknown_ones_have_no_nearest(
    embedded: tuple[ReportData, Embeddings], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, content = embedded
    path = data.run / "embeddings.h5"
    assert nearest.nearest_training_tiles(path, content, np.array(["t12", "unknown"])) is None
    monkeypatch.setattr(nearest, "MOST_COMPARISONS", 24 * 72 - 1)
    assert payload_of(data)["neighbours"] is None


def test_a_tile_that_changed_has_no_thumbnail(data: ReportData, make_data: Callable[..., ReportData], tmp_path) -> None:
    pixels = {name: np.full((20, 20, 3), 40 * i, np.uint8) for i, name in enumerate(("tile_0", "tile_3"))}
    for name, tile in pixels.items():
        Image.fromarray(tile).save(tmp_path / f"{name}.png")
    hashes = [pixel_hash(pixels["tile_0"]).hex(), "changed since"]
    table = pd.DataFrame({"tile_id": list(pixels), "path": [f"{n}.png" for n in pixels], "sha256": hashes})
    files = dataclasses.replace(data.files, manifest=SimpleNamespace(table=table, root=tmp_path))
    found = payload_of(dataclasses.replace(data, files=files, n_gallery=4))
    assert decode(found["thumbnails"]["place"], "<i4").tolist() == [0, -1, -1, -1, -1]
    assert found["tiles"]["path"][0] == "tile_0.png"
    none = payload_of(dataclasses.replace(data, files=files, n_gallery=0))
    assert none["thumbnails"] is None
