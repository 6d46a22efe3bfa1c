"""Embeddings of other programs become a run; whatever could be wrong with them is one line."""

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from pipeline import compare, export, fit_heads, import_embeddings, report, verify
from pipeline.api import load_head
from pipeline.storage.embeddings.reader import read_embeddings
from pipeline.storage.records import read_record

D, SIDE = 6, 64
SLIDES = ("A", "B", "C", "D", "E", "F")


def one_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, text
    assert "Traceback" not in text
    return lines[0]


def rows_of(slide: str, n: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Return features (n, D) float32 and coords (n, 2); tiles of two classes take turns."""
    rng = np.random.default_rng(ord(slide))
    features = rng.normal(size=(n, D)).astype(np.float32)
    features[::2] += 2
    return features, np.array([[SIDE * (i % 4), SIDE * (i // 4)] for i in range(n)])


def write_slides(folder: Path, layout: str) -> Path:
    """Write one file for each slide as CLAM, TRIDENT or STAMP does."""
    folder.mkdir()
    for slide in SLIDES:
        features, coords = rows_of(slide)
        with h5py.File(folder / f"{slide}.h5", "w") as file:
            if layout == "stamp":
                file["feats"], file["coords"] = features.astype(np.float16), coords.astype(np.float32)
                file.attrs["extractor"] = "uni"
            else:
                file["features"] = features[None] if layout == "batch" else features
                file["coords"] = coords.astype(np.int64 if layout == "trident" else np.int32)
                file["features"].attrs["encoder"] = "conch_v15"
    return folder


def label_table(*, by: str = "tile_id") -> pd.DataFrame:
    """Return labels of all tiles by tile_id or by slide, x, y."""
    lines = []
    for slide in SLIDES:
        for i, (x, y) in enumerate(rows_of(slide)[1]):
            names = {"tile_id": f"{slide}_x{x}_y{y}"} if by == "tile_id" else {"slide": slide, "x": x, "y": y}
            lines.append({**names, "label": "TUM" if i % 2 else "ADI"})
    return pd.DataFrame(lines)


def put(run: Path, source: Path, labels: Path | pd.DataFrame, *words: str) -> int:
    if isinstance(labels, pd.DataFrame):
        run.mkdir(exist_ok=True)
        labels.to_csv(run / "labels.csv", index=False)
        labels = run / "labels.csv"
    return import_embeddings.main([str(source), "--labels", str(labels), "--run", str(run), *words])


@pytest.mark.parametrize("by", ["tile_id", "slide"])
@pytest.mark.parametrize("layout", ["clam", "trident", "batch", "stamp"])
def test_files_of_slides(tmp_path: Path, layout: str, by: str) -> None:
    source, run = write_slides(tmp_path / "in", layout), tmp_path / "run"
    assert put(run, source, label_table(by=by)) == 0
    content = read_embeddings(run / "embeddings.h5")
    assert content.features.dtype == (np.float16 if layout == "stamp" else np.float32)
    expected = np.concatenate([rows_of(slide)[0] for slide in SLIDES])
    assert np.array_equal(content.features, expected.astype(content.features.dtype))
    assert content.tile_id[1] == "A_x64_y0"
    assert content.label.tolist() == [0, 1] * 24
    assert content.group[::8] == list(SLIDES)
    by_group = pd.Series(content.split).groupby(content.group).nunique()
    assert (by_group == 1).all(), "whole slides"
    assert not content.sha256.any()
    details = json.loads((run / "embeddings.h5.json").read_text())["details"]
    assert details["encoder"]["name"] == ("uni" if layout == "stamp" else "conch_v15")
    assert details["encoder"]["pixels"] == "unseen"
    assert verify.main(["--run", str(run)]) in (0, 1)
    assert put(run, source, run / "labels.csv") == 0, "current"


def test_an_imported_run_goes_through_all_later_stages(tmp_path: Path) -> None:
    source = write_slides(tmp_path / "in", "clam")
    for name in ("a", "b"):
        run = tmp_path / name
        assert put(run, source, label_table(), "--quiet") == 0
        assert fit_heads.main(["--run", str(run), "--threads", "1", "--rounds", "2", "--quiet"]) == 0
    assert report.main(["--run", str(tmp_path / "a"), "--quiet"]) == 0
    assert "imported" in (tmp_path / "a" / "comparison.md").read_text()
    words = [str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "table"), "--quiet"]
    assert compare.main(words) == 0
    table = pd.read_csv(tmp_path / "table" / "compare.csv")
    table = table[table["head"].isna()].set_index(["run", "metric"])["value"]
    assert (table["b", "dimension"], table["b", "bytes_per_tile"]) == (D, 4 * D)
    assert "| b | conch\\_v15 | not known |" in (tmp_path / "table" / "compare.md").read_text()
    out = str(tmp_path / "again.csv")
    assert export.main(["--run", str(tmp_path / "a"), "--to", "csv", "--out", out, "--quiet"]) == 0


@pytest.mark.parametrize("to", ["csv", "anndata"])
def test_a_round_trip_gives_the_same_predictions_to_the_bit(fitted_run: Path, tmp_path: Path, to: str) -> None:
    if to == "anndata":
        pytest.importorskip("anndata")
    file, run = tmp_path / ("own.csv" if to == "csv" else "own.h5ad"), tmp_path / "again"
    assert export.main(["--run", str(fitted_run), "--to", to, "--out", str(file)]) == 0
    labels = pd.read_csv(fitted_run / "manifest.csv")[["tile_id", "label", "split"]]
    assert put(run, file, labels) == 0
    own, again = read_embeddings(fitted_run / "embeddings.h5"), read_embeddings(run / "embeddings.h5")
    assert own.attrs["features_sha256"] == again.attrs["features_sha256"]
    assert fit_heads.main(["--run", str(run), "--threads", "1", "--rounds", "4"]) == 0
    before, after = (pd.read_csv(folder / "predictions.csv") for folder in (fitted_run, run))
    for head in ("svm", "xgboost", "knn"):
        a, b = (table[table["head"] == head].reset_index(drop=True) for table in (before, after))
        pd.testing.assert_frame_equal(a, b, check_exact=True)


@pytest.mark.parametrize("to", ["trident", "clam", "csv", "anndata"])
def test_a_slide_comes_back_with_the_same_predictions_to_the_bit(
    fitted_run: Path, embedded_slide: Callable[..., Path], tmp_path: Path, to: str
) -> None:
    if to == "anndata":
        pytest.importorskip("anndata")
    slide = embedded_slide(fitted_run, tmp_path / "one.h5", lost=())
    out = tmp_path / {"csv": "out.csv", "anndata": "out.h5ad"}.get(to, "out")
    words = ["--run", str(fitted_run), "--embeddings", str(slide), "--to", to, "--out", str(out)]
    assert export.main(words) == 0
    source = {"clam": out / "h5_files" / "one.h5", "trident": out / "one.h5"}.get(to, out)
    own = read_embeddings(slide)
    assert own.coords is not None
    labels = pd.DataFrame({"tile_id": own.tile_id, "label": ["A", "B"] * 6})
    if to in ("clam", "trident"):
        labels = labels.drop(columns="tile_id").assign(slide="one", x=own.coords[:, 0], y=own.coords[:, 1])
    assert put(tmp_path / "again", source, labels, "--split-by", "tile") == 0
    again = read_embeddings(tmp_path / "again" / "embeddings.h5")
    if to in ("clam", "trident"):
        assert again.tile_id == [f"one_x{x}_y{y}" for x, y in own.coords.tolist()]
    assert np.array_equal(again.features, own.features)
    for name in ("svm", "xgboost"):
        head = load_head(fitted_run, name)
        assert np.array_equal(head.predict_proba(again.features), head.predict_proba(own.features))


def test_arrays_and_tables(tmp_path: Path) -> None:
    features = np.concatenate([rows_of(slide)[0] for slide in SLIDES])
    labels = label_table().assign(group=np.repeat(SLIDES, 8))
    np.save(tmp_path / "a.npy", features)
    table = pd.DataFrame(features, columns=[f"f{i}" for i in range(D)]).assign(tile_id=labels["tile_id"])
    table.to_csv(tmp_path / "a.csv", index=False)
    sources = [tmp_path / "a.npy", tmp_path / "a.csv"]
    if pytest.importorskip("pyarrow"):
        table.to_parquet(tmp_path / "a.parquet")
        sources.append(tmp_path / "a.parquet")
    with h5py.File(tmp_path / "a.h5ad", "w") as file:
        file["obsm/X_uni"], file["obs/index"] = features, [name.encode() for name in labels["tile_id"]]
        file["obs"].attrs["_index"] = "index"
    sources.append(tmp_path / "a.h5ad")
    for i, source in enumerate(sources):
        key = ["--key", "obsm/X_uni"] if source.suffix == ".h5ad" else []
        assert put(tmp_path / f"run{i}", source, labels, *key) == 0
        content = read_embeddings(tmp_path / f"run{i}" / "embeddings.h5")
        assert np.array_equal(content.features, features), source.name
        assert content.tile_id == list(labels["tile_id"])


def broken(folder: Path, how: str) -> tuple[Path, pd.DataFrame, str]:
    """Return a source, labels, and what the error has to name."""
    source, labels, named = write_slides(folder, "clam"), label_table(), "labels.csv"
    path = folder / "B.h5"
    features, coords = rows_of("B")
    if how == "doubled label":
        labels = pd.concat([labels, labels[:1]])
    elif how == "doubled tile":
        coords[1], named = coords[0], "B_x0_y0"
    elif how == "NaN":
        features[3, 2], named = np.nan, "B_x192_y0"
    elif how == "width":
        features, named = features[:, :4], "D.h5 A.h5 B.h5 C.h5"
    elif how == "no coords":
        coords, named = coords[:3], "B.h5"
    elif how == "place":
        coords, named = coords.astype(np.float64), "B.h5"
        coords[1] = np.nan
    elif how == "no label fits":
        labels["tile_id"] = labels["tile_id"] + ".png"
    elif how == "labels without tile":
        labels.loc[:4, "tile_id"] = [f"Z{i}" for i in range(5)]
        named = "Z0"
    elif how == "group contradicts slide":
        labels["group"] = ["p1", *["p2"] * 47]
        named = "slide A"
    elif how == "group in two splits":
        labels["split"] = ["train", "val", "test", "test"] * 12
    elif how == "no labels":
        labels["label"] = ""
    elif how == "split without rows":
        labels["split"], named = ["train", "test"] * 24, "val"
    elif how == "unknown split":
        labels["split"] = "hold-out"
    elif how == "integers":
        features, named = features.astype(np.int32), "B.h5"
    path.unlink()
    with h5py.File(path, "w") as file:
        file["features"], file["coords"] = features, coords
    return source, labels, named


@pytest.mark.parametrize(
    "how",
    [
        *(
            "doubled label",
            "doubled tile",
            "NaN",
            "width",
            "no coords",
            "place",
            "no label fits",
            "labels without tile",
        ),
        *("group contradicts slide", "group in two splits", "unknown split", "integers"),
        *("no labels", "split without rows"),
    ],
)
def test_each_fault_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str) -> None:
    source, labels, named = broken(tmp_path / "in", how)
    assert put(tmp_path / "run", source, labels) == 1
    line = one_line(capsys.readouterr().err)
    assert any(name in line for name in named.split(" ")) if how == "width" else named in line
    assert not (tmp_path / "run" / "embeddings.h5").exists()


@pytest.mark.parametrize("layout", ["clam", "npy"])
def test_without_a_group_the_slide_is_the_group(tmp_path: Path, layout: str) -> None:
    """An empty cell takes the group of the slide's other tiles, else the slide's name."""
    labels = label_table(by="slide" if layout == "npy" else "tile_id")
    labels["group"] = ["p1"] + [""] * 47
    source = write_slides(tmp_path / "in", "clam")
    if layout == "npy":
        source = tmp_path / "a.npy"
        np.save(source, np.random.default_rng(0).normal(size=(48, 3)).astype(np.float32))
    assert put(tmp_path / "run", source, labels) == 0
    groups = read_embeddings(tmp_path / "run" / "embeddings.h5").group
    assert list(groups) == ["p1"] * 8 + [slide for slide in SLIDES[1:] for _ in range(8)]


@pytest.mark.parametrize("columns", [["f0", "f1", "f1"], ["f0", "f2"], ["f1", "f2"]])
def test_columns_of_features_that_are_doubled_or_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], columns: list[str]
) -> None:
    labels = label_table().assign(group=np.repeat(SLIDES, 8))
    lines = [
        ",".join(["tile_id", *columns]),
        *(",".join([name, *["0.5"] * len(columns)]) for name in labels["tile_id"]),
    ]
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    assert put(tmp_path / "run", tmp_path / "a.csv", labels) == 1
    assert "f0, f1" in one_line(capsys.readouterr().err)


def test_rows_without_a_slide_do_not_share_the_group_of_another_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = label_table().assign(group=["p1"] + [""] * 47, split=["train", "val", "test"] * 16, patients="x")
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(48, 3)).astype(">f4"))
    assert put(tmp_path / "run", tmp_path / "a.npy", labels) == 0
    assert read_embeddings(tmp_path / "run" / "embeddings.h5").group == ["p1"] + [""] * 47
    lines = capsys.readouterr().err
    assert "the group of 47 rows is not known" in lines
    assert "without a meaning: patients" in lines


def test_a_slide_of_the_labels_with_two_groups(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = label_table(by="slide").assign(group=["p1", *["p2"] * 47])
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(48, 3)).astype(np.float32))
    assert put(tmp_path / "run", tmp_path / "a.npy", labels) == 1
    assert "slide A" in one_line(capsys.readouterr().err)


def test_a_missing_group_in_a_table_is_no_group(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyarrow")
    labels = label_table().assign(split=["train", "val", "test"] * 16)
    table = pd.DataFrame({"tile_id": labels["tile_id"], "f0": np.arange(48.0), "f1": 0.5})
    table["group"] = ["p1", *[None] * 47]
    table.to_parquet(tmp_path / "a.parquet")
    assert put(tmp_path / "run", tmp_path / "a.parquet", labels) == 0
    assert read_embeddings(tmp_path / "run" / "embeddings.h5").group == ["p1"] + [""] * 47
    table.loc[5, "tile_id"] = None
    table.to_parquet(tmp_path / "a.parquet")
    assert put(tmp_path / "other", tmp_path / "a.parquet", labels) == 1
    assert "row 6 has no tile_id" in one_line(capsys.readouterr().err)


def test_a_prepared_run_takes_no_embeddings(prepared_run: Path, tmp_path: Path) -> None:
    labels = label_table().assign(group=np.repeat(SLIDES, 8))
    assert put(prepared_run, write_slides(tmp_path / "in", "clam"), labels) == 2


def test_faults_of_arrays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = label_table().assign(group=np.repeat(SLIDES, 8), row=range(48))
    np.save(tmp_path / "a.npy", np.zeros((47, 3), np.float32))
    np.save(tmp_path / "b.npy", np.random.default_rng(0).normal(size=(48, 3)).astype(np.float32))
    np.save(tmp_path / "c.npy", np.array([{"a": 1}] * 48), allow_pickle=True)
    shuffled = labels.iloc[::-1]
    for name, table in (("a.npy", labels), ("b.npy", shuffled), ("c.npy", labels), ("d.npy", labels)):
        assert put(tmp_path / "run", tmp_path / name, table) == 1
        one_line(capsys.readouterr().err)
    assert put(tmp_path / "run", tmp_path / "b.npy", labels) == 0


def test_a_group_of_the_source_that_contradicts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = label_table().assign(group=np.repeat(SLIDES, 8))
    table = pd.DataFrame({"tile_id": labels["tile_id"], "group": "other", "f0": 0.5, "f1": np.arange(48.0)})
    table.to_csv(tmp_path / "a.csv", index=False)
    assert put(tmp_path / "run", tmp_path / "a.csv", labels) == 1
    assert "A_x0_y0" in one_line(capsys.readouterr().err)


def test_copies_in_two_splits_and_missing_labels_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_slides(tmp_path / "in", "clam")
    with h5py.File(source / "F.h5", "r+") as file:
        file["features"][0] = rows_of("A")[0][0]
    labels = label_table().assign(split=np.repeat(["train", "train", "train", "val", "test", "test"], 8))
    labels = labels.drop(index=[9])
    assert put(tmp_path / "run", source, labels) == 0
    lines = capsys.readouterr().err
    assert "1 rows have no label" in lines
    assert "F_x0_y0" in lines
    content = read_embeddings(tmp_path / "run" / "embeddings.h5")
    assert (content.label[9], content.split[9]) == (-1, 255)


FORMATS = ("clam", "trident", "batch", "stamp", "h5ad", "parquet", "csv", "npy")


def write_as(folder: Path, form: str, features: np.ndarray) -> Path:
    """Write the rows of all slides in one of the formats."""
    if form in ("clam", "trident", "batch", "stamp"):
        source = write_slides(folder, form)
        for i, slide in enumerate(SLIDES):
            with h5py.File(source / f"{slide}.h5", "r+") as file:
                name = "feats" if form == "stamp" else "features"
                own = features[8 * i : 8 * i + 8].astype(file[name].dtype)
                del file[name]
                file[name] = own[None] if form == "batch" else own
        return source
    folder.mkdir()
    path, ids = folder / f"a.{form}", list(label_table()["tile_id"])
    if form == "npy":
        np.save(path, features)
    elif form == "h5ad":
        with h5py.File(path, "w") as file:
            file["X"], file["obs/index"] = features, [name.encode() for name in ids]
            file["obs"].attrs["_index"] = "index"
    else:
        table = pd.DataFrame(features, columns=[f"f{i}" for i in range(D)]).assign(tile_id=ids)
        table.to_csv(path, index=False) if form == "csv" else table.to_parquet(path)
    return path


@pytest.mark.parametrize("form", FORMATS)
def test_a_planted_leak_is_found_in_every_format(tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str) -> None:
    """A label in a feature, a copy of a tile in another split, and a patient in two splits."""
    if form == "parquet":
        pytest.importorskip("pyarrow")
    features = np.concatenate([rows_of(slide)[0] for slide in SLIDES])
    labels = label_table().assign(group=np.repeat(["p1", "p1", "p2", "p3", "p4", "p5"], 8))
    labels["split"] = np.repeat(["train", "train", "train", "val", "test", "test"], 8)
    honest = write_as(tmp_path / "honest", form, features)
    assert put(tmp_path / "a", honest, labels) == 0
    details = read_record(tmp_path / "a" / "embeddings.h5")["details"]
    assert (details["copies_across_splits"], details["label_features"]) == (0, [])
    leaky = features.copy()
    leaky[:, 2] = (labels["label"] == "TUM").astype(np.float32)
    leaky[47] = leaky[1]
    assert put(tmp_path / "b", write_as(tmp_path / "leaky", form, leaky), labels) == 0
    details = read_record(tmp_path / "b" / "embeddings.h5")["details"]
    assert (details["copies_across_splits"], details["label_features"]) == (1, [2])
    lines = capsys.readouterr().err
    assert "first f2" in lines
    assert "first F_x192_y64 and A_x64_y0" in lines
    labels.loc[8:15, "split"] = "test"
    assert put(tmp_path / "c", honest, labels) == 1
    assert "p1" in one_line(capsys.readouterr().err)


def test_few_labels_without_a_tile_are_skipped(tmp_path: Path) -> None:
    source = write_slides(tmp_path / "in", "clam")
    labels = pd.concat([label_table(), pd.DataFrame({"tile_id": ["Z"], "label": ["ADI"]})])
    assert put(tmp_path / "run", source, labels, "--max-bad", "0.1") == 3


def test_a_run_with_a_network_is_never_overwritten(trained_run: Path, tmp_path: Path) -> None:
    source = write_slides(tmp_path / "in", "clam")
    assert put(trained_run, source, label_table()) == 2
