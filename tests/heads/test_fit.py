"""Heads are searched, fitted, calibrated and then predict; rows that do not fit get a folder and the CPU."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import BadInput
from pipeline.evaluation.calibration import apply_temperature, fit_temperature
from pipeline.heads import fit
from pipeline.heads.base import Head, Params, Rows, Softmax, Step, nothing
from pipeline.heads.baselines import Majority
from pipeline.heads.config import FitConfig
from pipeline.heads.fit import CalibratedHead, FitResult, calibrate, fit_baseline, fit_head, fit_softmax, search_head
from pipeline.heads.kind import HeadKind
from pipeline.heads.memory_budget import Memory, Room
from pipeline.heads.registry import KINDS, SAVED_KINDS
from pipeline.heads.rows import EMBEDDINGS, HeadData
from pipeline.heads.search_result import Point, Search
from pipeline.names import BASELINES, FILES, MEANS

CONFIG = FitConfig(rounds=3, svm_rows=1000)


def rows_of(n: int, *, seed: int) -> Rows:
    """Return n rows of three classes and of ten groups, with overconfident logits."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    features = (np.eye(3)[y] * 2 + rng.normal(size=(n, 3))).astype(np.float32)
    return Rows(features, 5 * features, y, np.array([f"g{i // 3 % 10}" for i in range(n)]))


ROWS = {name: rows_of(n, seed=seed) for seed, (name, n) in enumerate({"train": 90, "val": 60, "test": 30}.items())}


def made(name: str, rows: dict[str, Rows] = ROWS, config: FitConfig = CONFIG) -> CalibratedHead:
    kind = SAVED_KINDS[name]
    return calibrate(fit_head(name, kind, rows, search_head(name, kind, rows, config), config), config)


def test_every_name_has_its_code() -> None:
    assert tuple(SAVED_KINDS) == tuple(FILES)
    assert {*KINDS} == {*FILES, *BASELINES} - {*MEANS}
    assert all(hasattr(CONFIG, kind.option) for kind in SAVED_KINDS.values() if kind.option)


class Fixed(HeadKind):
    """Answers by its logits times a number; counts its fits."""

    def __init__(self, *, fits_in_search: bool) -> None:
        self.fits_in_search, self.fits = fits_in_search, 0

    def points(self, rows: Rows, config: FitConfig) -> list[Params]:
        return [{"factor": factor} for factor in (-1.0, 1.0)]

    def search(self, fit: Rows, held: Rows, points: list[Params], config: FitConfig, on_point: Step) -> Search:
        head = Softmax() if self.fits_in_search else None
        return Search([Point(point, point["factor"] * held.logits, held.y, 0.0, head) for point in points])

    def fit(self, rows: Rows, params: Params, config: FitConfig, on_step: Step = nothing) -> Head:
        self.fits += 1
        return Softmax()


@pytest.mark.parametrize(("fits_in_search", "n_fits"), [(True, 0), (False, 1)])
def test_a_head_that_the_search_has_fitted_is_not_fitted_again(fits_in_search: bool, n_fits: int) -> None:
    kind = Fixed(fits_in_search=fits_in_search)
    found = fit_head("x", kind, ROWS, search_head("x", kind, ROWS, CONFIG), CONFIG)
    assert kind.fits == n_fits
    assert found.facts["chosen"] == {"factor": 1.0}
    np.testing.assert_array_equal(found.held_scores, ROWS["val"].logits)


def test_a_head_on_held_out_rows_is_fitted_after_a_cross_validated_search() -> None:
    kind, config = Fixed(fits_in_search=True), dataclasses.replace(CONFIG, fit_on="heldout")
    found = fit_head("x", kind, ROWS, search_head("x", kind, ROWS, config), config)
    assert kind.fits == 1
    np.testing.assert_array_equal(found.held_scores, ROWS["val"].logits)


