"""Rows of features that stay in their file: any choice of them is what an array would give."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline.errors import BadArtifact
from pipeline.storage.embeddings import feature_rows
from pipeline.storage.embeddings.feature_rows import StoredFeatures, width_of
from pipeline.storage.hdf5 import created, finish

SCHEMA = "embeddings/1.1"


@pytest.fixture(params=["float32", "float16"])
def known(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[StoredFeatures, np.ndarray]:
    """A file of 60 rows of 5 features, and the same rows as an array."""
    rows = np.random.default_rng(0).normal(size=(60, 5)).astype(request.param)
    path = tmp_path / "file.h5"
    with created(path) as file:
        file["features"] = rows
        finish(file, SCHEMA)
    return StoredFeatures(path, SCHEMA, "features", np.arange(60), width_of(path, SCHEMA, "features")), rows


@pytest.mark.parametrize("span", [1, 7, 1024])
@pytest.mark.parametrize("dense", [1, 8])
def test_any_choice_of_rows_is_that_of_the_array(
    known: tuple[StoredFeatures, np.ndarray], monkeypatch: pytest.MonkeyPatch, span: int, dense: int
) -> None:
    monkeypatch.setattr(feature_rows, "SPAN", span)
    monkeypatch.setattr(feature_rows, "DENSE", dense)
    stored, array = known
    rng = np.random.default_rng(1)
    for chosen in (
        slice(3, 50, 4),
        rng.permutation(60)[:20],
        np.array([5, 5, 59, 0]),
        rng.random(60) < 0.2,
        slice(0, 0),
    ):
        own = stored[chosen]
        expected = array[chosen].astype(np.float32)
        assert own.shape == expected.shape
        assert len(own) == len(expected)
        read = own.read()
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, expected)
        np.testing.assert_array_equal(np.concatenate([*own.blocks(6), expected[:0]]), expected)
    np.testing.assert_array_equal(stored[10:40][np.arange(30) % 3 == 0].read(), array[10:40:3].astype(np.float32))


def test_what_is_not_finite_or_not_there_is_refused(known: tuple[StoredFeatures, np.ndarray]) -> None:
    stored, _ = known
    with h5py.File(stored.path, "r+") as file:
        file["features"][7] = np.inf
    assert len(stored[:7].read()) == 7
    with pytest.raises(BadArtifact, match="a row of /features is not finite"):
        stored.read()
    with pytest.raises(BadArtifact, match="a larger one is needed"):
        StoredFeatures(stored.path, SCHEMA, "features", np.array([60]), 5).read()
    with pytest.raises(BadArtifact, match="/label is missing"):
        width_of(stored.path, SCHEMA, "label")
