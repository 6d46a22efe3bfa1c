"""fit_heads as a command: which rows serve for what, what is written, what is refused."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import cross_val_score
from sklearn.svm import SVC

from pipeline import fit_heads
from pipeline.evaluation.calibration import softmax
from pipeline.heads import fit as steps
from pipeline.heads.base import Rows
from pipeline.heads.config import FitConfig, FitOn
from pipeline.heads.registry import SAVED_KINDS
from pipeline.heads.rows import EMBEDDINGS, load_head_data
from pipeline.heads.svm.classifier import Svm
from pipeline.inference.saved_heads import load_heads, read_summary
from pipeline.storage import freshness, records
from pipeline.storage.embeddings import reader as stored
from pipeline.storage.embeddings.reader import read_embeddings
from pipeline.storage.embeddings.relative_features import group_codes, sums_of
from pipeline.storage.predictions.csv_table import read_predictions

from .builders import CLASSES, make_run


def fit(run: Path, *words: str) -> int:
    return fit_heads.main(["--run", str(run), "--threads", "1", "--rounds", "6", *words])


def split_rows(run: Path, *, fit_on: FitOn) -> dict[str, Rows]:
    """The rows of each split as `fit_heads` takes them."""
    return dict(load_head_data(run / "embeddings.h5", None, FitConfig(fit_on)).splits[EMBEDDINGS])


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make_run(tmp_path_factory.mktemp("fit") / "run")
    assert fit(run) == 0
    return run


def test_every_head_stands_on_every_row_with_probabilities(fitted: Path) -> None:
    table = read_predictions(fitted / "predictions.csv")
    embeddings = read_embeddings(fitted / "embeddings.h5")
    assert list(table["head"].unique()) == ["softmax", "svm", "xgboost", "mean", "majority", "knn", "linear"]
    for _, rows in table.groupby("head"):
        assert list(rows["tile_id"]) == embeddings.tile_id
        assert list(rows["group"]) == embeddings.group
    p = table[[f"p_{name}" for name in CLASSES]].to_numpy()
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-6)
    assert (np.array(CLASSES)[p.argmax(1)] == table["predicted"]).all()
    test = table[(table["split"] == "test") & (table["head"] != "majority")]
    assert ((test["predicted"] == test["label"]).groupby(test["head"]).mean() > 0.6).all()


@pytest.mark.fault("unknown label, classes in another order")
def test_softmax_rows_are_the_softmax_of_the_stored_logits_over_the_temperature(fitted: Path) -> None:
    table = read_predictions(fitted / "predictions.csv")
    rows = table[table["head"] == "softmax"]
    temperature = json.loads((fitted / "heads/heads.json").read_text())["heads"]["softmax"]["calibration"]["params"][
        "temperature"
    ]
    logits = read_embeddings(fitted / "embeddings.h5").logits
    p = rows[[f"p_{name}" for name in CLASSES]].to_numpy()
    np.testing.assert_allclose(p, softmax(logits / temperature), rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(p.argmax(1), logits.argmax(1))


def test_balanced_decisions_come_from_the_same_heads_and_probabilities(fitted: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert fit(run) == 0
    before = read_predictions(run / "predictions.csv")
    saved = (run / "heads/svm.skops").stat().st_mtime_ns
    assert fit(run, "--decide", "balanced") == 0
    assert (run / "heads/svm.skops").stat().st_mtime_ns == saved, "no head is fitted again"
    table = read_predictions(run / "predictions.csv")
    names = [f"p_{name}" for name in CLASSES]
    pd.testing.assert_frame_equal(table[["head", *names]], before[["head", *names]])
    heads = json.loads((run / "heads/heads.json").read_text())["heads"]
    assert {facts["decide"] for facts in heads.values()} == {"balanced"}
    for name, facts in heads.items():
        offsets = facts["decision"]["strength"] * np.array(facts["decision"]["log_prior"])
        rows = table[table["head"] == name]
        expected = np.array(CLASSES)[(np.log(rows[names].to_numpy()) - offsets).argmax(axis=1)]
        assert (rows["predicted"] == expected).mean() > 0.99, name  # ties of rounded probabilities
    assert records.read_record(run / "predictions.csv")["details"]["decide"] == "balanced"


def test_heads_on_features_relative_to_groups_predict_as_saved(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert fit(run, "--relative", "group") == 0
    record = records.read_record(run / "predictions.csv")
    assert record["details"]["relative"] == "group"
    names = ["softmax", "svm", "xgboost", "mean"]
    saved = load_heads(run, read_summary(run, record), names, record=record, embedded={"options": {}})
    content = read_embeddings(run / "embeddings.h5")
    code, counts = group_codes(np.array(content.group))
    centre = saved.centre_of(EMBEDDINGS, sums_of([content.features], code, len(counts)), counts)
    table = read_predictions(run / "predictions.csv")
    for head, output in saved.predict(
        {EMBEDDINGS: content.features}, content.logits, {EMBEDDINGS: centre[code]}
    ).items():
        own = table[table["head"] == head]
        np.testing.assert_allclose(output.p, own[[f"p_{name}" for name in CLASSES]], atol=1e-6)
        assert (np.array(CLASSES)[output.predicted] == own["predicted"]).all()
    before = (run / "heads/svm.skops").read_bytes()
    assert fit(run) == 0
    assert (run / "heads/svm.skops").read_bytes() != before, "other features need another head"
    assert json.loads((run / "heads/heads.json").read_text())["relative"] is None


def test_heads_json_tells_choice_search_and_costs(fitted: Path) -> None:
    heads = json.loads((fitted / "heads/heads.json").read_text())["heads"]
    for name in ("svm", "xgboost"):
        facts = heads[name]
        best = min(facts["search"], key=lambda point: point["val_nll"])
        assert facts["chosen"] == best["params"]
        assert facts["calibration"]["rows"] == "val"
        assert facts["bytes"] == next((fitted / "heads").glob(f"{name}.[su]*[sj]")).stat().st_size
        assert facts["predict_tiles_per_second"] > 0
    assert heads["softmax"]["predict_tiles_per_second"] is None


def test_second_call_does_nothing_and_a_lost_prediction_file_does_not_refit(
    fitted: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = (fitted / "predictions.csv").read_bytes()
    assert fit(fitted) == 0
    assert "current" in capfd.readouterr().err
    (fitted / "predictions.csv").unlink()
    assert fit(fitted) == 0
    told = capfd.readouterr().err
    assert "heads/svm.skops" in told
    assert "heads/xgboost.ubj" in told
    assert (fitted / "predictions.csv").read_bytes() == before


def test_same_input_and_seed_give_the_same_predictions(fitted: Path, tmp_path: Path) -> None:
    """P6."""
    again = make_run(tmp_path / "again")
    assert fit(again) == 0
    assert (again / "predictions.csv").read_bytes() == (fitted / "predictions.csv").read_bytes()


@pytest.mark.parametrize("fit_on", ["train", "heldout"])
def test_test_rows_serve_for_nothing_before_prediction(fit_on: FitOn, tmp_path: Path) -> None:
    """P7: other test features and labels change no head, no choice and no calibration."""
    run = make_run(tmp_path / "run")
    rows = split_rows(run, fit_on=fit_on)
    noise = np.random.default_rng(3).normal(size=rows["test"].features.shape).astype(np.float32)
    other = dict(rows, test=Rows(noise, noise[:, :3], rows["test"].y[::-1].copy(), rows["test"].groups))
    config = FitConfig(fit_on, rounds=3)
    for name in ("softmax", *SAVED_KINDS):
        one, two = (steps.calibrate(fitted_head(name, given, config), config) for given in (rows, other))
        assert one.facts["calibration"] == two.facts["calibration"]
        np.testing.assert_array_equal(one.head.scores(rows["test"]), two.head.scores(rows["test"]))


def fitted_head(name: str, rows: dict[str, Rows], config: FitConfig) -> steps.FitResult:
    if name == "softmax":
        return steps.fit_softmax(rows)
    kind = SAVED_KINDS[name]
    return steps.fit_head(name, kind, rows, steps.search_head(name, kind, rows, config), config)


def test_a_feature_that_betrays_training_labels_does_not_fool_the_choice(tmp_path: Path) -> None:
    run = make_run(tmp_path / "leak", n=200, leak_train=True)
    assert fit(run, "--heads", "svm") == 0
    table = read_predictions(run / "predictions.csv")
    svm = table[table["head"] == "svm"]
    right = (svm["label"] == svm["predicted"]).groupby(svm["split"]).mean()
    heads = json.loads((run / "heads/heads.json").read_text())["heads"]
    stated = min(point["val_nll"] for point in heads["svm"]["search"])
    chosen = next(p for p in heads["svm"]["search"] if p["val_nll"] == stated)
    assert right["train"] > right["val"] + 0.05  # the leak is there ...
    assert chosen["val_accuracy"] == pytest.approx(right["val"], abs=0.08)  # ... and the search was not fooled


def test_skipped_rows_stay_out_and_the_exit_code_says_so(tmp_path: Path) -> None:
    """P4."""
    run = make_run(tmp_path / "run", bad=(3, 14))
    assert fit(run) == 3
    table = read_predictions(run / "predictions.csv")
    assert not set(table["tile_id"]) & {"t3", "t14"}
    assert records.read_record(run / "predictions.csv")["details"]["n_skipped"] == 2


@pytest.mark.fault("an input that changed since")
def test_stale_or_damaged_embeddings_are_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run")
    content = bytearray((run / "embeddings.h5").read_bytes())
    content[len(content) // 2] ^= 4
    (run / "embeddings.h5").write_bytes(content)
    assert fit(run) == 1
    assert "embeddings.h5: its bytes are not those that were written" in capfd.readouterr().err


def test_embeddings_are_hashed_once_and_only_read_if_something_is_to_be_fitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run")
    hashed, read = [], []
    for module in (freshness, records):
        whole = module.sha256_file
        monkeypatch.setattr(module, "sha256_file", lambda path, whole=whole: (hashed.append(path.name), whole(path))[1])
    opened = stored.read_embeddings
    monkeypatch.setattr(stored, "read_embeddings", lambda path, **how: (read.append(path.name), opened(path, **how))[1])
    for n_read, words in ((1, ()), (0, ()), (0, ("--memory", "8GB")), (1, ("--restart", "--memory", "8GB"))):
        assert fit(run, *words) == 0
        assert hashed.count("embeddings.h5") == 1
        assert len(read) == n_read
        hashed.clear()
        read.clear()


@pytest.mark.fault("an input that changed since")
def test_a_head_of_embeddings_that_changed_meanwhile_gets_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """P8: nothing says that it was made of the file whose hash was taken before."""
    run, other = make_run(tmp_path / "run"), make_run(tmp_path / "other", seed=1)
    save = Svm.save

    def save_late(self: Svm, path: Path) -> None:
        save(self, path)
        (other / "embeddings.h5").rename(run / "embeddings.h5")

    monkeypatch.setattr(Svm, "save", save_late)
    assert fit(run) == 1
    assert " when it was taken as input and is " in capfd.readouterr().err
    assert [path.name for path in (run / "heads").iterdir()] == ["svm.skops"]
    assert not (run / "predictions.csv").exists()


@pytest.mark.parametrize("fit_on", ["train", "heldout"])
def test_a_class_without_rows_to_fit_on_is_never_named_by_the_fitted_heads(fit_on: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", classes=2)
    assert fit(run, "--fit-on", fit_on) == 0
    table = read_predictions(run / "predictions.csv")
    fitted = table[table["head"].isin(["svm", "xgboost"])]
    assert not (fitted["predicted"] == "c").any()
    assert (fitted["p_c"] < 0.2).all(), "a third by chance"


@pytest.mark.fault("a head that does not converge, or rows of one class")
def test_rows_of_one_class_to_fit_on_are_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run", classes=1)
    assert fit(run) == 1
    assert "the train rows hold one class only" in capfd.readouterr().err


def test_held_out_fitting_survives_a_leak_that_cross_validation_on_training_rows_does_not(tmp_path: Path) -> None:
    """A feature equals the label, but only of tiles that the network was trained on."""
    run = make_run(tmp_path / "leak", n=400, leak_train=True)
    rows = split_rows(run, fit_on="train")
    naive = cross_val_score(SVC(kernel="linear", C=10.0), rows["train"].features, rows["train"].y, cv=5).mean()
    assert fit(run, "--heads", "svm", "--fit-on", "heldout") == 0
    table = read_predictions(run / "predictions.csv")
    svm = table[(table["head"] == "svm") & (table["split"] == "test")]
    right = (svm["label"] == svm["predicted"]).mean()
    facts = json.loads((run / "heads/heads.json").read_text())["heads"]["svm"]
    stated = min(facts["search"], key=lambda point: point["val_nll"])["val_accuracy"]
    assert naive > 0.98
    assert right < naive - 0.05
    assert stated == pytest.approx(right, abs=0.05)


def test_crossfit_without_inner_networks_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run")
    assert fit(run, "--fit-on", "crossfit") == 1
    assert "prepare with --inner 3" in capfd.readouterr().err


def test_missing_run_and_missing_embeddings_are_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert fit(tmp_path / "nowhere") == 1
    assert "no such run folder" in capfd.readouterr().err
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "empty").mkdir()
    assert fit(tmp_path / "empty") == 1
    assert capfd.readouterr().err.count("\n") == 1


def test_a_lost_head_is_fitted_again_and_only_that_one(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """P8: predictions.csv vouches for the heads that made it."""
    run = make_run(tmp_path / "run")
    assert fit(run) == 0
    before = (run / "predictions.csv").read_bytes()
    (run / "heads/svm.skops").unlink()
    capfd.readouterr()
    assert fit(run) == 0
    told = capfd.readouterr().err
    assert "svm fitted" in told
    assert "heads/xgboost.ubj" in told
    assert (run / "predictions.csv").read_bytes() == before


def test_half_precision_features_are_computed_with_in_single_precision(tmp_path: Path) -> None:
    run = make_run(tmp_path / "half", dtype="float16")
    embeddings = read_embeddings(run / "embeddings.h5")
    assert embeddings.features.dtype == np.float16
    assert fit(run, "--heads", "svm") == 0
    table = read_predictions(run / "predictions.csv")
    svm = table[table["head"] == "svm"]
    head = Svm.load(run / "heads/svm.skops")
    expected = head.pipeline.predict(embeddings.features.astype(np.float32))
    assert list(svm["predicted"]) == [CLASSES[code] for code in expected]


def test_above_svm_rows_the_kernel_is_approximated_and_heads_json_says_so(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run")
    words = ("--heads", "svm", "--svm-rows")
    n_train = len(split_rows(run, fit_on="train")["train"].y)
    assert fit(run, *words, str(n_train)) == 0
    exact = json.loads((run / "heads/heads.json").read_text())["heads"]["svm"]
    assert exact["notes"][0].endswith(f"support vectors of {n_train} rows")
    assert fit(run, *words, str(n_train - 1)) == 0
    assert "svm.skops" not in capfd.readouterr().err
    near = json.loads((run / "heads/heads.json").read_text())["heads"]["svm"]
    assert near["notes"][0].startswith(f"too many rows for an exact SVM ({n_train}): Nystroem, {n_train} landmarks")
    assert near["chosen"]["landmarks"] > 0
    table = read_predictions(run / "predictions.csv")
    test = table[(table["head"] == "svm") & (table["split"] == "test")]
    assert (test["predicted"] == test["label"]).mean() > 0.6
    assert fit(run, *words, str(n_train - 1)) == 0
    assert "fit_heads: current" in capfd.readouterr().err


def test_no_rows_for_the_svm_is_a_usage_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert fit(make_run(tmp_path / "run"), "--svm-rows", "0") == 2
    assert "--svm-rows 0: at least 1" in capfd.readouterr().err


def test_very_many_lines_are_a_parquet_file_that_is_current_and_holds_the_same(
    fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pyarrow")
    run = make_run(tmp_path / "run")
    monkeypatch.setattr("pipeline.storage.predictions.csv_table.LARGE_LINES", 300)
    assert fit(run) == 0
    assert not (run / "predictions.csv").exists()
    found, exact = (read_predictions(records.existing_table(place / "predictions.csv")) for place in (run, fitted))
    assert records.existing_table(run / "predictions.csv") == run / "predictions.parquet"
    pd.testing.assert_frame_equal(found, exact, check_dtype=False, rtol=1e-6, atol=1e-7)
    capfd.readouterr()
    assert fit(run) == 0
    assert f"current, {run / 'predictions.parquet'}" in capfd.readouterr().err
    monkeypatch.setattr("pipeline.storage.predictions.csv_table.LARGE_LINES", 1_000_000)
    assert fit(run, "--restart") == 0
    assert (run / "predictions.csv").read_bytes() == (fitted / "predictions.csv").read_bytes()
    assert not (run / "predictions.parquet").exists()


def test_very_many_lines_without_pyarrow_are_refused_before_anything_is_fitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run")
    monkeypatch.setattr("pipeline.storage.predictions.csv_table.LARGE_LINES", 300)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert fit(run) == 1
    assert "pip install 'histoheads[large]'" in capfd.readouterr().err
    assert not (run / "heads").exists()