@pytest.mark.parametrize(
    ("asked", "taken"), [("auto", "temperature"), ("temperature", "temperature"), ("isotonic", "isotonic")]
)
def test_softmax_keeps_its_temperature_unless_another_calibration_is_named(asked: str, taken: str) -> None:
    """By cross-validation "auto" would take another method: a fit on scores that are wrong in one class shows it."""
    val = ROWS["val"]
    wrong = val.logits.copy()
    wrong[:, 0] -= 30  # no temperature mends this, a sigmoid for each class does
    rows = {**ROWS, "val": dataclasses.replace(val, logits=wrong)}
    config = dataclasses.replace(CONFIG, calibration=asked)  # type: ignore[arg-type]
    softmax = calibrate(fit_softmax(rows), config)
    assert softmax.facts["calibration"]["method"] == taken
    other = calibrate(FitResult(Majority(val), wrong, val, {}), CONFIG)
    assert other.facts["calibration"]["method"] != "temperature"


def test_a_head_predicts_calibrated_scores_of_the_rows_that_it_takes() -> None:
    every, other = ROWS["test"], rows_of(30, seed=9)
    heads = {"softmax": calibrate(fit_softmax(ROWS), CONFIG), "svm": made("svm")}
    heads |= fit.mean_of("mean", heads)
    heads["histogram_svm"] = calibrate(fit_baseline("histogram_svm", KINDS["histogram_svm"], ROWS, CONFIG), CONFIG)
    data = HeadData(None, {EMBEDDINGS: every, "colour_histogram": other}, {}, {}, {})  # type: ignore[arg-type]
    outputs = dict(fit.predict_all(heads, data))
    assert list(outputs) == list(heads)
    for name, head in heads.items():
        if head.head is None:
            continue
        own = other if name == "histogram_svm" else every
        np.testing.assert_array_equal(outputs[name].predicted, head.head.scores(own).argmax(axis=1))
    temperature = fit_temperature(ROWS["val"].logits, ROWS["val"].y)
    np.testing.assert_allclose(outputs["softmax"].p, apply_temperature(every.logits, temperature))
    expected = np.sqrt(outputs["softmax"].p * outputs["svm"].p)
    np.testing.assert_allclose(outputs["mean"].p, expected / expected.sum(axis=1, keepdims=True))
    np.testing.assert_array_equal(outputs["mean"].predicted, expected.argmax(axis=1))
    assert heads["mean"].facts["members"] == ["softmax", "svm"]
    assert fit.mean_of("baseline_mean", heads) == {}, "one member has no mean"
    assert heads["softmax"].facts["predict_tiles_per_second"] is None, "its scores were computed before"
    assert heads["svm"].facts["predict_tiles_per_second"] > 0


def test_rows_that_fit_are_fitted_as_configured_and_leave_no_folder(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, device="cuda")
    with fit.open_fit_backend(config, Memory(0, 10**9), folder=tmp_path, cluster=None) as (found, cache):
        assert found == config
        assert cache is None
        assert not list(tmp_path.iterdir())


def test_rows_that_do_not_fit_get_room_and_a_folder_and_the_cpu(tmp_path: Path) -> None:
    room = Room(64, 100, svm_rows=70)
    config = dataclasses.replace(CONFIG, device="cuda")
    with fit.open_fit_backend(config, Memory(0, 10**9, room), folder=tmp_path, cluster=None) as (found, cache):
        assert found == dataclasses.replace(config, device="cpu", svm_rows=70)
        assert [cache] == list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())


def test_a_cluster_that_does_not_answer_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("pipeline.heads.cluster.client.ANSWER_S", 0.2)
    with (
        pytest.raises(BadInput, match="no Dask scheduler"),
        fit.open_fit_backend(CONFIG, Memory(0, 10**9), folder=tmp_path, cluster="tcp://127.0.0.1:1"),
    ):
        pass
    assert not list(tmp_path.iterdir())
