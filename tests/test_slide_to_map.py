"""From a synthetic slide to a scored map: tile, extract --slide and predict on what the generator knows."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import demo_slide, extract, fit_heads, predict, prepare, tile, train, verify
from pipeline.storage.embeddings.reader import read_embeddings
from pipeline.storage.predictions.unlabelled import read_predictions
from pipeline.tiles.manifest import read_manifest
from pipeline.tiles.synthetic.tiles import CLASSES

pytestmark = pytest.mark.slow

SMALL = ("--device", "cpu", "--threads", "1", "--workers", "0")
SIDE, CELL, GLASS = 1200, 50, 255


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run, the slide `CRC-Prim-HE-01_s.tif`, its truth, and `map/` by all heads at stride 75."""
    pytest.importorskip("openslide")
    pytest.importorskip("imagecodecs")
    pytest.importorskip("shapely")
    base = tmp_path_factory.mktemp("mapped")
    run, slide = base / "run", base / "CRC-Prim-HE-01_s.tif"
    demo = ("--folds", "1", "--demo-tiles", "160", "--demo-px", "32", "--data-dir", str(base / "data"))
    assert prepare.main(["--run", str(run), *demo, "--workers", "1"]) == 0
    words = "--recipe quick --arch resnet10 --tile-px 32 --epochs 1 --batch-size 8 --precision fp32"
    assert train.main(["--run", str(run), *words.split(), *SMALL]) == 0
    torch_only = ("--engine", "torch", "--embed-precision", "fp32", *SMALL)
    assert extract.main(["--run", str(run), *torch_only]) == 0
    assert fit_heads.main(["--run", str(run), "--threads", "1", "--rounds", "4", "--no-baselines"]) == 0
    assert demo_slide.main(["--side", str(SIDE), "--source", "1", "--out", str(slide)]) == 0
    assert tile.main([str(slide), "--run", str(run), "--stride", "75"]) == 0
    assert extract.main(["--run", str(run), "--slide", str(slide), *torch_only]) == 0
    embedded = run / "slides" / slide.stem / f"{slide.stem}.h5"
    truth = base / f"{slide.stem}-truth.png"
    words = f"--embeddings {embedded} --truth {truth} --head all --out {base / 'map'}"
    assert predict.main(["--run", str(run), *words.split()]) == 0
    return base


def test_the_scores_are_those_of_the_predictions_counted_anew(mapped: Path) -> None:
    """Cell by cell from predictions.csv, by loops: the mean of the tiles over each point, the class, the counts."""
    table = read_predictions(mapped / "map" / "predictions.csv")
    slide = read_embeddings(next((mapped / "run" / "slides").glob("*/*.h5"))).slide
    assert slide is not None
    assert slide.stride_level0 == 75
    side = slide.patch_size_level0
    truth = np.asarray(Image.open(mapped / "CRC-Prim-HE-01_s-truth.png"))
    rows = table[table["head"] == "svm"]
    p = rows[[f"p_{name}" for name in CLASSES]].to_numpy()
    left, top = rows["x"].min(), rows["y"].min()
    hits = {name: [0, 0, 0] for name in CLASSES}  # both, true, mapped
    for (i, j), code in np.ndenumerate(truth):
        column, row = ((j + 0.5) * CELL - left) // 75, ((i + 0.5) * CELL - top) // 75
        x, y = left + 75 * column, top + 75 * row
        wide = np.clip(np.minimum(rows["x"] + side, x + 75) - np.maximum(rows["x"], x), 0, None)
        high = np.clip(np.minimum(rows["y"] + side, y + 75) - np.maximum(rows["y"], y), 0, None)
        share = (wide * high / 75**2).to_numpy()
        if code != GLASS and column >= 0 and row >= 0 and share.sum() >= 0.5:
            named = CLASSES[(share @ p).argmax()]
            hits[CLASSES[code]][1] += 1
            hits[named][2] += 1
            hits[named][0] += named == CLASSES[code]
    with (mapped / "map" / "iou.csv").open(newline="") as file:
        got = {row["class"]: row for row in csv.DictReader(file) if row["head"] == "svm"}
    assert sum(true for _, true, _ in hits.values()) > 100
    for name, (both, true, named) in hits.items():
        assert int(got[name]["n_cells"]) == true
        assert got[name]["iou"] == ("" if true + named == 0 else f"{both / (true + named - both):.6g}")


def test_the_files_say_what_they_are_and_are_verified(mapped: Path, capfd: pytest.CaptureFixture[str]) -> None:
    table = read_manifest(mapped / "run" / "manifest.csv").table
    saw = bool((table.loc[table["split"] != "test", "group"] == "01").any())
    for head in ("softmax", "svm", "xgboost", "mean"):
        content = json.loads((mapped / "map" / f"map-{head}.geojson").read_text())
        assert content["histoheads"]["network_saw_source"] is saw
        assert {f["properties"]["classification"]["name"] for f in content["features"]} <= set(CLASSES)
        points = np.array([point for f in content["features"] for point in f["geometry"]["coordinates"][0]])
        assert points.min() >= 0
        assert points.max() <= SIDE
    embedded = next((mapped / "run" / "slides").glob("*/*.h5"))
    assert predict.main(["--run", str(mapped / "run"), "--embeddings", str(embedded)]) == 0
    capfd.readouterr()
    assert verify.main(["--run", str(mapped / "run")]) == 0
    assert "is in no record" not in capfd.readouterr().err
