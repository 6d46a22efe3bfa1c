"""`predict --reject`: tiles that are far from all training tiles get no class, in every file of the map."""

import csv
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline import predict
from pipeline.evaluation.group_rule import GroupRule
from pipeline.inference.groups import group_rule
from pipeline.maps.geojson import REJECTED_CLASS
from pipeline.storage import records
from pipeline.storage.embeddings import reader

STRANGE = (1, 2)
"""Tiles of the slide whose embeddings are like those of no class."""


@pytest.fixture
def strange_slide(fitted_run: Path, embedded_slide: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Embeddings of a slide of 3 x 4 tiles; two of the embeddings are far from all others."""
    known = reader.read_embeddings(fitted_run / "embeddings.h5")
    features = known.features.copy()
    features[[7 * i for i in STRANGE]] = 50 * features.std() * np.random.default_rng(0).normal(size=features.shape[1])
    with monkeypatch.context() as patch:
        patch.setattr(reader, "read_embeddings", lambda path: dataclasses.replace(known, features=features))
        return embedded_slide(fitted_run, fitted_run.parent / "s.h5", lost=(5,))


def put(run: Path, *words: str | Path) -> int:
    return predict.main(["--run", str(run), *map(str, words)])


def test_strange_tiles_have_no_class(fitted_run: Path, strange_slide: Path, tmp_path: Path) -> None:
    pytest.importorskip("shapely")
    out = tmp_path / "out"
    words = ("--embeddings", strange_slide, "--out", out, "--head", "svm", "--geojson", "tiles")
    assert put(fitted_run, *words) == 3
    plain = pd.read_csv(out / "areas.csv")
    assert list(plain["class"]) == ["ADI", "TUM"]
    assert not (out / "outlier.png").exists()
    assert put(fitted_run, *words, "--reject", "0.3") == 3
    areas = pd.read_csv(out / "areas.csv").set_index("class")
    n = int(areas.loc["rejected", "n_cells"])
    assert 2 <= n < 11
    assert areas["n_cells"].sum() == plain["n_cells"].sum() == 11
    assert areas["mm2"].sum() == pytest.approx(plain["mm2"].sum())
    assert areas.loc[["ADI", "TUM"], "share"].sum() == pytest.approx(1)
    features = json.loads((out / "map.geojson").read_text())["features"]
    rejected = {
        tuple(one["geometry"]["coordinates"][0][0])
        for one in features
        if one["properties"]["classification"]["name"] == REJECTED_CLASS
    }
    assert len(features) == 11
    assert len(rejected) == n
    assert {(100 + 64 * i, 200) for i in STRANGE} <= rejected
    assert (out / "outlier.png").is_file()
    with (out / "predictions.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 11  # the heads' answers for all tiles stay
    page = (out / "map.md").read_text()
    assert "class left out" in page
    assert f"{n} cells" in page
    assert put(fitted_run, *words) == 3  # without the option nothing of it is left
    assert not (out / "outlier.png").exists()


@pytest.mark.parametrize(("rate", "code", "words"), [("0.001", 1, "999 validation tiles"), ("0", 2, "--reject 0")])
def test_rates_that_cannot_be_promised(
    fitted_run: Path, strange_slide: Path, capsys: pytest.CaptureFixture[str], rate: str, code: int, words: str
) -> None:
    assert put(fitted_run, "--embeddings", strange_slide, "--reject", rate) == code
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert words in line


def test_without_the_embeddings_of_the_run(
    fitted_run: Path, strange_slide: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (fitted_run / "embeddings.h5").unlink()
    assert put(fitted_run, "--embeddings", strange_slide, "--reject", "0.3") == 1
    assert "embeddings.h5" in capsys.readouterr().err


@pytest.mark.parametrize("rule", ["mean probability", "vote"])
def test_a_slide_is_predicted_by_the_rule_of_the_report(
    fitted_run: Path, strange_slide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], rule: str
) -> None:
    """groups.csv has a row of the head; rejected tiles do not count; without a report's rule there is no file."""
    out = tmp_path / "out"
    words = ("--embeddings", strange_slide, "--out", out, "--head", "svm", "--geojson", "none")
    assert put(fitted_run, *words) == 3
    assert not (out / "groups.csv").exists()
    (fitted_run / "comparison.csv").write_text("head\n")
    records.write_record(
        records.Artifact(fitted_run / "comparison.csv", "comparison/1.2", "report"),
        details={"groups": dataclasses.asdict(GroupRule(rule, ["ADI", "TUM"], "TUM", 0.9, {"svm": 0.0}))},
    )
    assert put(fitted_run, *words) == 3
    found = pd.read_csv(out / "groups.csv").set_index("head")
    tiles = pd.read_csv(out / "predictions.csv")
    assert list(found.index) == list(dict.fromkeys(tiles["head"]))
    for head, rows in tiles.groupby("head"):
        expected = rows["p_ADI"].mean() if rule == "mean probability" else (rows["predicted"] == "ADI").mean()
        assert found.loc[head, "p_ADI"] == pytest.approx(expected, abs=1e-5)
        assert found.loc[head, "n_tiles"] == 11
        assert found.loc[head, "rule"] == rule
        assert found.loc[head, ["positive", "is_positive"]].to_list() == ["TUM", "yes"]
    record = records.read_record(fitted_run / "comparison.csv")
    (fitted_run / "comparison.csv").write_text("head,another level\n")
    records.write_record(
        records.Artifact(fitted_run / "comparison.csv", "comparison/1.2", "report"), details=record["details"]
    )
    written = (out / "groups.csv").stat().st_mtime_ns
    assert put(fitted_run, *words) == 3
    assert (out / "groups.csv").stat().st_mtime_ns == written, "of the report only the rule is used"
    assert put(fitted_run, *words, "--reject", "0.3") == 3
    n = pd.read_csv(out / "areas.csv").query("`class` == 'rejected'")["n_cells"].iloc[0]
    assert (pd.read_csv(out / "groups.csv")["n_tiles"] == 11 - n).all()
    records.record_path(fitted_run / "comparison.csv").write_text("{")
    assert put(fitted_run, *words, "--restart") == 1
    assert "comparison.csv.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    "groups",
    [
        {"rule": "share", "classes": ["ADI"]},
        {"rule": "vote", "classes": ["other"]},
        {"rule": "vote", "classes": ["ADI"], "positive": "TUM", "thresholds": {"svm": 0.5}},
        {"rule": "vote", "classes": ["ADI"], "positive": "ADI", "thresholds": {"svm": "0.5"}},
        {"rule": [], "classes": ["ADI"]},
        {"rule": "vote", "classes": 3},
        ["vote"],
    ],
)
def test_a_rule_that_no_report_writes_is_ignored(tmp_path: Path, groups: object) -> None:
    (tmp_path / "comparison.csv").write_text("head\n")
    artifact = records.Artifact(tmp_path / "comparison.csv", "comparison/1.2", "report")
    records.write_record(artifact, details={"groups": groups})
    assert group_rule(tmp_path, ["ADI", "TUM"], force=False) is None


