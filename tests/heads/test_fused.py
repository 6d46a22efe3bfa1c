"""Fused heads: SVM and XGBoost on colours, texture and embeddings, each a block of equal weight."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.svm import SVC

from pipeline import fit_heads
from pipeline.errors import BadArtifact, BadInput
from pipeline.heads.base import Rows
from pipeline.heads.config import FitConfig
from pipeline.heads.outputs import LEAST_P
from pipeline.heads.registry import SAVED_KINDS
from pipeline.heads.rows import EMBEDDINGS, FUSED_NAME, features_of, load_head_data
from pipeline.heads.svm.blocks import block_scale, scaler_of
from pipeline.heads.svm.classifier import Svm, fit_svm
from pipeline.inference.find_heads import read_saved_head
from pipeline.inference.saved_heads import load_heads, read_summary
from pipeline.names import COLOUR_AND_TEXTURE, FILES
from pipeline.storage import atomic, records
from pipeline.storage.baseline_features import SCHEMA, read_baselines, row_type, write_baselines
from pipeline.storage.embeddings.reader import read_embeddings
from pipeline.storage.embeddings.relative_features import group_codes, sums_of
from pipeline.storage.predictions.csv_table import read_predictions

from ..builders import CLASSES, D, make_run  # noqa: TID252  (no package has the tests)

WIDTHS = (8, 5, 4)
"""Of the colour histogram, the hand-crafted features and the untrained network."""


def with_baselines(run: Path) -> Path:
    """Write a small baselines.h5 for a fabricated run."""
    content = read_embeddings(run / "embeddings.h5")
    n, rng = len(content.tile_id), np.random.default_rng(3)
    row = row_type(colour_histogram=WIDTHS[0], handcrafted=WIDTHS[1], untrained=WIDTHS[2])
    rows = np.zeros(n, row)
    rows["sha256"] = content.sha256
    for name, width in zip(("colour_histogram", "handcrafted", "untrained"), WIDTHS, strict=True):
        rows[name] = rng.random((n, width)) + 0.3 * content.label[:, None]
    path = run / "baselines.h5"
    names = [f"f{i}" for i in range(WIDTHS[1])]
    write_baselines(path, content.tile_id, [rows], row=row, names=names, px=32, seed=0, arch="resnet50")
    records.write_record(records.Artifact(path, SCHEMA, "baselines"), details={"skipped": {}})
    return run


def fit(run: Path, *words: str) -> int:
    return fit_heads.main(["--run", str(run), "--threads", "1", "--rounds", "6", *words])


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with both fused heads next to softmax; never changed."""
    run = with_baselines(make_run(tmp_path_factory.mktemp("fused") / "run"))
    assert fit(run, "--heads", "fused_svm", "fused_xgboost") == 0
    return run


def test_rows_are_three_blocks(fitted: Path) -> None:
    data = load_head_data(fitted / "embeddings.h5", fitted / "baselines.h5", FitConfig(fused=True))
    rows, content = data.every[FUSED_NAME], read_embeddings(fitted / "embeddings.h5")
    assert rows.widths == (*WIDTHS[:2], D)
    np.testing.assert_array_equal(rows.features[:, -D:], content.features)
    relative = load_head_data(
        fitted / "embeddings.h5", fitted / "baselines.h5", FitConfig(fused=True, relative="group")
    ).every[FUSED_NAME]
    assert relative.widths == tuple(2 * width for width in rows.widths)
    np.testing.assert_array_equal(relative.features[:, -2 * D : -D], content.features)


def test_the_scaler_of_an_svm_has_blocks_of_equal_weight() -> None:
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(60, 9)) * np.arange(1, 10) + 5).astype(np.float32)
    y = np.arange(60) % 2
    rows = Rows(features, np.zeros((60, 2), np.float32), y, widths=(4, 3, 2))
    centre, factor = block_scale(features, rows.widths)
    scaled = scaler_of(rows).transform(features)
    np.testing.assert_allclose(scaled, (features - centre) * factor, rtol=1e-4, atol=1e-5)
    for part in (slice(0, 4), slice(4, 7), slice(7, 9)):
        assert scaled[:, part].var(axis=0).sum() == pytest.approx(1, rel=1e-4)
    params = {"kernel": "rbf", "gamma": 0.3, "C": 10.0}
    expected = SVC(**params).fit(scaled, y).decision_function(scaled)
    np.testing.assert_allclose(fit_svm(rows, params).scores(rows)[:, 1], expected, atol=1e-3)


def test_every_fused_head_predicts_every_row(fitted: Path) -> None:
    table = read_predictions(fitted / "predictions.csv")
    heads = list(table["head"].unique())
    assert heads[:3] == ["softmax", "fused_svm", "fused_xgboost"]
    assert heads.index("fused_mean") > max(heads.index(name) for name in COLOUR_AND_TEXTURE)
    entries = atomic.from_json(fitted / "heads/heads.json")["heads"]
    assert entries["fused_mean"]["members"] == ["softmax", "fused_svm", "fused_xgboost", *COLOUR_AND_TEXTURE]
    logs = [np.log(np.maximum(p_of(table, head), LEAST_P)) for head in entries["fused_mean"]["members"]]
    mean = np.exp(np.mean(logs, axis=0))
    np.testing.assert_allclose(p_of(table, "fused_mean"), mean / mean.sum(axis=1, keepdims=True), atol=1e-4)


