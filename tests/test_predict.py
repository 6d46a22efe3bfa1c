"""predict as a command: the heads' own answers on a grid, files that say what they are, and what is refused."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline import fit_heads, predict, train, verify
from pipeline.heads.svm.classifier import Svm
from pipeline.inference.embeddings import predict_rows
from pipeline.inference.saved_heads import SavedHeads, load_heads, read_summary
from pipeline.storage import atomic, records
from pipeline.storage.embeddings import reader
from pipeline.storage.embeddings.reader import read_embeddings
from pipeline.storage.predictions.csv_table import read_predictions
from pipeline.storage.predictions.unlabelled import read_predictions as read_tiles
from pipeline.storage.protocol import PartEntry, Protocol, write_protocol

from .builders import make_run

EmbeddedSlide = Callable[..., Path]
Words = Callable[..., list[str]]
HEADS = ["softmax", "svm", "xgboost", "mean"]
LONE = ["map.geojson", "map.png", "probabilities.png", "uncertainty.png"]


@pytest.fixture
def slide(fitted_run: Path, embedded_slide: EmbeddedSlide) -> Path:
    """Embeddings of a slide of 3 x 4 tiles beside the run."""
    return embedded_slide(fitted_run, fitted_run.parent / "s.h5")


def put(run: Path, *words: str | Path) -> int:
    return predict.main(["--run", str(run), "--device", "cpu", "--threads", "1", "--workers", "0", *map(str, words)])


def one_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, text
    assert "Traceback" not in text
    return lines[0]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_all_heads_answer_as_in_predictions_csv(fitted_run: Path, slide: Path, tmp_path: Path) -> None:
    """The slide's rows are those of tiles of the run, whose answers are known."""
    out = tmp_path / "out"
    assert put(fitted_run, "--embeddings", slide, "--out", out, "--head", "all") == 0
    got, known = read_tiles(out / "predictions.csv"), read_predictions(fitted_run / "predictions.csv")
    ids = read_embeddings(fitted_run / "embeddings.h5").tile_id
    drawn = [ids[7 * i % len(ids)] for i in range(12)]
    assert list(dict.fromkeys(got["head"])) == HEADS
    for head in HEADS:
        mine = got[got["head"] == head].reset_index(drop=True)
        theirs = known[known["head"] == head].set_index("tile_id").loc[drawn]
        assert list(mine["predicted"]) == list(theirs["predicted"])
        np.testing.assert_allclose(mine[["p_ADI", "p_TUM"]], theirs[["p_ADI", "p_TUM"]], atol=1e-6)
        assert mine[["x", "y"]].to_numpy()[:5].tolist() == [[100, 200], [164, 200], [228, 200], [292, 200], [100, 264]]
    shared = ["agreement.csv", "areas.csv", "disagreement.png", "map.html", "map.md", "maps.png"]
    per_head = [name.replace(".", f"-{head}.") for head in HEADS for name in LONE]
    assert files(out) == sorted([*shared, *per_head, "predictions.csv", "predictions.csv.json"])
    for name in files(out):
        if name.endswith(".png"):
            with Image.open(out / name) as image:
                image.load()
    record = records.check_artifact(out / "predictions.csv", schema="tile_predictions/1.0")
    assert sorted(record["outputs"]) == sorted([*shared, *per_head])
    assert record["details"]["saw_source"] is False
    assert sum(float(row["mm2"]) for row in table(out / "areas.csv")) == pytest.approx(len(HEADS) * 12 * 0.032**2)
    assert "not known" not in (out / "map.md").read_text()


