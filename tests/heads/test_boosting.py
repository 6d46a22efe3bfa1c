"""The XGBoost head: early stopping on validation rows, its files, and what it refuses."""

import numpy as np
import pytest

from pipeline.errors import BadArtifact
from pipeline.heads.base import SCHEMA, Rows
from pipeline.heads.boosting import POINTS, Boosting, search_boosting
from pipeline.storage.records import write_record


def blobs(n: int, *, n_classes: int, seed: int) -> Rows:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).normal(size=(n_classes, 6)) * 1.5
    y = np.arange(n) % n_classes
    features = (centres[y] + rng.normal(size=(n, 6))).astype(np.float32)
    return Rows(features=features, logits=np.zeros((n, n_classes), np.float32), y=y.astype(np.int64))


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_best_point_by_validation_loss_is_returned_cut_at_its_best_round(n_classes: int) -> None:
    train, val = blobs(120, n_classes=n_classes, seed=1), blobs(60, n_classes=n_classes, seed=2)
    search, head, seconds = search_boosting(train, val, seed=0, jobs=1, rounds=10)
    assert len(search.points) == len(POINTS)
    assert head.booster.num_boosted_rounds() == search.best["rounds"] <= 10
    assert seconds > 0
    scores = head.scores(val)
    assert scores.shape == (60, n_classes)
    assert (scores.argmax(1) == val.y).mean() > 0.8


def test_early_stopping_listens_to_validation_rows() -> None:
    train, val = blobs(120, n_classes=3, seed=1), blobs(60, n_classes=3, seed=2)
    noise = Rows(val.features, val.logits, np.random.default_rng(0).permutation(val.y))
    useful, _, _ = search_boosting(train, val, seed=0, jobs=1, rounds=30)
    useless, _, _ = search_boosting(train, noise, seed=0, jobs=1, rounds=30)
    assert useless.best["rounds"] < useful.best["rounds"]


def test_the_same_seed_gives_the_same_head_and_saving_keeps_its_scores(tmp_path) -> None:
    train, val = blobs(90, n_classes=3, seed=1), blobs(60, n_classes=3, seed=2)
    _, first, _ = search_boosting(train, val, seed=4, jobs=1, rounds=5)
    _, second, _ = search_boosting(train, val, seed=4, jobs=1, rounds=5)
    np.testing.assert_array_equal(first.scores(val), second.scores(val))
    first.save(tmp_path / "xgboost.ubj")
    write_record(tmp_path / "xgboost.ubj", schema=SCHEMA, stage="fit_heads", options={})
    np.testing.assert_array_equal(Boosting.load(tmp_path / "xgboost.ubj").scores(val), first.scores(val))


@pytest.mark.parametrize("content", [b"", b"{", b"random bytes that are no model"])
def test_files_without_a_record_are_refused_in_one_line(tmp_path, content: bytes) -> None:
    path = tmp_path / "xgboost.ubj"
    path.write_bytes(content)  # XGBoost itself would end the process at two of the three
    with pytest.raises(BadArtifact, match=r"record of xgboost.ubj is missing") as caught:
        Boosting.load(path)
    assert "\n" not in str(caught.value)


def test_a_changed_head_is_refused_before_xgboost_sees_it(tmp_path) -> None:
    train, val = blobs(60, n_classes=2, seed=1), blobs(30, n_classes=2, seed=2)
    path = tmp_path / "xgboost.ubj"
    search_boosting(train, val, seed=0, jobs=1, rounds=2)[1].save(path)
    write_record(path, schema=SCHEMA, stage="fit_heads", options={})
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(BadArtifact, match="its bytes are not those that were written"):
        Boosting.load(path)
