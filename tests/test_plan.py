"""A plan from end to end on tiny tiles: folds, seeds, random-split control, inner networks; what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from pipeline import extract, fit_heads, prepare, report, robustness, train, verify
from pipeline.errors import StaleInput
from pipeline.network import tile_files
from pipeline.storage import records
from pipeline.storage.predictions.csv_table import read_predictions
from pipeline.storage.predictions.pool_folds import pool
from pipeline.storage.protocol import read_protocol

GROUPED = ("--group-regex", r"(S\d)_", "--workers", "1")


def make_plan(base: Path, *more: str) -> Path:
    """Prepare a plan over four groups of 32 tiles beside them."""
    run = base / "run"
    assert prepare.main(["--run", str(run), "--data", str(base / "tiles"), *GROUPED, *more]) == 0
    return run


@pytest.fixture
def tiles(prepared_run: Path) -> Path:
    """A folder that holds `tiles/` and no run."""
    shutil.rmtree(prepared_run)
    return prepared_run.parent


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, prepared_base: Path, words: Callable[..., list[str]]) -> Path:
    """A logo plan over two folds with its random-split control, up to the pooled predictions."""
    base = tmp_path_factory.mktemp("plan")
    shutil.copytree(prepared_base / "tiles", base / "tiles")
    run = make_plan(base, "--protocol", "logo", "--folds", "2", "--random-control")
    assert train.main([*words("train", run), "--epochs", "1"]) == 0
    assert extract.main(words("extract", run)) == 0
    assert fit_heads.main(["--run", str(run), "--threads", "1", "--rounds", "4", "--no-baselines"]) == 0
    return run


def test_the_plan_names_every_part_before_anything_runs(tiles: Path) -> None:
    run = make_plan(tiles, "--protocol", "logo", "--seeds", "2", "--random-control")
    protocol = read_protocol(run)
    assert protocol is not None
    assert (protocol.n_folds, protocol.seeds, protocol.arms) == (4, [0, 1], ["grouped", "random"])
    assert len(protocol.parts) == 16
    assert [part.test_groups for part in protocol.parts[:4]] == [["S0"], ["S1"], ["S2"], ["S3"]]
    for part in protocol.parts:
        manifest = pd.read_csv(protocol.folder(part) / "manifest.csv")
        assert manifest["split"].value_counts().to_dict() == part.n
    assert set(pd.read_csv(run / "manifest.csv")["split"]) == {"test"}


def test_another_plan_under_the_same_name_is_refused_and_the_same_is_current(
    tiles: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = make_plan(tiles, "--folds", "2")
    before = (run / "protocol.json").read_bytes()
    words = ["--run", str(run), "--data", str(tiles / "tiles"), *GROUPED, "--folds"]
    assert prepare.main([*words, "2"]) == 0
    assert "prepare: current" in capfd.readouterr().err
    assert prepare.main([*words, "4"]) == 1
    assert "was made with folds=2, now 4" in capfd.readouterr().err
    assert (run / "protocol.json").read_bytes() == before


def test_an_edited_plan_is_refused(tiles: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = make_plan(tiles, "--folds", "2")
    text = (run / "protocol.json").read_text()
    (run / "protocol.json").write_text(text.replace('"fold": 1', '"fold": 0'))
    assert train.main(["--run", str(run)]) == 1
    assert "protocol.json: missing, or not the plan that prepare wrote" in capfd.readouterr().err
    assert verify.main(["--run", str(run)]) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--folds", "5"], "4 group(s) cannot make 5 folds"),
        (["--protocol", "logo", "--inner", "4"], "for --inner 4: 3 group(s)"),
        (["--protocol", "logo", "--group-regex", r"(S[012])_"], "no group for 8 of 32 tiles"),
    ],
)
def test_plans_that_cannot_be_had_are_refused_in_one_line(
    words: list[str], message: str, tiles: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = prepare.main(["--run", str(tiles / "run"), "--data", str(tiles / "tiles"), *GROUPED, *words])
    told = capfd.readouterr().err
    assert code == 1
    assert told.count("error:") == 1
    assert message in told or "--group-regex" in told
    assert not (tiles / "run" / "protocol.json").exists()


def test_every_tile_is_pooled_once_per_arm_from_the_part_that_tested_it(finished: Path) -> None:
    protocol = read_protocol(finished)
    assert protocol is not None
    for arm, name in (("grouped", "predictions.csv"), ("random", "predictions-random.csv")):
        pooled = read_predictions(finished / name)
        assert set(pooled["split"]) == {"test"}
        counts = pooled.groupby(["head", "tile_id"]).size()
        assert (counts == 1).all()
        assert len(counts) == 4 * 32, "softmax, SVM, XGBoost and their mean"
        for part in protocol.parts:
            if part.arm == arm:
                own = read_predictions(protocol.folder(part) / "predictions.csv")
                own = own[own["split"] == "test"].set_index(["head", "tile_id"])
                there = pooled[pooled["fold"] == part.fold].set_index(["head", "tile_id"])
                pd.testing.assert_frame_equal(there.loc[own.index, ["predicted", "p_ADI"]], own[["predicted", "p_ADI"]])
    assert verify.main(["--run", str(finished)]) == 0


def test_predictions_of_two_plans_are_not_mixed(
    finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "copy"
    shutil.copytree(finished.parent, base)
    protocol = read_protocol(base / "run")
    assert protocol is not None
    one, other = (protocol.folder(part) for part in protocol.parts[:2])
    shutil.rmtree(one)
    shutil.copytree(other, one)
    assert fit_heads.main(["--run", str(base / "run"), "--threads", "1", "--rounds", "4", "--no-baselines"]) == 1
    told = capfd.readouterr().err
    assert "is not the manifest of this plan" in told
    assert told.count("error:") == 1


def test_training_reads_no_test_tile(
    tiles: Path, words: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """P7: an instrumented reader sees every tile that is decoded."""
    run = make_plan(tiles, "--folds", "2")
    read: set[str] = set()
    plain = tile_files.decode_tile

    def spy(path: Path, *rest: object, **named: object) -> object:
        read.add(f"{Path(path).parent.name}/{Path(path).name}")
        return plain(path, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(tile_files, "decode_tile", spy)
    protocol = read_protocol(run)
    assert protocol is not None
    folder = protocol.folder(protocol.parts[0])
    assert train.main([*words("train", folder), "--epochs", "1", "--seed", "0"]) == 0
    manifest = pd.read_csv(folder / "manifest.csv")
    assert read == set(manifest.loc[manifest["split"] != "test", "path"])


@pytest.mark.slow
def test_inner_networks_predict_together(tiles: Path, words: Callable[..., list[str]]) -> None:
    run = make_plan(tiles, "--folds", "2", "--inner", "2")
    assert train.main([*words("train", run), "--epochs", "1"]) == 0
    assert extract.main(words("extract", run)) == 0
    assert fit_heads.main(["--run", str(run), "--threads", "1", "--rounds", "4", "--no-baselines"]) == 0
    protocol = read_protocol(run)
    assert protocol is not None
    assert len(protocol.parts) == 4
    pooled = read_predictions(run / "predictions.csv")
    fold = pooled[(pooled["fold"] == 0) & (pooled["head"] == "svm")].set_index("tile_id")["p_ADI"]
    each = []
    for part in protocol.parts[:2]:
        own = read_predictions(protocol.folder(part) / "predictions.csv")
        each.append(own[(own["head"] == "svm") & (own["split"] == "test")].set_index("tile_id")["p_ADI"])
    pd.testing.assert_series_equal(fold, (each[0] + each[1]) / 2, rtol=1e-6)
    heads = json.loads((protocol.folder(protocol.parts[0]) / "heads/heads.json").read_text())
    assert heads["fit_on"] == "heldout"


def test_one_lost_part_is_made_again_and_only_that_one(
    finished: Path, tmp_path: Path, words: Callable[..., list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "copy"
    shutil.copytree(finished.parent, base)
    run = base / "run"
    before = (run / "predictions.csv").read_bytes()
    protocol = read_protocol(run)
    assert protocol is not None
    lost = protocol.folder(protocol.parts[1])
    for name in ("embeddings.h5", "embeddings.h5.json", "predictions.csv"):
        (lost / name).unlink()
    capfd.readouterr()
    assert extract.main(words("extract", run)) == 0
    assert fit_heads.main(["--run", str(run), "--threads", "1", "--rounds", "4", "--no-baselines"]) == 0
    told = capfd.readouterr().err
    assert told.count("rows of 512 features") == 1
    assert told.count("heads/svm.skops") == 1
    assert (run / "predictions.csv").read_bytes() == before


def test_a_picture_of_one_group_alone_cannot_be_planned(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for label in ("A", "B"):
        (tmp_path / "tiles" / label).mkdir(parents=True)
        for i in range(6):
            Image.new("RGB", (16, 16), (20 * i, 9 * i, 200 if label == "A" else 30)).save(
                tmp_path / "tiles" / label / f"S0_{i}.png"
            )
    words = ["--run", str(tmp_path / "run"), "--data", str(tmp_path / "tiles"), *GROUPED, "--protocol", "logo"]
    assert prepare.main(words) == 1
    assert "1 group(s)" in capfd.readouterr().err


def test_the_report_of_a_plan_shows_its_parts_and_the_gap_to_the_random_split(
    finished: Path, tmp_path: Path, words: Callable[..., list[str]]
) -> None:
    base = tmp_path / "copy"
    shutil.copytree(finished.parent, base)
    run = base / "run"
    small = ["--run", str(run), "--threads", "1", "--workers", "0"]
    assert robustness.main([*small, "--corruptions", "jpeg", "rotation"]) == 0
    assert report.main(["--run", str(run), "--draws", "100", "--gallery", "2"]) == 0
    text = (run / "comparison.md").read_text()
    for title in (
        "Statistics of the differences",
        "Random-split control",
        "Group by group",
        "Cross-validation plan",
        "Referring uncertain tiles",
        "Robustness",
        "What the embeddings show",
        "Likely label errors",
    ):
        assert f"\n## {title}\n" in text
    details = records.read_record(run / "comparison.csv")["details"]
    assert (details["verdict"], details["recommended"]) == ("too_few_units", None)
    control = text.partition("## Random-split control")[2].partition("\n## ")[0]
    assert "4 groups are too few" in control
    assert "2 folds" in text
    assert "n times as long" in text
    groups = pd.read_csv(run / "per_group.csv")
    assert set(groups["group"]) == {"S0", "S1", "S2", "S3"}
    assert groups.groupby("head")["n"].sum().eq(32).all()
    assert verify.main(["--run", str(run)]) == 0
    shutil.rmtree(run / "parts")
    assert verify.main(["--run", str(run), "--light"]) == 0
    assert verify.main(["--run", str(run)]) == 1


def test_a_part_made_with_other_options_is_not_pooled(
    finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "copy"
    shutil.copytree(finished.parent, base)
    protocol = read_protocol(base / "run")
    assert protocol is not None
    part = protocol.folder(protocol.parts[1])
    words = ["--threads", "1", "--rounds", "4", "--no-baselines"]
    assert fit_heads.main(["--run", str(part), "--seed", "0", *words, "--calibration", "sigmoid"]) == 0
    with pytest.raises(StaleInput, match="calibration='sigmoid', there 'auto'"):
        pool(protocol, "grouped", options={"heads": ["svm", "xgboost"], "fit_on": None})
    assert fit_heads.main(["--run", str(base / "run"), "--embeddings", str(part / "embeddings.h5"), *words]) == 2
    assert "is a plan, whose parts have files of their own" in capfd.readouterr().err


def test_without_folds_there_is_no_random_control(tiles: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["--run", str(tiles / "run"), "--data", str(tiles / "tiles"), *GROUPED, "--random-control"]
    assert prepare.main(words) == 1
    assert "which needs folds: add --folds 5" in capfd.readouterr().err


def test_a_plan_can_become_a_single_split(tiles: Path) -> None:
    run = make_plan(tiles, "--folds", "2", "--random-control")
    words = ["--run", str(run), "--data", str(tiles / "tiles"), *GROUPED, "--restart"]
    assert prepare.main(words) == 0
    assert read_protocol(run) is None
    assert set(pd.read_csv(run / "manifest.csv")["split"]) == {"train", "val", "test"}


def test_a_lost_part_manifest_says_what_to_do(tiles: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = make_plan(tiles, "--folds", "2")
    next((run / "parts").glob("*/manifest.csv")).unlink()
    assert train.main(["--run", str(run)]) == 1
    assert "run prepare --restart, which keeps results" in capfd.readouterr().err
