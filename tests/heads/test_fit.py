"""Which heads are made, in which order, how they are calibrated, and what they then say."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import BadInput
from pipeline.evaluation.calibration import apply_temperature, fit_temperature
from pipeline.heads import fit
from pipeline.heads.base import Rows, Softmax
from pipeline.heads.fit import (
    CalibratedHead,
    answer_of,
    calibrated,
    make_baselines,
    make_heads,
    make_softmax,
    predict_all,
)
from pipeline.heads.memory_budget import Memory, Room, Shares
from pipeline.heads.search import FitConfig, FitResult
from pipeline.heads.svm.classifier import Svm
from pipeline.heads.xgb.booster import Boosting
from pipeline.names import FILES

SETTING = FitConfig("train", seed=0, jobs=1, device="cpu", rounds=3, svm_rows=1000, calibration="auto")


def rows_of(n: int, *, seed: int) -> Rows:
    """Return n rows of three classes and of ten groups, whose logits are too sure of themselves."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    features = (np.eye(3)[y] * 2 + rng.normal(size=(n, 3))).astype(np.float32)
    return Rows(features, 5 * features, y, np.array([f"g{i // 3 % 10}" for i in range(n)]))


ROWS = {name: rows_of(n, seed=seed) for seed, (name, n) in enumerate({"train": 90, "val": 60, "test": 30}.items())}


def anew(name: str, make: Callable[[], CalibratedHead]) -> CalibratedHead:
    """Keep nothing."""
    return make()


@pytest.mark.parametrize("wanted", [(), ("svm",), ("xgboost", "svm")])
def test_softmax_and_the_heads_that_are_wanted_are_made_in_their_order(wanted: tuple[str, ...]) -> None:
    asked = []

    def keep(name: str, make: Callable[[], CalibratedHead]) -> CalibratedHead:
        asked.append(name)
        return make()

    made = make_heads(ROWS, SETTING, wanted=wanted, keep=keep)
    assert list(made) == ["softmax", *wanted]
    assert asked == list(wanted), "softmax has no file to be kept in"
    kinds = {"softmax": Softmax, "svm": Svm, "xgboost": Boosting}
    for name, (head, facts) in made.items():
        assert type(head) is kinds[name]
        assert facts["calibration"]["rows"] == "val"


def test_every_head_that_has_a_file_can_be_wanted() -> None:
    assert set(fit.FITTERS) == set(FILES)


def test_a_head_that_stands_is_not_fitted_and_the_next_only_when_its_turn_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    standing = CalibratedHead(Softmax(), {"calibration": {}})
    told: list[str] = []
    fitted = {name: lambda rows, setting, name=name: told.append(f"fit {name}") for name in FILES}
    monkeypatch.setattr(fit, "FITTERS", fitted)
    monkeypatch.setattr(fit, "calibrated", lambda fitted, setting: standing)

    def keep(name: str, make: Callable[[], CalibratedHead]) -> CalibratedHead:
        told.append(f"keep {name}")
        return standing if name == "svm" else make()

    made = make_heads(ROWS, SETTING, wanted=("svm", "xgboost"), keep=keep)
    assert told == ["keep svm", "keep xgboost", "fit xgboost"]
    assert made["svm"] is standing


@pytest.mark.parametrize(
    ("asked", "taken"), [("auto", "temperature"), ("temperature", "temperature"), ("isotonic", "isotonic")]
)
def test_softmax_keeps_its_temperature_unless_another_calibration_is_named(
    monkeypatch: pytest.MonkeyPatch, asked: str, taken: str
) -> None:
    """By cross-validation "auto" would take another method: a fit on scores that are wrong in one class says so."""
    val = ROWS["val"]
    wrong = val.logits.copy()
    wrong[:, 0] -= 30  # no temperature mends this, a sigmoid for each class does
    rows = {**ROWS, "val": dataclasses.replace(val, logits=wrong)}
    setting = dataclasses.replace(SETTING, calibration=asked)  # type: ignore[arg-type]
    made = make_softmax(rows, setting)
    assert made.facts["calibration"]["method"] == taken
    other = calibrated(FitResult(made.head, wrong, val.y, val.groups, {}), SETTING)
    assert other.facts["calibration"]["method"] != "temperature"


def test_baselines_are_made_of_the_features_that_are_given() -> None:
    made = make_baselines({"embeddings": ROWS}, SETTING)
    assert list(made) == ["majority", "knn", "linear"]
    assert all(facts["calibration"]["rows"] == "val" for _, facts in made.values())
    colours = {name: dataclasses.replace(own, features=np.abs(own.features)) for name, own in ROWS.items()}
    assert list(make_baselines({"colour_histogram": colours}, SETTING)) == ["histogram_svm"]
    assert make_baselines({}, SETTING) == {}


def test_a_head_answers_with_calibrated_scores_of_the_rows_it_takes() -> None:
    test, other = ROWS["test"], rows_of(30, seed=9)
    heads = make_heads(ROWS, SETTING, wanted=["svm"], keep=anew) | make_baselines({"embeddings": ROWS}, SETTING)
    said = dict(predict_all(heads, test, {"embeddings": other}))
    assert list(said) == list(heads)
    for name, made in heads.items():
        own = other if name in ("majority", "knn", "linear") else test
        np.testing.assert_array_equal(said[name].predicted, made.head.scores(own).argmax(axis=1))
    temperature = fit_temperature(ROWS["val"].logits, ROWS["val"].y)
    np.testing.assert_allclose(said["softmax"].p, apply_temperature(test.logits, temperature))


def test_the_speed_is_that_of_heads_which_compute_something() -> None:
    made = make_heads(ROWS, SETTING, wanted=["svm"], keep=anew)
    for head in made.values():
        answer_of(head, ROWS["test"])
    assert made["softmax"].facts["predict_tiles_per_second"] is None
    assert made["svm"].facts["predict_tiles_per_second"] > 0


def test_rows_that_fit_are_fitted_as_asked_and_leave_no_folder(tmp_path: Path) -> None:
    asked = dataclasses.replace(SETTING, device="cuda")
    memory = Memory(Shares(0, 10**9), None)
    with fit.open_fit_backend(asked, memory, folder=tmp_path, cluster=None) as (setting, streamed):
        assert setting == asked
        assert streamed is None
        assert not list(tmp_path.iterdir())


def test_rows_that_do_not_fit_get_room_and_a_folder_and_the_cpu(tmp_path: Path) -> None:
    room = Room(64, 100, svm_rows=70)
    asked = dataclasses.replace(SETTING, device="cuda")
    memory = Memory(Shares(0, 10**9), room)
    with fit.open_fit_backend(asked, memory, folder=tmp_path, cluster=None) as (setting, streamed):
        assert setting == dataclasses.replace(asked, device="cpu", svm_rows=70)
        assert streamed == (room, *tmp_path.iterdir())
    assert not list(tmp_path.iterdir())


def test_a_cluster_that_does_not_answer_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("pipeline.heads.cluster.client.ANSWER_S", 0.2)
    memory = Memory(Shares(0, 10**9), None)
    with (
        pytest.raises(BadInput, match="no Dask scheduler"),
        fit.open_fit_backend(SETTING, memory, folder=tmp_path, cluster="tcp://127.0.0.1:1"),
    ):
        pass
    assert not list(tmp_path.iterdir())