def test_a_ground_truth_scores_all_and_accepted_cells(fitted_run: Path, strange_slide: Path, tmp_path: Path) -> None:
    """The strange tiles are scored with the class that they would have, and left out of the accepted cells."""
    truth = tmp_path / "s-truth.png"
    Image.fromarray(np.zeros((15, 16), np.uint8)).save(truth)
    facts = {"classes": ["ADI"], "cell_level0": 64, "slide_width": 1000, "slide_height": 900}
    truth.with_suffix(".json").write_text(json.dumps(facts))
    out = tmp_path / "out"
    words = ("--embeddings", strange_slide, "--out", out, "--head", "svm", "--geojson", "none", "--truth", truth)
    assert put(fitted_run, *words) == 3
    plain = pd.read_csv(out / "iou.csv")
    assert set(plain["cells"]) == {"all"}
    assert put(fitted_run, *words, "--reject", "0.3") == 3
    found = pd.read_csv(out / "iou.csv").groupby("cells")
    assert found.get_group("all").reset_index(drop=True).equals(plain)
    n_all, n_accepted = found["n_cells"].sum()[["all", "accepted"]]
    assert 0 < n_accepted < n_all
    page = (out / "map.md").read_text()
    assert f"{n_accepted} of {n_all} squares are accepted" in page
    assert "SVM, accepted cells" in page
