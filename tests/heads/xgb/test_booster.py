"""The XGBoost head: early stopping on validation rows, its files, and what it refuses."""

import numpy as np
import pytest
import xgboost

from pipeline.errors import BadArtifact
from pipeline.heads.base import SCHEMA, Rows
from pipeline.heads.config import FitConfig
from pipeline.heads.xgb import booster
from pipeline.heads.xgb.booster import FIXED, PATIENCE, POINTS, Boosting, fit_boosting, search_boosting
from pipeline.storage.records import Artifact, write_record


def blobs(n: int, *, n_classes: int, seed: int) -> Rows:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).normal(size=(n_classes, 6)) * 1.5
    y = np.arange(n) % n_classes
    features = (centres[y] + rng.normal(size=(n, 6))).astype(np.float32)
    return Rows(features=features, logits=np.zeros((n, n_classes), np.float32), y=y.astype(np.int64))


def best_head(train: Rows, val: Rows, config: FitConfig) -> Boosting:
    head = search_boosting(train, val, config).best.head
    assert isinstance(head, Boosting)
    return head


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_best_point_by_validation_loss_is_returned_cut_at_its_best_round(n_classes: int) -> None:
    train, val = blobs(120, n_classes=n_classes, seed=1), blobs(60, n_classes=n_classes, seed=2)
    search = search_boosting(train, val, FitConfig(rounds=10))
    assert len(search.points) == len(POINTS)
    head = search.best.head
    assert isinstance(head, Boosting)
    assert head.booster.num_boosted_rounds() == search.best.params["rounds"] <= 10
    assert search.best.seconds > 0
    scores = head.scores(val)
    assert scores.shape == (60, n_classes)
    assert (scores.argmax(1) == val.y).mean() > 0.8


def test_early_stopping_listens_to_validation_rows() -> None:
    train, val = blobs(120, n_classes=3, seed=1), blobs(60, n_classes=3, seed=2)
    noise = Rows(val.features, val.logits, np.random.default_rng(0).permutation(val.y))
    useful = search_boosting(train, val, FitConfig(rounds=30))
    useless = search_boosting(train, noise, FitConfig(rounds=30))
    assert useless.best.params["rounds"] < useful.best.params["rounds"]


def test_the_same_seed_gives_the_same_head_and_saving_keeps_its_scores(tmp_path) -> None:
    train, val = blobs(90, n_classes=3, seed=1), blobs(60, n_classes=3, seed=2)
    first, second = (best_head(train, val, FitConfig(seed=4, rounds=5)) for _ in range(2))
    np.testing.assert_array_equal(first.scores(val), second.scores(val))
    first.save(tmp_path / "xgboost.ubj")
    write_record(Artifact(tmp_path / "xgboost.ubj", SCHEMA, "fit_heads"))
    np.testing.assert_array_equal(Boosting.load(tmp_path / "xgboost.ubj").scores(val), first.scores(val))


@pytest.mark.fault("damaged XGBoost model")
@pytest.mark.parametrize("content", [b"", b"{", b"random bytes that are no model"])
def test_files_without_a_record_are_refused_in_one_line(tmp_path, content: bytes) -> None:
    path = tmp_path / "xgboost.ubj"
    path.write_bytes(content)  # XGBoost itself would end the process at two of the three
    with pytest.raises(BadArtifact, match=r"record of xgboost.ubj is missing") as caught:
        Boosting.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.fault("damaged XGBoost model")
def test_a_changed_head_is_refused_before_xgboost_sees_it(tmp_path) -> None:
    train, val = blobs(60, n_classes=2, seed=1), blobs(30, n_classes=2, seed=2)
    path = tmp_path / "xgboost.ubj"
    best_head(train, val, FitConfig(rounds=2)).save(path)
    write_record(Artifact(path, SCHEMA, "fit_heads"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(BadArtifact, match="its bytes are not those that were written"):
        Boosting.load(path)


def test_a_point_is_boosted_as_xgboost_itself_would() -> None:
    train, val = blobs(120, n_classes=3, seed=1), blobs(60, n_classes=3, seed=2)
    config = FitConfig(seed=3, rounds=200)
    (point,) = search_boosting(train, val, config, points=POINTS[:1]).points
    matrix = xgboost.QuantileDMatrix(train.features, train.y, max_bin=FIXED["max_bin"])
    held = xgboost.QuantileDMatrix(val.features, val.y, max_bin=FIXED["max_bin"], ref=matrix)
    params = FIXED | POINTS[0] | {"num_class": 3, "seed": 3, "nthread": 1}
    watched = {"evals": [(held, "val")], "verbose_eval": False}
    plain = xgboost.train(params, matrix, 200, early_stopping_rounds=PATIENCE, **watched)
    assert point.params["rounds"] == plain.best_iteration + 1 < 200 - PATIENCE, "it should stop early"
    course = booster.Course(params, matrix, held)
    course.train_until(200)
    assert len(course.losses) == plain.num_boosted_rounds(), "it should stop at the same round"
    own = plain[: plain.best_iteration + 1].inplace_predict(val.features, predict_type="margin")
    np.testing.assert_array_equal(point.scores, own)
    again = fit_boosting(train, point.params, config)
    np.testing.assert_array_equal(again.scores(val), own)


def test_the_better_half_goes_on_as_if_it_were_alone_and_the_rest_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(booster, "LOOK", 4)
    train, val = blobs(120, n_classes=3, seed=1), blobs(60, n_classes=3, seed=2)
    slow, useless = {"max_depth": 3, "eta": 0.01}, {"max_depth": 3, "eta": 0.2, "gamma": 1e6}
    points = [slow, POINTS[0], useless, POINTS[2]]
    config = FitConfig(seed=3, rounds=40)
    search = search_boosting(train, val, config, points=points)
    assert [point.params["rounds"] <= 4 for point in search.points] == [True, False, True, False]
    for i in (1, 3):
        alone = search_boosting(train, val, config, points=[points[i]])
        np.testing.assert_array_equal(alone.best.scores, search.points[i].scores)
    full = [search_boosting(train, val, config, points=[point]).best for point in points]
    assert search.best.params == min(full, key=lambda point: point.nll).params
    assert search.best.head is not None
    np.testing.assert_array_equal(search.best.head.scores(val), search.best.scores)