def test_the_map_is_that_of_the_answers(fitted_run: Path, slide: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert put(fitted_run, "--embeddings", slide, "--out", out, "--head", "svm", "--geojson", "tiles") == 0
    assert files(out) == sorted([*LONE, "areas.csv", "map.html", "map.md", "predictions.csv", "predictions.csv.json"])
    got = read_tiles(out / "predictions.csv")
    likeliest = np.array(["ADI", "TUM"])[got[["p_ADI", "p_TUM"]].to_numpy().argmax(axis=1)]
    features = json.loads((out / "map.geojson").read_text())["features"]
    assert [f["properties"]["classification"]["name"] for f in features] == list(likeliest)
    assert [f["geometry"]["coordinates"][0][0] for f in features] == got[["x", "y"]].to_numpy().tolist()
    shares = {row["class"]: float(row["share"]) for row in table(out / "areas.csv")}
    assert shares["ADI"] == pytest.approx((likeliest == "ADI").mean(), abs=1e-5)


def test_repeating_does_nothing_and_other_options_leave_nothing_old(
    fitted_run: Path, slide: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert put(fitted_run, "--embeddings", slide, "--out", out, "--head", "svm") == 0
    before = {name: (out / name).read_bytes() for name in files(out)}
    capfd.readouterr()
    assert put(fitted_run, "--embeddings", slide, "--out", out, "--head", "svm") == 0
    assert f"predict: current, {out}" in capfd.readouterr().err
    (out / "map.geojson").write_text("{}")  # damaged: made again, the same
    assert put(fitted_run, "--embeddings", slide, "--out", out, "--head", "svm") == 0
    changed = {name for name in files(out) if (out / name).read_bytes() != before[name]}
    assert changed <= {"predictions.csv.json"}
    (out / "iou.csv").write_text("the user's own")
    assert put(fitted_run, "--embeddings", slide, "--out", out, "--head", "all", "--geojson", "none") == 0
    assert not {*LONE} & {*files(out)}
    assert {"iou.csv", "map-svm.png", "maps.png"} <= {*files(out)}
    assert put(fitted_run, "--tiles", fitted_run.parent / "tiles", "--out", out) == 1  # of other content
    assert put(fitted_run, "--tiles", fitted_run.parent / "tiles", "--out", out, "--restart") == 0
    assert files(out) == ["iou.csv", "predictions.csv", "predictions.csv.json"]


def test_another_slide_or_folder_of_the_name_is_refused(
    fitted_run: Path, embedded_slide: EmbeddedSlide, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p1" / "new").mkdir(parents=True)
    (tmp_path / "p2" / "new").mkdir(parents=True)
    for i, patient in enumerate(("p1", "p2")):
        tile = np.full((20, 20, 3), 100 + i, np.uint8)
        Image.fromarray(tile).save(tmp_path / patient / "new" / "t.png")
    slides = [embedded_slide(fitted_run, tmp_path / f"p{i}" / "HE.h5", slide_sha256=f"{i}" * 64) for i in (1, 2)]
    for option, (first, second) in {
        "--embeddings": slides,
        "--tiles": [tmp_path / "p1" / "new", tmp_path / "p2" / "new"],
    }.items():
        assert put(fitted_run, option, first) == 0
        table = fitted_run / "maps" / first.stem / "predictions.csv"
        before = table.read_bytes()
        capfd.readouterr()
        assert put(fitted_run, option, second) == 1
        line = one_line(capfd.readouterr().err)
        assert "has the same name but another content" in line
        assert "p1/" in line
        assert "p2/" in line
        assert table.read_bytes() == before
        assert put(fitted_run, option, first) == 0
        assert put(fitted_run, option, second, "--restart") == 0


def test_coordinates_for_qupath_count_from_the_bounds(
    fitted_run: Path, embedded_slide: EmbeddedSlide, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """QuPath crops MIRAX and SCN to the scanned area; /coords and predictions.csv stay in the whole plane."""
    slide = embedded_slide(fitted_run, tmp_path / "s.h5", bounds_x=60, bounds_y=150)
    for objects in ("regions", "tiles"):
        assert put(fitted_run, "--embeddings", slide, "--out", tmp_path / objects, "--geojson", objects) == 0
        content = json.loads((tmp_path / objects / "map.geojson").read_text())
        rings = [ring for feature in content["features"] for ring in feature["geometry"]["coordinates"]]
        points = np.concatenate([np.array(ring) for ring in rings])
        assert points.min(axis=0).tolist() == [40, 50]
        assert points.max(axis=0).tolist() == [40 + 4 * 64, 50 + 3 * 64]
        assert content["histoheads"]["origin_level0"] == [60, 150]
        assert read_tiles(tmp_path / objects / "predictions.csv")[["x", "y"]].min().tolist() == [100, 200]
    assert "counts from the scanned area at (60, 150) px" in capfd.readouterr().err


def test_tiles_that_could_not_be_read_are_missing_not_predicted(
    fitted_run: Path, embedded_slide: EmbeddedSlide, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    slide, out = embedded_slide(fitted_run, tmp_path / "s.h5", lost=(0, 5)), tmp_path / "out"
    assert put(fitted_run, "--embeddings", slide, "--out", out) == 3
    assert "2 tiles could not be read" in capfd.readouterr().err
    got = read_tiles(out / "predictions.csv")
    assert len(got) == 10
    assert [100, 200] not in got[["x", "y"]].to_numpy().tolist()
    assert "2 could not be read and are shown as missing" in (out / "map.md").read_text()
    assert sum(int(row["n_cells"]) for row in table(out / "areas.csv")) == 10
    assert len(records.read_record(out / "predictions.csv")["details"]["skipped"]) == 2
    assert put(fitted_run, "--embeddings", slide, "--out", out) == 3  # current, and still not whole
    nothing = embedded_slide(fitted_run, tmp_path / "n.h5", lost=tuple(range(12)))
    assert put(fitted_run, "--embeddings", nothing, "--out", tmp_path / "none") == 1
    assert "none of its 12 tiles could be read" in one_line(capfd.readouterr().err)


def test_a_network_that_saw_the_source_is_told_everywhere(
    fitted_run: Path, embedded_slide: EmbeddedSlide, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    slide, out = embedded_slide(fitted_run, tmp_path / "s.h5", saw_source=True), tmp_path / "out"
    assert put(fitted_run, "--embeddings", slide, "--out", out) == 0
    assert "the map is optimistic" in capfd.readouterr().err
    text = (out / "map.md").read_text()
    assert text.startswith("# Class map of slide one.tif (the network was trained on tiles of this source)")
    content = json.loads((out / "map.geojson").read_text())
    assert content["histoheads"]["network_saw_source"] is True
    assert content["features"][0]["properties"]["name"].startswith("softmax (saw this source): ")
    assert records.read_record(out / "predictions.csv")["details"]["saw_source"] is True
    unknown = embedded_slide(fitted_run, tmp_path / "u.h5", saw_source=None)
    assert put(fitted_run, "--embeddings", unknown, "--out", tmp_path / "u") == 0
    assert "not known whether the network was trained" in (tmp_path / "u" / "map.md").read_text()


def test_a_map_against_the_truth(fitted_run: Path, slide: Path, tmp_path: Path) -> None:
    """The truth is the softmax map itself, but for one square, and glass beside it."""
    out = tmp_path / "out"
    assert put(fitted_run, "--embeddings", slide, "--out", out, "--geojson", "none") == 0
    got = read_tiles(out / "predictions.csv")
    code = np.full((226, 250), 255, np.uint8)  # squares of 4 px
    for x, y, name in got[["x", "y", "predicted"]].itertuples(index=False):
        code[y // 4 : y // 4 + 16, x // 4 : x // 4 + 16] = ["TUM", "ADI"].index(name)
    square = code[50:66, 25:41]
    square[:] = 1 - square[0, 0]
    code[0, 0] = 0
    truth = tmp_path / "s-truth.png"
    Image.fromarray(code).save(truth)
    truth.with_suffix(".json").write_text(json.dumps({"classes": ["TUM", "ADI"], "cell_level0": 4}))
    assert put(fitted_run, "--embeddings", slide, "--out", out, "--geojson", "none", "--truth", truth) == 0
    text = (out / "map.md").read_text()
    assert "| accuracy | 3072 | 0.917 |" in text
    assert "3073 squares" in text
    rows = {row["class"]: row for row in table(out / "iou.csv")}
    n = {name: int((got["predicted"] == name).sum()) * 256 for name in ("ADI", "TUM")}
    first = got["predicted"][0]
    other = "TUM" if first == "ADI" else "ADI"
    assert float(rows[first]["iou"]) == pytest.approx((n[first] - 256) / n[first], abs=1e-5)
    assert float(rows[other]["iou"]) == pytest.approx(n[other] / (n[other] + 256), abs=1e-5)
    assert int(rows[other]["n_cells"]) == n[other] + 256
    inputs = records.read_record(out / "predictions.csv")["inputs"]
    assert {"s-truth.png", "s-truth.json"} <= {Path(name).name for name in inputs}


def test_overlapping_tiles_are_averaged(fitted_run: Path, embedded_slide: EmbeddedSlide, tmp_path: Path) -> None:
    slide, out = embedded_slide(fitted_run, tmp_path / "s.h5", stride=32), tmp_path / "out"
    assert put(fitted_run, "--embeddings", slide, "--out", out, "--geojson", "detections") == 0
    p = read_tiles(out / "predictions.csv")[["p_ADI"]].to_numpy().reshape(3, 4)
    features = json.loads((out / "map.geojson").read_text())["features"]
    assert len(features) == 4 * 5
    at = {tuple(f["geometry"]["coordinates"][0][0]): f["properties"]["measurements"] for f in features}
    assert at[132, 232]["p ADI"] == pytest.approx(p[:2, :2].mean(), abs=1e-5)
    assert at[100, 200]["p ADI"] == pytest.approx(p[0, 0], abs=1e-5)
    assert "mean probabilities of the tiles that cover it" in (out / "map.md").read_text()


def test_features_are_never_all_in_memory(
    fitted_run: Path, slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert put(fitted_run, "--embeddings", slide, "--out", tmp_path / "a", "--head", "svm") == 0
    monkeypatch.setattr(reader, "BLOCK_ROWS", 5)
    seen: list[int] = []
    answers = SavedHeads.predict

    def counted(self: SavedHeads, features: dict[str, np.ndarray], *more: object) -> object:
        seen.append(len(features["embeddings"]))
        return answers(self, features, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(SavedHeads, "predict", counted)
    assert put(fitted_run, "--embeddings", slide, "--out", tmp_path / "b", "--head", "svm") == 0
    assert seen == [5, 5, 2]
    one, other = (read_tiles(tmp_path / name / "predictions.csv") for name in "ab")
    pd.testing.assert_frame_equal(one, other, rtol=1e-4)


def test_features_relative_to_the_slide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slide is the group: its mean over readable tiles, shrunk to that of the training tiles."""
    run = make_run(tmp_path / "run", bad=(3, 14))
    words = ["--run", str(run), "--threads", "1", "--relative", "group", "--heads", "svm", "--no-baselines"]
    assert fit_heads.main(words) == 3
    record = records.read_record(run / "predictions.csv")
    saved = load_heads(run, read_summary(run, record), ["svm"], record=record, embedded={"options": {}})
    path = run / "embeddings.h5"
    monkeypatch.setattr(reader, "BLOCK_ROWS", 50)
    found = predict_rows(saved, read_embeddings(path, with_features=False), path, {})["svm"]
    content = read_embeddings(path)
    x = content.features[content.status == 0].astype(np.float64)
    mean = content.features[(content.status == 0) & (content.split == 0)].mean(axis=0, dtype=np.float64)
    centre = (x.sum(axis=0) + 5 * mean) / (len(x) + 5)
    pipeline = Svm.load(run / "heads/svm.skops").pipeline
    expected = pipeline.predict(np.hstack([x, x - centre]).astype(np.float32))
    assert (found.predicted == expected).mean() > 0.98  # rounding at a border


def test_a_folder_of_tiles(
    fitted_run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tiles of the run get the answers of predictions.csv; names say nothing, folders do not matter."""
    folder, out = tmp_path / "new", tmp_path / "out"
    (folder / "deep").mkdir(parents=True)
    known = read_predictions(fitted_run / "predictions.csv")
    tiles = list(dict.fromkeys(known["tile_id"]))[:6]
    names = {}
    for i, tile in enumerate(tiles):
        names[f"deep/{i}.png" if i % 2 else f"{i}.png"] = tile
        shutil.copy(fitted_run.parent / "tiles" / f"{tile}.png", folder / list(names)[-1])
    (folder / "notes.txt").write_text("no tile")
    assert put(fitted_run, "--tiles", folder, "--out", out, "--head", "all") == 0
    got = read_tiles(out / "predictions.csv")
    assert (got["x"] == "").all()
    for head in HEADS:
        mine = got[got["head"] == head].set_index("tile_id")
        theirs = known[known["head"] == head].set_index("tile_id")
        assert sorted(mine.index) == sorted(names)
        for name, tile in names.items():
            assert mine.loc[name, "predicted"] == theirs.loc[tile, "predicted"]
            assert mine.loc[name, "p_ADI"] == pytest.approx(theirs.loc[tile, "p_ADI"], rel=1e-3)
    capfd.readouterr()
    assert put(fitted_run, "--tiles", folder, "--out", out, "--head", "all") == 0
    assert "predict: current" in capfd.readouterr().err
    (folder / "0.png").write_bytes(b"torn")
    assert put(fitted_run, "--tiles", folder, "--out", out, "--restart") == 1
    assert "1 of 6 tiles or more cannot be used, above --max-bad 0.01" in one_line(capfd.readouterr().err)
    assert put(fitted_run, "--tiles", folder, "--out", out, "--max-bad", "0.2", "--restart") == 3
    assert len(read_tiles(out / "predictions.csv")) == 5
    assert list(records.read_record(out / "predictions.csv")["details"]["skipped"]) == ["0.png"]

    from pipeline.inference import tiles as answering

    def stopping(*args: object, **more: object) -> object:
        os.kill(os.getpid(), signal.SIGTERM)
        return embed(*args, **more)  # type: ignore[arg-type]

    embed = answering.embed_batches
    monkeypatch.setattr(answering, "embed_batches", stopping)
    assert put(fitted_run, "--tiles", folder, "--out", tmp_path / "stopped", "--max-bad", "0.2") == 143
    assert files(tmp_path / "stopped") == []


def test_a_plan_takes_the_part_whose_network_embedded_the_slide(
    fitted_run: Path, embedded_slide: EmbeddedSlide, words: Words, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "plan"
    (run / "parts").mkdir(parents=True)
    (run / "parts" / "tiles").symlink_to(fitted_run.parent / "tiles")
    plan = Protocol(run, "grouped", 2, [0], 0, [])
    digest = atomic.sha256_file(fitted_run / "manifest.csv")
    for fold in (0, 1):
        part = PartEntry(f"grouped-seed0-fold{fold}", "grouped", 0, fold, None, digest, {}, [], {})
        plan.parts.append(part)
        shutil.copytree(fitted_run, plan.folder(part))
    first, second = (plan.folder(part) for part in plan.parts)
    assert train.main(words("train", first, "--epochs", "1", "--restart")) == 0  # another network
    (run / "manifest.csv").write_bytes((fitted_run / "manifest.csv").read_bytes())
    outputs = [write_protocol(plan)]
    records.write_record(records.Artifact(run / "manifest.csv", "manifest/1.0", "prepare"), outputs=outputs, details={})
    slide = embedded_slide(second, tmp_path / "s.h5")
    assert put(run, "--embeddings", slide, "--out", tmp_path / "out") == 0
    inputs = records.read_record(tmp_path / "out" / "predictions.csv")["inputs"]
    assert any(name.endswith("parts/grouped-seed0-fold1/heads/heads.json") for name in inputs)
    capfd.readouterr()
    foreign = embedded_slide(second, tmp_path / "f.h5", attrs={"model_sha256": "e" * 64})
    assert put(run, "--embeddings", foreign, "--out", tmp_path / "f") == 1
    assert "by the network eeeeeeeeeeee, that of none of the 2 parts" in one_line(capfd.readouterr().err)
    assert put(run, "--tiles", fitted_run.parent / "tiles", "--out", tmp_path / "t") == 2
    assert "is a plan: give the --run of one of its parts" in one_line(capfd.readouterr().err)


def test_verify_knows_maps_in_a_run(fitted_run: Path, slide: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert put(fitted_run, "--embeddings", slide) == 0
    out = fitted_run / "maps" / "s"
    assert (out / "map.md").is_file()
    capfd.readouterr()
    assert verify.main(["--run", str(fitted_run)]) == 0
    assert "is in no record" not in capfd.readouterr().err
    (out / "areas.csv").write_text("")
    assert verify.main(["--run", str(fitted_run)]) == 1
    assert "areas.csv: missing or changed since predict wrote it" in capfd.readouterr().err
    assert put(fitted_run, "--embeddings", slide) == 0
    text = (out / "predictions.csv").read_text().replace(",softmax,", ",guess,")
    (out / "predictions.csv").write_text(text)
    record = records.read_record(out / "predictions.csv")
    outputs = [out / name for name in record["outputs"]]
    records.write_record(records.Artifact(out / "predictions.csv", record["schema"], "predict"), outputs=outputs)
    assert verify.main(["--run", str(fitted_run)]) == 1
    assert "a class or head is unknown" in capfd.readouterr().err


REFUSED: dict[str, tuple[Callable[[Path, EmbeddedSlide, Path], list[str | Path]], int, str]] = {
    "embeddings of tiles": (
        lambda run, make, place: ["--embeddings", run / "embeddings.h5"],
        1,
        "no /coords: its rows are tiles",
    ),
    "another network": (
        lambda run, make, place: ["--embeddings", make(run, place / "s.h5", attrs={"model_sha256": "e" * 64})],
        1,
        "was not made by the network of",
    ),
    "other classes": (
        lambda run, make, place: ["--embeddings", make(run, place / "s.h5", attrs={"classes": ["A", "B"]})],
        1,
        "its classes (A, B) are not those of the heads (ADI, TUM)",
    ),
    "nothing": (lambda run, make, place: [], 2, "give --embeddings FILE.h5 of a slide or --tiles FOLDER"),
    "both": (
        lambda run, make, place: ["--embeddings", place / "s.h5", "--tiles", place],
        2,
        "give --embeddings FILE.h5 of a slide or --tiles FOLDER",
    ),
    "a truth for tiles": (lambda run, make, place: ["--tiles", place, "--truth", place / "t.png"], 2, "--truth: only"),
    "no file": (lambda run, make, place: ["--embeddings", place / "none.h5"], 1, "none.h5: not there"),
    "no tiles": (lambda run, make, place: ["--tiles", place / "empty"], 1, "no such folder of tiles"),
    "the predictions of a run that has lost the rest": (
        lambda run, make, place: [
            *("--embeddings", make(run, place / "s.h5")),
            *("--out", Path(shutil.copytree(run, place / "r", ignore=shutil.ignore_patterns("manifest*")))),
        ],
        2,
        "a run folder, whose predictions.csv would be replaced",
    ),
    "a run for --out": (
        lambda run, make, place: ["--embeddings", make(run, place / "s.h5"), "--out", run],
        2,
        "a run folder, whose predictions.csv would be replaced",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(
    fitted_base: Path, embedded_slide: EmbeddedSlide, tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    words, code, message = REFUSED[name]
    run = fitted_base / "run"
    given = words(run, embedded_slide, tmp_path)
    if "--out" not in given:
        given += ["--out", tmp_path / "out"]
    assert put(run, *given) == code
    assert message in one_line(capfd.readouterr().err)
    assert not (tmp_path / "out" / "predictions.csv").exists()


def test_a_head_that_is_missing(
    fitted_run: Path, slide: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (fitted_run / "heads" / "svm.skops").unlink()
    assert put(fitted_run, "--embeddings", slide, "--out", tmp_path / "out", "--head", "svm") == 1
    assert "svm.skops: missing or changed since fit_heads wrote it" in one_line(capfd.readouterr().err)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(
    fitted_run: Path, slide: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "shut").mkdir(mode=0o500)
    assert put(fitted_run, "--embeddings", slide, "--out", tmp_path / "shut" / "out") == 1
    assert "Permission denied" in one_line(capfd.readouterr().err)


def test_out_that_is_a_file(fitted_run: Path, slide: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert put(fitted_run, "--embeddings", slide, "--out", tmp_path / "file") == 1
    assert "File exists" in one_line(capfd.readouterr().err)


def test_without_shapely_nothing_is_begun(
    fitted_run: Path,
    slide: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "shapely", None)
    assert put(fitted_run, "--embeddings", slide, "--out", tmp_path / "out") == 1
    assert "pip install 'histoheads[slides]'" in one_line(capfd.readouterr().err)
    assert put(fitted_run, "--embeddings", slide, "--out", tmp_path / "out", "--geojson", "tiles") == 0


@pytest.mark.parametrize("thumbnail", ["../s.png", "none.png", None])
def test_a_thumbnail_that_is_not_there_or_elsewhere(
    fitted_run: Path,
    embedded_slide: EmbeddedSlide,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    thumbnail: str | None,
) -> None:
    slide = embedded_slide(fitted_run, tmp_path / "s.h5", details={"thumbnail": thumbnail})
    assert put(fitted_run, "--embeddings", slide, "--out", tmp_path / "out", "--geojson", "none") == 0
    assert "maps are drawn over white" in capfd.readouterr().err


def test_another_engine_than_the_heads_is_remarked(
    fitted_run: Path, embedded_slide: EmbeddedSlide, tmp_path: Path
) -> None:
    slide = embedded_slide(fitted_run, tmp_path / "s.h5", details={"precision": "bf16"})
    assert put(fitted_run, "--embeddings", slide, "--out", tmp_path / "out", "--geojson", "none") == 0
    assert (
        "embedded with precision bf16, the tiles that the heads were fitted on with fp32"
        in (tmp_path / "out/map.md").read_text()
    )


@pytest.mark.fault("kill -9 of extract, fit_heads and predict at random moments")
@pytest.mark.slow
def test_a_map_that_was_killed_at_any_moment_is_made_whole(fitted_run: Path, slide: Path, tmp_path: Path) -> None:
    """P1 and P2: what stands under its final name is complete, and the same command ends with the same files."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    words = ["--embeddings", str(slide), "--head", "all"]
    start = time.monotonic()
    assert put(fitted_run, *words, "--out", whole) == 0
    took = time.monotonic() - start
    command = [sys.executable, "-m", "pipeline.predict", "--run", str(fitted_run), *words, "--out", str(out)]
    rng = random.Random(0)
    for _ in range(6):
        shutil.rmtree(out, ignore_errors=True)
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while not (out / ".lock").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 1.5 * took))
        process.kill()
        process.wait()
        assert put(fitted_run, *words, "--out", out) == 0
        assert files(out) == files(whole)
        for name in files(whole):
            assert name == "predictions.csv.json" or (out / name).read_bytes() == (whole / name).read_bytes()
