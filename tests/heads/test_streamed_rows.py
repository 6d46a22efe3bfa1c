"""Heads of rows that do not fit into memory are those of rows that do, to the tolerances that the tests state."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from pipeline.errors import DiskFull
from pipeline.heads import fit as steps
from pipeline.heads.base import Head, Rows
from pipeline.heads.config import FitConfig, FitOn
from pipeline.heads.fit import FitResult, fit_baseline, fit_head, search_head
from pipeline.heads.probes import separability, source_probe
from pipeline.heads.registry import KINDS, SAVED_KINDS
from pipeline.heads.search_result import Search
from pipeline.heads.streamed_rows import StreamedRows, in_memory, sampled, scores_of
from pipeline.heads.svm import nystroem
from pipeline.heads.svm.classifier import Svm, fit_svm
from pipeline.heads.svm.nystroem_streamed import fit_regression, fit_streamed
from pipeline.heads.xgb.booster import POINTS, search_boosting
from pipeline.heads.xgb.external_memory import bins_bytes, external_matrix
from pipeline.names import ON_REQUEST
from pipeline.storage import atomic
from pipeline.storage.embeddings.feature_rows import StoredFeatures
from pipeline.storage.embeddings.reader import SCHEMA
from pipeline.storage.hdf5 import created, finish

POINT = {"kernel": "rbf", "gamma": 0.05, "landmarks": 40, "C": 10.0}


def rows_of(n: int, *, n_classes: int = 3, seed: int = 1) -> Rows:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).normal(size=(n_classes, 8))
    y = rng.permutation(np.arange(n) % n_classes)
    features = (centres[y] + rng.normal(size=(n, 8))).astype(np.float32)
    return Rows(features, features[:, :n_classes].copy(), y, np.array([f"g{i % 5}" for i in range(n)]))


def head_of(search: Search) -> Head:
    head = search.best.head
    assert head is not None
    return head


def fitted(name: str, rows: dict[str, Rows], config: FitConfig) -> FitResult:
    kind = SAVED_KINDS[name]
    return fit_head(name, kind, rows, search_head(name, kind, rows, config), config)


Store = Callable[..., StreamedRows]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """`store(rows, block=70, sample=10**6)`: the same rows, features in a file in another order."""

    def make(rows: Rows, *, block: int = 70, sample: int = 10**6) -> StreamedRows:
        n = len(list(tmp_path.glob("*.h5")))
        path, cache = tmp_path / f"{n}.h5", tmp_path / f"cache{n}"
        cache.mkdir()
        order = np.random.default_rng(3).permutation(len(rows.y))
        with created(path) as file:
            file["features"] = rows.features[order]
            finish(file, SCHEMA)
        features = StoredFeatures(path, SCHEMA, "features", np.argsort(order), rows.features.shape[1])
        given = {"logits": rows.logits, "y": rows.y, "groups": rows.groups, "n_classes": rows.n_classes}
        return StreamedRows(features=features, block_rows=block, sample_rows=sample, cache=cache, **given)

    return make


def test_blocks_choices_and_samples_are_those_of_the_rows(store: Store) -> None:
    rows = rows_of(200)
    stored = store(rows, sample=60)
    chosen = np.arange(200) % 3 == 1
    some = stored.take(chosen)
    assert isinstance(some, StreamedRows)
    for place, block in some.blocks():
        for name in ("features", "logits", "y", "groups"):
            np.testing.assert_array_equal(getattr(block, name), getattr(rows.take(chosen), name)[place])
    np.testing.assert_array_equal(in_memory(some).features, rows.take(chosen).features)
    sample = sampled({"train": stored, "val": rows, "test": stored}, seed=0)
    assert sample["val"] is rows
    assert set(sample) == {"train", "val"}
    assert np.bincount(sample["train"].y).tolist() == [20, 20, 20]
    every = {row.tobytes() for row in rows.features}
    assert {row.tobytes() for row in sample["train"].features} <= every


def test_xgboost_from_disk_is_xgboost_in_memory_to_the_bit_if_the_borders_are_of_all_rows(store: Store) -> None:
    train, val = rows_of(300), rows_of(120, seed=2)
    config = FitConfig(seed=3, rounds=40)
    search = search_boosting(train, val, config, points=POINTS[:2])
    on_disk = store(train), store(val, block=33)
    again = search_boosting(*on_disk, config, points=POINTS[:2])
    for own, streamed in zip(search.points, again.points, strict=True):
        assert streamed.params == own.params
        np.testing.assert_array_equal(streamed.scores, own.scores)
        np.testing.assert_array_equal(scores_of(head_of(again), on_disk[1]), head_of(again).scores(val))
    assert not list(on_disk[0].cache.iterdir()), "the bins went with their matrix"


def test_xgboost_with_the_borders_of_a_sample_is_as_good(store: Store) -> None:
    train, val = rows_of(600), rows_of(300, seed=2)
    config = FitConfig(seed=3, rounds=40)
    both = [search_boosting(rows, val, config, points=POINTS[:1]) for rows in (train, store(train, sample=150))]
    right = [(found.best.scores.argmax(axis=1) == val.y).mean() for found in both]
    assert right[0] > 0.8
    assert right[1] == pytest.approx(right[0], abs=0.03)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize(("tolerance", "near"), [(1e-4, 0.01), (1e-8, 1e-5)])
def test_the_regression_in_blocks_is_scikit_learns(
    monkeypatch: pytest.MonkeyPatch, n_classes: int, tolerance: float, near: float
) -> None:
    monkeypatch.setattr(nystroem, "new_regression", lambda C: LogisticRegression(C=C, tol=tolerance, max_iter=1000))
    rows = rows_of(250, n_classes=n_classes)
    classes = np.array([1, 4, 6])[:n_classes]  # codes with gaps: a class may have no rows
    y = classes[rows.y]
    expected = LogisticRegression(C=2.0, tol=1e-8, max_iter=1000).fit(rows.features.astype(np.float64), y)

    def blocks():
        for start in range(0, 250, 60):
            yield rows.features[start : start + 60], y[start : start + 60]

    found = fit_regression(blocks, y, n_weights=8, C=2.0)
    assert found.coef_.shape == expected.coef_.shape
    np.testing.assert_array_equal(found.classes_, classes)
    np.testing.assert_allclose(found.predict_proba(rows.features), expected.predict_proba(rows.features), atol=near)
    assert 0 < found.n_iter_.max() < 1000


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_svm_in_blocks_is_the_svm_of_landmarks_in_memory(store: Store, n_classes: int) -> None:
    train, test = rows_of(400, n_classes=n_classes), rows_of(300, n_classes=n_classes, seed=2)
    stored = store(train)
    passes: list[int] = []
    plain, streamed = (
        fit_svm(train, POINT, seed=4),
        fit_streamed(stored, POINT, seed=4, on_pass=lambda: passes.append(1)),
    )
    assert [type(step) for _, step in streamed.pipeline.steps] == [type(step) for _, step in plain.pipeline.steps]
    np.testing.assert_allclose(streamed.pipeline[1].components_, plain.pipeline[1].components_, rtol=1e-4, atol=1e-6)
    scores, expected = streamed.scores(test), plain.scores(test)
    np.testing.assert_allclose(scores, expected, atol=0.02 * np.abs(expected).max())
    assert (scores.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.99
    assert len(passes) > 3
    np.testing.assert_array_equal(fit_streamed(stored, POINT, seed=4).scores(test), scores)
    assert not list(stored.cache.iterdir())


@pytest.mark.parametrize("n_classes", [2, 3])
def test_logistic_regression_in_blocks_is_that_in_memory(store: Store, n_classes: int) -> None:
    rows = dataclasses.replace(rows_of(200, n_classes=n_classes), logits=np.empty((200, 0)), n_classes=n_classes)
    kind = SAVED_KINDS["logistic"]
    exact, streamed = (kind.fit(each, {"C": 0.1}, FitConfig()) for each in (rows, store(rows)))
    a, b = exact.scores(rows), streamed.scores(rows)
    assert a.shape == (200, n_classes)
    assert np.abs(a - b).max() < 1e-3


def test_a_streamed_svm_keeps_the_format_of_its_file(store: Store, tmp_path: Path) -> None:
    from pipeline.heads.base import SCHEMA as HEAD
    from pipeline.storage.records import Artifact, write_record

    head, path = fit_streamed(store(rows_of(120)), POINT, seed=0), tmp_path / "svm.skops"
    head.save(path)
    write_record(Artifact(path, HEAD, "fit_heads"))
    test = rows_of(50, seed=2)
    np.testing.assert_array_equal(Svm.load(path).scores(test), head.scores(test))


@pytest.mark.parametrize("fit_on", ["train", "heldout"])
@pytest.mark.parametrize("name", ON_REQUEST)
def test_a_head_is_chosen_on_a_sample_and_its_held_out_scores_are_of_all_val_rows(
    store: Store, name: str, fit_on: FitOn
) -> None:
    known = {"train": rows_of(500), "val": rows_of(260, seed=2), "test": rows_of(300, seed=3)}
    config = FitConfig(fit_on, rounds=20, svm_rows=1)
    plain = fitted(name, known, config)
    streamed = fitted(name, {split: store(rows, sample=200) for split, rows in known.items()}, config)
    assert streamed.held_scores.shape == (260, 3)
    np.testing.assert_array_equal(streamed.held.y, known["val"].y)
    told = (
        r"searched on 20\d of 500 train rows, 20\d of 260 val rows" if fit_on == "train" else r"on 20\d of 260 val rows"
    )
    assert re.search(told, " ".join(streamed.facts["notes"]))
    right = [(own.head.scores(known["test"]).argmax(axis=1) == known["test"].y).mean() for own in (plain, streamed)]
    held = [(own.held_scores.argmax(axis=1) == known["val"].y).mean() for own in (plain, streamed)]
    assert right[1] == pytest.approx(right[0], abs=0.06)
    assert held[1] == pytest.approx(held[0], abs=0.06)
    assert streamed.facts["chosen"].keys() == plain.facts["chosen"].keys()


def test_no_held_out_score_is_by_a_head_that_saw_the_row(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """P7: fitted on held-out rows, each fold is scored by what was fitted without its groups."""
    seen: list[tuple[set[str], set[str]]] = []
    evaluate = steps.evaluate

    def spy(rows, folds, search, config, **given):  # type: ignore[no-untyped-def]
        def noted(fit: Rows, held: Rows) -> Search:
            seen.append((set(fit.groups), set(held.groups)))
            return search(fit, held)

        return evaluate(rows, folds, noted, config, **given)

    monkeypatch.setattr(steps, "evaluate", spy)
    known = {name: store(rows_of(200, seed=i), sample=100) for i, name in enumerate(("train", "val"))}
    fitted("svm", known, FitConfig("heldout", svm_rows=1))
    assert len(seen) == 2 * steps.HELDOUT_FOLDS
    assert all(fit and held and not fit & held for fit, held in seen)


def test_baselines_take_a_sample_and_say_so(store: Store) -> None:
    known = {"train": rows_of(400), "val": rows_of(200, seed=2)}
    for name in ("knn", "linear", "majority"):
        kind = KINDS[name]
        sample = {key: store(rows, sample=99) for key, rows in known.items()}
        fitted = fit_baseline(name, kind, sample, FitConfig())
        assert fitted.facts["notes"] == [
            "fitted on a stratified sample of 99 of 400 rows, which do not fit into memory"
        ]
        assert fitted.held_scores.shape == (99, 3)
        assert len(fitted.held.y) == len(fitted.held.groups) == 99
        whole = fit_baseline(name, kind, {key: store(rows) for key, rows in known.items()}, FitConfig())
        np.testing.assert_array_equal(whole.held_scores, fit_baseline(name, kind, known, FitConfig()).held_scores)
        assert whole.facts["notes"] == []


def test_probes_of_stored_rows_are_those_of_rows(store: Store) -> None:
    rows = rows_of(150)
    stored = store(rows)
    plain, streamed = separability(rows), separability(stored)
    assert streamed["scatter_ratio"] == pytest.approx(plain["scatter_ratio"], rel=1e-5)
    assert {**plain, "scatter_ratio": 0} == {**streamed, "scatter_ratio": 0}
    assert source_probe(stored, None, seed=0) == source_probe(rows, None, seed=0)


@pytest.mark.fault("no room for the bins and kernel values of rows that do not fit into memory")
@pytest.mark.parametrize(("n", "block"), [(900, 900), (900, 130), (301, 20)])
def test_the_size_of_the_bins_on_disk_is_known_before(store: Store, n: int, block: int) -> None:
    """XGBoost ends the process where it finds no room."""
    rows = store(rows_of(n), block=block)
    matrix = external_matrix(rows, max_bin=32, jobs=1, seed=0, like=None)
    size = sum(path.stat().st_size for path in rows.cache.iterdir())
    assert 0.3 < size / bins_bytes(n, 8, block_rows=block, max_bin=32) <= 1
    del matrix


@pytest.mark.fault("no room for the bins and kernel values of rows that do not fit into memory")
@pytest.mark.parametrize("head", ["svm", "xgboost"])
def test_too_little_disk_is_said_before_anything_is_written(
    store: Store, monkeypatch: pytest.MonkeyPatch, head: str
) -> None:
    rows = store(rows_of(200))
    monkeypatch.setattr(atomic.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 1000}))
    fit = {
        "svm": lambda: fit_streamed(rows, POINT, seed=0),
        "xgboost": lambda: search_boosting(rows, rows, FitConfig(rounds=2)),
    }
    with pytest.raises(DiskFull, match="make room and run again"):
        fit[head]()
    assert not list(rows.cache.iterdir())
