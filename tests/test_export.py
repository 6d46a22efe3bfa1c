"""export as a command: each file is read back by code written as its program's own reader is."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from pipeline import export
from pipeline.storage import records
from pipeline.storage.embeddings import reader
from pipeline.storage.embeddings.reader import read_embeddings

EmbeddedSlide = Callable[..., Path]
LOST = (0, 5)
KEPT = [row for row in range(12) if row not in LOST]


@pytest.fixture
def slide(fitted_base: Path, embedded_slide: EmbeddedSlide, tmp_path: Path) -> Path:
    """Embeddings of a slide of 12 tiles, two of which could not be read."""
    return embedded_slide(fitted_base / "run", tmp_path / "one.h5", lost=LOST)


def put(base: Path, *words: str | Path) -> int:
    return export.main(["--run", str(base / "run"), *map(str, words)])


def one_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, text
    assert "Traceback" not in text
    return lines[0]


def read_as_clam(data_dir: Path, slide_id: str, *, use_h5: bool) -> tuple[torch.Tensor, np.ndarray | None]:
    """What CLAM's Generic_MIL_Dataset does for one slide."""
    if not use_h5:
        return torch.load(data_dir / "pt_files" / f"{slide_id}.pt", weights_only=True), None
    with h5py.File(data_dir / "h5_files" / f"{slide_id}.h5", "r") as hdf5_file:
        features = hdf5_file["features"][:]
        coords = hdf5_file["coords"][:]
    return torch.from_numpy(features), coords


def read_as_trident(path: Path) -> tuple[np.ndarray, dict[str, object], np.ndarray]:
    """What TRIDENT does: features as a matrix, coordinates by `read_coords`, sizes as its heat maps ask for them."""
    with h5py.File(path, "r") as file:
        features = file["features"][:]
        attrs, coords = dict(file["coords"].attrs), file["coords"][:]
    for name in ("patch_size", "patch_size_level0", "overlap", "level0_width", "level0_height"):
        assert int(attrs[name]) == attrs[name]
    assert float(attrs["level0_magnification"]) / float(attrs["target_magnification"]) == pytest.approx(1)
    return features, attrs, coords