def p_of(table: pd.DataFrame, head: str) -> np.ndarray:
    """Return the probabilities (N, K) of a head."""
    return table[table["head"] == head][[f"p_{name}" for name in CLASSES]].to_numpy()


def test_saved_heads_score_as_in_predictions(fitted: Path) -> None:
    data = load_head_data(fitted / "embeddings.h5", fitted / "baselines.h5", FitConfig(fused=True))
    table = read_predictions(fitted / "predictions.csv")
    for name in ("fused_svm", "fused_xgboost", *COLOUR_AND_TEXTURE, "untrained_svm", "linear"):
        scores = SAVED_KINDS[name].load(fitted / FILES[name]).scores(data.every[features_of(name)])
        own = table[table["head"] == name]
        assert (np.array(CLASSES)[scores.argmax(axis=1)] == own["predicted"]).mean() > 0.99
    assert isinstance(SAVED_KINDS["fused_svm"].load(fitted / "heads/fused_svm.skops"), Svm)


@pytest.mark.parametrize("relative", ["none", "group"])
def test_loaded_heads_predict_from_each_feature_set(tmp_path: Path, relative: str) -> None:
    run = with_baselines(make_run(tmp_path / "run"))
    assert fit(run, "--heads", "fused_svm", "svm", "--relative", relative) == 0
    record = records.read_record(run / "predictions.csv")
    names = ["softmax", "svm", "fused_svm", "mean", "fused_mean", *COLOUR_AND_TEXTURE, "baseline_mean", "untrained_svm"]
    saved = load_heads(run, read_summary(run, record), names, record=record, embedded={"options": {}})
    assert saved.feature_sets == {EMBEDDINGS, "colour_histogram", "handcrafted", "untrained"}
    content = read_embeddings(run / "embeddings.h5")
    features = {EMBEDDINGS: content.features} | read_baselines(run / "baselines.h5").features()
    code, counts = group_codes(np.array(content.group))
    centre = {
        name: saved.centre_of(name, sums_of([features[name]], code, len(counts)), counts)[code] for name in saved.means
    }
    assert set(centre) == (set() if relative == "none" else {EMBEDDINGS, "colour_histogram", "handcrafted"})
    table = read_predictions(run / "predictions.csv")
    for head, output in saved.predict(features, content.logits, centre).items():
        np.testing.assert_allclose(output.p, p_of(table, head), atol=1e-5, err_msg=head)


def test_heads_need_the_record_of_their_baselines_file(fitted: Path) -> None:
    record = records.read_record(fitted / "predictions.csv")
    inputs = {name: "0" * 64 if name.endswith("baselines.h5") else sha256 for name, sha256 in record["inputs"].items()}
    summary = read_summary(fitted, record)
    for head in ("fused_svm", "histogram_svm", "baseline_mean"):
        with pytest.raises(BadArtifact, match=r"baselines\.h5: not the one that the heads were fitted on"):
            load_heads(fitted, summary, [head], record=record | {"inputs": inputs}, embedded={"options": {}})
    softmax = load_heads(fitted, summary, ["softmax"], record=record | {"inputs": inputs}, embedded={"options": {}})
    assert softmax.described is None
    with pytest.raises(BadInput, match="no head"):
        read_saved_head(fitted, "fused_svm")
    assert read_saved_head(fitted, "linear").feature_sets == {EMBEDDINGS}


def test_another_baselines_file_fits_heads_on_it_again(fitted: Path) -> None:
    for name in ("fused_svm", "histogram_svm"):
        record = records.read_record(fitted / f"heads/{name}.skops")
        assert sorted(record["inputs"]) == ["../baselines.h5", "../embeddings.h5"]
    assert list(records.read_record(fitted / "heads/linear.skops")["inputs"]) == ["../embeddings.h5"]


@pytest.mark.fault("an input that changed since")
def test_a_head_of_baselines_that_were_replaced_meanwhile_gets_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = with_baselines(make_run(tmp_path / "run"))
    save = Svm.save

    def save_late(self: Svm, path: Path) -> None:
        save(self, path)
        (run / "baselines.h5").write_bytes(b"another")

    monkeypatch.setattr(Svm, "save", save_late)
    assert fit(run, "--heads", "fused_svm") == 1
    assert "baselines.h5: was " in capsys.readouterr().err
    assert [path.name for path in (run / "heads").iterdir()] == ["fused_svm.skops"]


def test_without_baselines_it_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run")
    assert fit(run, "--heads", "fused_svm") == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "pipeline.baselines" in errors[0]
