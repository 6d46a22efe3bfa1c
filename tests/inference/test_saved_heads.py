"""Saved heads predict as they did in predictions.csv; their records are checked first."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import BadArtifact, BadInput, StaleInput
from pipeline.heads.outputs import calibrated_output
from pipeline.heads.rows import EMBEDDINGS
from pipeline.inference.saved_heads import EmbeddedBy, embeddings_record, load_heads, read_summary
from pipeline.storage import atomic, records
from pipeline.storage.embeddings.reader import read_embeddings
from pipeline.storage.predictions.csv_table import read_predictions

HEADS = ["softmax", "svm", "xgboost", "mean"]


def test_a_decision_is_that_of_the_scores_and_its_probability_is_calibrated() -> None:
    calibration = {"method": "sigmoid", "params": {"a": [-1.0, -1.0], "b": [5.0, 0.0]}}
    output = calibrated_output({"calibration": calibration}, np.array([[2.0, 1.0]]))
    assert list(output.predicted) == [0]
    assert output.p.argmax() == 1
    assert output.p.sum() == pytest.approx(1)


def test_loaded_heads_repeat_predictions_csv(fitted_base: Path) -> None:
    run = fitted_base / "run"
    record = records.read_record(run / "predictions.csv")
    model = atomic.sha256_file(run / "model.safetensors")
    embedded = embeddings_record(run, record, EmbeddedBy(model, "x", "y"))
    saved = load_heads(run, read_summary(run, record), HEADS, record=record, embedded=embedded)
    content = read_embeddings(run / "embeddings.h5")
    outputs = saved.predict({EMBEDDINGS: content.features}, content.logits)
    table = read_predictions(run / "predictions.csv")
    for head in HEADS:
        rows = table[table["head"] == head]
        assert [content.classes[code] for code in outputs[head].predicted] == list(rows["predicted"])
        np.testing.assert_allclose(outputs[head].p, rows[["p_ADI", "p_TUM"]], atol=1e-6)
    assert saved.dtype == "float32"
    alone = load_heads(run, read_summary(run, record), ["mean"], record=record, embedded=embedded)
    assert list(alone.predict({EMBEDDINGS: content.features}, content.logits)) == ["mean"]
    assert [path.name for path in alone.files] == ["heads.json", "svm.skops", "xgboost.ubj"]


def test_a_head_that_was_not_fitted_is_named(fitted_base: Path) -> None:
    run = fitted_base / "run"
    record = records.read_record(run / "predictions.csv")
    summary = read_summary(run, record)
    del summary["heads"]["svm"]
    for head in ("svm", "knn"):
        with pytest.raises(BadInput, match=f"no head '{head}' with a file, only softmax, xgboost, mean, linear:"):
            load_heads(run, summary, [head], record=record, embedded={})


def test_embeddings_of_another_network_are_named_with_both_hashes(fitted_base: Path) -> None:
    run = fitted_base / "run"
    model = atomic.sha256_file(run / "model.safetensors")
    record = records.read_record(run / "predictions.csv")
    with pytest.raises(StaleInput, match=rf"by s\.h5 \(ffffffffffff\) but by {model[:12]}: do this"):
        embeddings_record(run, record, EmbeddedBy("f" * 64, "s.h5", "do this"))


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "no heads": lambda content: content.pop("heads"),
    "classes of numbers": lambda content: content.update(classes=[1, 2]),
    "an entry that is a list": lambda content: content["heads"].update(svm=[1]),
    "no calibration": lambda content: content["heads"]["svm"].pop("calibration"),
    "a mean of a head that is not there": lambda content: content["heads"]["mean"].update(members=["softmax", "x"]),
    "a mean of nothing": lambda content: content["heads"]["mean"].update(members=[]),
    "a mean of itself": lambda content: content["heads"]["mean"].update(members=["mean"]),
    "an unknown calibration": lambda content: content["heads"]["svm"]["calibration"].update(method="eval"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_summary_that_breaks_the_schema_is_refused_although_its_record_fits(fitted_run: Path, name: str) -> None:
    path = fitted_run / "heads" / "heads.json"
    content = json.loads(path.read_text())
    CHANGES[name](content)
    path.write_text(json.dumps(content))
    with pytest.raises(BadArtifact, match=re.escape(f"{path}: missing or changed")):
        read_summary(fitted_run, records.read_record(fitted_run / "predictions.csv"))
    with pytest.raises(BadArtifact, match="breaks the schema"):
        read_summary(fitted_run, {"outputs": {}})
