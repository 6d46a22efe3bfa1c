"""What is written is whole or not there, and can be read again."""

import errno
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from pipeline.errors import BadArtifact, BadInput, DiskFull
from pipeline.storage.embeddings.partial_rows import PartialRows, row_type
from pipeline.storage.embeddings.reader import read_embeddings
from pipeline.storage.embeddings.writer import MOST_CLASS_BYTES, check_classes, write_embeddings

N, D, K = 10, 6, 3
ATTRS = {
    "classes": ["ADI", "LYM", "TUM"],
    "preprocess": {"size": 32},
    "encoder": "trained",
    "layer": "avgpool",
    "model_sha256": "a" * 64,
    "manifest_sha256": "b" * 64,
    "versions": {"torch": "2"},
    "precision": "fp32",
}


def table() -> pd.DataFrame:
    """Return a manifest's columns; row 4 has no split, row 5 a label that no class has."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "tile_id": [f"tile-é{i}" for i in range(N)],
            "path": [f"a/{i}.png" for i in range(N)],
            "group": ["", *["S1"] * (N - 1)],
            "label": [*rng.choice(ATTRS["classes"], 5), "NEW", *rng.choice(ATTRS["classes"], 4)],
            "split": ["train", "val", "test", "train", "", "val", "test", "train", "val", "test"],
        }
    )


def filled(folder: Path, n: int = N) -> PartialRows:
    """Return a scratch of n rows; row 4 stands for no tile."""
    scratch = PartialRows(folder / "embeddings.h5", row=row_type(D, K), identity={}, batch=4)
    scratch.open(restart=True)
    rows = np.zeros(n, scratch.row)
    rng = np.random.default_rng(1)
    rows["features"], rows["logits"] = rng.random((n, D)), rng.normal(size=(n, K))
    rows["sha256"] = rng.integers(0, 256, (n, 32))
    for name, value in (("features", 0), ("logits", 0), ("sha256", 0), ("status", 1)):
        rows[name][4] = value
    scratch.append(rows)
    return scratch


def test_many_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.storage.embeddings import partial_rows as scratch

    monkeypatch.setattr(scratch, "BLOCK_ROWS", 3)
    write_embeddings(tmp_path / "embeddings.h5", filled(tmp_path), table(), attrs=ATTRS)
    features = read_embeddings(tmp_path / "embeddings.h5").features
    monkeypatch.undo()
    (rows,) = filled(tmp_path).blocks()
    assert np.array_equal(features, rows["features"])


def test_float16(tmp_path: Path) -> None:
    out = tmp_path / "embeddings.h5"
    write_embeddings(out, filled(tmp_path), table(), attrs=ATTRS, dtype="float16")
    got = read_embeddings(out)
    (rows,) = filled(tmp_path).blocks()
    assert got.features.dtype == np.float16
    np.testing.assert_allclose(got.features, rows["features"], rtol=1e-3)


def test_a_feature_too_large_for_float16(tmp_path: Path) -> None:
    scratch = PartialRows(tmp_path / "embeddings.h5", row=row_type(D, K), identity={}, batch=4)
    scratch.open(restart=True)
    rows = np.zeros(N, scratch.row)
    rows["features"][3, 2] = 1e6
    scratch.append(rows)
    with pytest.raises(BadInput, match="too large for float16: pass --dtype float32"):
        write_embeddings(tmp_path / "embeddings.h5", scratch, table(), attrs=ATTRS, dtype="float16")
    assert not (tmp_path / "embeddings.h5").exists()


@pytest.mark.parametrize("n", [2, 900])
def test_as_many_class_names_as_are_allowed_can_be_stored(tmp_path: Path, n: int) -> None:
    names = [f"{i:03d}" + "é" * ((MOST_CLASS_BYTES - 2 - 9 * n) // (2 * n)) for i in range(n)]
    check_classes(names)
    scratch = PartialRows(tmp_path / "embeddings.h5", row=row_type(D, n), identity={}, batch=4)
    scratch.open(restart=True)
    scratch.append(np.zeros(N, scratch.row))
    write_embeddings(tmp_path / "embeddings.h5", scratch, table(), attrs=ATTRS | {"classes": names})
    assert read_embeddings(tmp_path / "embeddings.h5").classes == names
    with pytest.raises(BadInput, match=f"the names of {n + 1} classes take"):
        check_classes([*names, "x" * 5000])


@pytest.mark.parametrize("n", [N - 1, N + 1])
def test_another_number_of_rows_than_tiles(tmp_path: Path, n: int) -> None:
    """P1."""
    with pytest.raises(BadArtifact, match=f"{n} rows for 10 tiles: pass --restart"):
        write_embeddings(tmp_path / "embeddings.h5", filled(tmp_path, n), table(), attrs=ATTRS)
    assert not (tmp_path / "embeddings.h5").exists()


def test_a_full_disk_leaves_the_former_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P1. h5py gives the system's error in its message."""
    path = tmp_path / "embeddings.h5"
    write_embeddings(path, filled(tmp_path), table(), attrs=ATTRS)
    before = path.read_bytes()

    def full(self: object, *words: object, **more: object) -> None:
        raise OSError(f"Can't write data (file write failed: errno = {errno.ENOSPC}, error message = 'No space')")

    monkeypatch.setattr(h5py.File, "create_dataset", full)
    with pytest.raises(DiskFull, match=r"embeddings\.h5"):
        write_embeddings(path, filled(path.parent), table(), attrs=ATTRS)
    assert path.read_bytes() == before
    assert not list(path.parent.glob(".*.tmp"))


@pytest.mark.parametrize("name", ["layer", "encoder"])
def test_what_made_the_features_has_no_default(tmp_path: Path, name: str) -> None:
    attrs = {key: value for key, value in ATTRS.items() if key != name}
    with pytest.raises(ValueError, match=name):
        write_embeddings(tmp_path / "embeddings.h5", filled(tmp_path), table(), attrs=attrs)
    assert not (tmp_path / "embeddings.h5").exists()