def test_clam(fitted_base: Path, slide: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert put(fitted_base, "--embeddings", slide, "--to", "clam", "--out", tmp_path / "out") == 3
    assert "2 tiles could not be read and are left out" in capfd.readouterr().err
    known = read_embeddings(slide)
    features, none = read_as_clam(tmp_path / "out", "one", use_h5=False)
    again, coords = read_as_clam(tmp_path / "out", "one", use_h5=True)
    assert none is None
    assert coords is not None
    assert known.coords is not None
    assert features.dtype == torch.float32
    assert coords.dtype == np.int32
    assert torch.equal(features, again)
    assert np.array_equal(features, known.features[KEPT])
    assert np.array_equal(coords, known.coords[KEPT])
    record = records.check_artifact(tmp_path / "out/h5_files/one.h5", schema="export/1.0")
    assert list(record["outputs"]) == ["../pt_files/one.pt"]
    assert (record["details"]["n_tiles"], record["details"]["n_left_out"]) == (10, 2)


def test_trident(fitted_base: Path, slide: Path, tmp_path: Path) -> None:
    assert put(fitted_base, "--embeddings", slide, "--to", "trident", "--out", tmp_path / "out") == 3
    features, attrs, coords = read_as_trident(tmp_path / "out" / "one.h5")
    known = read_embeddings(slide)
    assert known.coords is not None
    assert np.array_equal(features, known.features[KEPT])
    assert np.array_equal(coords, known.coords[KEPT])
    assert coords.dtype == np.int64
    assert (attrs["patch_size_level0"], attrs["overlap"], attrs["level0_width"]) == (64, 0, 1000)
    with h5py.File(tmp_path / "out" / "one.h5") as file:
        assert file["features"].attrs["name"].decode() == file["coords"].attrs["name"].decode() == "one"


@pytest.mark.skipif(importlib.util.find_spec("anndata") is None, reason="anndata is not installed")
@pytest.mark.parametrize("of", ["slide", "tiles"])
def test_anndata(fitted_base: Path, slide: Path, tmp_path: Path, of: str) -> None:
    import anndata

    path = slide if of == "slide" else fitted_base / "run" / "embeddings.h5"
    words = ["--embeddings", slide] if of == "slide" else []
    assert put(fitted_base, *words, "--to", "anndata", "--out", tmp_path / "a.h5ad") == (3 if of == "slide" else 0)
    found, known = anndata.read_h5ad(tmp_path / "a.h5ad"), read_embeddings(path)
    used = known.status == 0
    assert np.array_equal(found.X, known.features[used])
    assert list(found.obs_names) == [tile for tile, ok in zip(known.tile_id, used, strict=True) if ok]
    assert np.array_equal(found.obsm["logits"], known.logits[used])
    assert json.loads(found.uns["histoheads"]["classes"]) == ["ADI", "TUM"]
    assert found.uns["histoheads"]["model_sha256"] == known.attrs["model_sha256"]
    if of == "slide":
        assert known.coords is not None
        assert np.array_equal(found.obsm["spatial"], known.coords[used])
        assert list(found.obs["label"].unique()) == [""]
    else:
        assert "spatial" not in found.obsm
        assert list(found.obs["label"]) == [known.classes[code] for code in known.label]
        assert set(found.obs["split"]) == {"train", "val", "test"}


@pytest.mark.skipif(importlib.util.find_spec("anndata") is not None, reason="anndata is installed")
def test_without_anndata(fitted_base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert put(fitted_base, "--to", "anndata", "--out", tmp_path / "a.h5ad") == 1
    assert "pip install 'histoheads[anndata]'" in one_line(capfd.readouterr().err)
    assert list(tmp_path.glob("a.h5ad*")) == []


def test_csv(fitted_base: Path, slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "BLOCK_ROWS", 5)
    assert put(fitted_base, "--embeddings", slide, "--to", "csv", "--out", tmp_path / "a.csv") == 3
    table, known = pd.read_csv(tmp_path / "a.csv", keep_default_na=False), read_embeddings(slide)
    assert known.coords is not None
    assert list(table.columns[:9]) == ["tile_id", "path", "group", "label", "split", "x", "y", "f0", "f1"]
    assert np.array_equal(table[["x", "y"]], known.coords[KEPT])
    features = table[[f"f{i}" for i in range(known.features.shape[1])]].to_numpy(np.float32)
    assert np.array_equal(features, known.features[KEPT])
    assert put(fitted_base, "--to", "csv", "--out", tmp_path / "b.csv") == 0
    table = pd.read_csv(tmp_path / "b.csv", keep_default_na=False)
    assert set(table["label"]) == {"ADI", "TUM"}
    assert "x" not in table.columns
    assert put(fitted_base, "--to", "csv", "--out", tmp_path / "b.csv") == 0  # an export may be replaced


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--out", "x"], 2, "--to: clam, trident, anndata, csv, model-card or ro-crate is needed"),
        (["--to", "csv"], 2, "--out: a folder (clam, trident) or a file"),
        (["--to", "clam", "--out", "out"], 1, "clam files need the coordinates"),
        (["--to", "trident", "--out", "out"], 1, "trident files need the coordinates"),
        (["--to", "clam", "--out", "one.h5"], 2, "a file, but --to clam writes into a folder"),
        (["--to", "csv", "--out", "."], 2, "a folder, but --to csv writes a file"),
        (["--to", "csv", "--out", "one.h5"], 2, "exists (embeddings/1.1) and would be replaced"),
        (["--to", "trident", "--embeddings", "one.h5", "--out", "."], 2, "would be replaced"),
        (["--to", "csv", "--embeddings", "none.h5", "--out", "a.csv"], 1, "none.h5: not there"),
    ],
)
def test_what_is_refused(
    fitted_base: Path,
    slide: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(slide.parent)
    before = slide.read_bytes()
    assert put(fitted_base, *words) == code
    assert message in one_line(capfd.readouterr().err)
    assert slide.read_bytes() == before
    assert not (slide.parent / "out").exists()


@pytest.mark.parametrize("form", ["clam", "trident", "csv"])
def test_another_slide_of_the_name_is_kept(
    fitted_base: Path,
    embedded_slide: EmbeddedSlide,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    form: str,
) -> None:
    run, target = fitted_base / "run", {"clam": "h5_files/HE.h5", "trident": "HE.h5", "csv": ""}[form]
    (tmp_path / "p1").mkdir()
    (tmp_path / "p2").mkdir()
    first = embedded_slide(run, tmp_path / "p1" / "HE.h5")
    other = embedded_slide(run, tmp_path / "p2" / "HE.h5", slide_sha256="b" * 64)
    words = ["--to", form, "--out", tmp_path / "out"]
    assert put(fitted_base, "--embeddings", first, *words) == 0
    before = (tmp_path / "out" / target).read_bytes()
    capfd.readouterr()
    assert put(fitted_base, "--embeddings", other, *words) == 1
    line = one_line(capfd.readouterr().err)
    assert "p1" in line
    assert "p2" in line
    assert (tmp_path / "out" / target).read_bytes() == before
    assert put(fitted_base, "--embeddings", first, *words) == 0
    assert put(fitted_base, "--embeddings", other, *words, "--restart") == 0


@pytest.mark.parametrize("name", ["h5_files/one.h5", "pt_files/one.pt"])
def test_files_of_other_programs_are_kept(
    fitted_base: Path, slide: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    file = tmp_path / "out" / name
    file.parent.mkdir(parents=True)
    file.write_bytes(b"by CLAM")
    words = ["--embeddings", slide, "--to", "clam", "--out", tmp_path / "out"]
    assert put(fitted_base, *words) == 2
    assert name in one_line(capfd.readouterr().err)
    assert file.read_bytes() == b"by CLAM"
    assert put(fitted_base, *words, "--restart") == 3


def test_nothing_to_export(
    fitted_base: Path, embedded_slide: EmbeddedSlide, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    slide = embedded_slide(fitted_base / "run", tmp_path / "n.h5", lost=tuple(range(12)))
    assert put(fitted_base, "--embeddings", slide, "--to", "csv", "--out", tmp_path / "a.csv") == 1
    assert "none of its 12 tiles could be read" in one_line(capfd.readouterr().err)
