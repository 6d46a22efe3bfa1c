"""A cluster chooses what one machine chooses, survives the loss of a worker, or ends in one line."""

import functools
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import BadInput, WorkerLost
from pipeline.heads.base import Rows
from pipeline.heads.cluster import client, fit
from pipeline.heads.cluster.client import Pool, connected
from pipeline.heads.config import FitConfig
from pipeline.heads.memory_budget import Memory
from pipeline.heads.streamed_rows import StreamedRows
from pipeline.heads.svm import search
from pipeline.heads.xgb import booster
from pipeline.storage.embeddings.feature_rows import StoredFeatures
from pipeline.storage.embeddings.reader import SCHEMA
from pipeline.storage.hdf5 import created, finish

pytest.importorskip("distributed")

POINT = {"max_depth": 3, "eta": 0.2, "colsample_bynode": 0.5, "min_child_weight": 1.0}


def rows_of(n: int, *, seed: int = 1) -> Rows:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).normal(size=(3, 8))
    y = rng.permutation(np.arange(n) % 3)
    features = (centres[y] + rng.normal(size=(n, 8))).astype(np.float32)
    return Rows(features, features[:, :3].copy(), y, np.array([f"g{i % 5}" for i in range(n)]))


def stored(rows: Rows, folder: Path) -> StreamedRows:
    """The same rows in a file."""
    path = folder / f"{len(list(folder.iterdir()))}.h5"
    with created(path) as file:
        file["features"] = rows.features
        finish(file, SCHEMA)
    features = StoredFeatures(path, SCHEMA, "features", np.arange(len(rows.y)), 8)
    given = {"logits": rows.logits, "y": rows.y, "groups": rows.groups}
    return StreamedRows(features=features, block_rows=50, sample_rows=10**6, cache=folder, **given)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """Two processes."""
    with connected("local", Memory(2, 2 * 10**9), folder=tmp_path_factory.mktemp("cluster")) as pool:
        yield pool


@pytest.fixture
def own_pool(tmp_path: Path) -> Iterator[Pool]:
    """Two processes that a test may end."""
    folder = tmp_path / "workers"
    folder.mkdir()
    with connected("local", Memory(2, 2 * 10**9), folder=folder) as pool:
        yield pool


@pytest.mark.slow
def test_a_search_of_boosted_points_is_that_of_one_machine(pool: Pool) -> None:
    train, val = rows_of(200), rows_of(100, seed=2)
    counted: list[int] = []
    here = booster.search_boosting(train, val, FitConfig(seed=3, rounds=60))
    config = FitConfig(seed=3, rounds=60, pool=pool)
    there = booster.search_boosting(train, val, config, on_point=lambda: counted.append(1))
    for own, other in zip(here.points, there.points, strict=True):
        assert own.params == other.params
        np.testing.assert_array_equal(own.scores, other.scores)
        assert other.seconds > 0
    assert len(counted) == len(booster.POINTS)


def test_a_search_of_kernels_is_that_of_one_machine(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    train, val = rows_of(200), rows_of(100, seed=2)
    monkeypatch.setattr(search, "SEARCH_ROWS", 120)
    for points in (search.standard_points(8), search.affordable(search.standard_points(8), 200, most=0)):
        here = search.search_svm(train, val, FitConfig(seed=3), points=points)
        there = search.search_svm(train, val, FitConfig(seed=3, pool=pool), points=points)
        assert [point.params for point in there.points] == points
        assert there.best.params == here.best.params
        for own, other in zip(here.points, there.points, strict=True):
            np.testing.assert_allclose(own.scores, other.scores, rtol=1e-6, atol=1e-8)


@pytest.mark.slow
def test_xgboost_by_all_workers_is_as_good_as_by_one(pool: Pool, tmp_path: Path) -> None:
    """Each worker draws rows of its own, so that trees differ; one worker alone makes the trees of one machine."""
    known = rows_of(600), rows_of(300, seed=2)
    train, val = (stored(rows, tmp_path) for rows in known)
    config = FitConfig(seed=3, rounds=60)
    plain = booster.search_boosting(*known, config, points=[POINT]).best
    found = fit.refit_boosting(pool, train, val, POINT, config).best
    right = [(point.scores.argmax(axis=1) == known[1].y).mean() for point in (plain, found)]
    assert right[0] > 0.8
    assert right[1] == pytest.approx(right[0], abs=0.03)
    assert found.nll == pytest.approx(plain.nll, abs=0.03)
    again = fit.boost_together(pool, train, val, POINT | {"rounds": 60}, config)
    assert again.booster.num_boosted_rounds() == found.params["rounds"] < 60, "it should stop early"
    np.testing.assert_array_equal(again.scores(known[1]), found.scores)
    short = fit.boost_together(pool, train, None, POINT | {"rounds": 7}, config)
    assert short.booster.num_boosted_rounds() == 7
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".h5"]


def test_xgboost_by_one_worker_is_that_of_one_machine(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = rows_of(300), rows_of(150, seed=2)
    train, val = (stored(rows, tmp_path) for rows in known)
    config = FitConfig(seed=3, rounds=30)
    plain = booster.search_boosting(*known, config, points=[POINT]).best
    threads = Pool.threads
    monkeypatch.setattr(Pool, "threads", lambda self: dict(list(threads(self).items())[:1]))
    np.testing.assert_array_equal(fit.refit_boosting(pool, train, val, POINT, config).best.scores, plain.scores)


def test_a_streamed_svm_of_a_worker_is_that_of_one_machine(pool: Pool, tmp_path: Path) -> None:
    from pipeline.heads.svm.nystroem_streamed import fit_streamed

    point = {"kernel": "rbf", "gamma": 0.05, "landmarks": 30, "C": 10.0}
    train, val = stored(rows_of(200), tmp_path), stored(rows_of(100, seed=2), tmp_path)
    found = fit.refit_svm(pool, train, val, point, seed=0).best
    expected = fit_streamed(train, point, seed=0).scores(val.read())
    np.testing.assert_allclose(found.scores, expected, rtol=1e-4, atol=1e-5)
    assert found.head is not None
    np.testing.assert_allclose(found.head.scores(val.read()), expected, rtol=1e-4, atol=1e-5)


def test_each_worker_is_given_its_own_and_nothing_of_a_former_training(pool: Pool) -> None:
    def own(item: dict[str, int]) -> int:
        return item["n"]

    def with_shared(shared: dict[str, int], i: int) -> tuple[int, int]:
        return i, shared["n"]

    for call in range(3):
        items = {name: {"n": 10 * call + i} for i, name in enumerate(pool.threads())}
        assert pool.together(own, items) == [10 * call, 10 * call + 1]
        assert pool.map(functools.partial(with_shared, {"n": call}), [0, 1]) == [(0, call), (1, call)]


def test_an_error_of_a_task_arrives_as_it_was(pool: Pool) -> None:
    def fail(item: int) -> None:
        from pipeline.errors import DiskFull

        raise DiskFull(f"no room for {item}")

    with pytest.raises(Exception, match="no room for 3") as caught:
        pool.map(fail, [3])
    assert type(caught.value).__name__ == "DiskFull"


@pytest.mark.fault("a worker of a cluster is lost")
@pytest.mark.slow
def test_the_task_of_a_lost_worker_is_done_by_another(own_pool: Pool, tmp_path: Path) -> None:
    mark = tmp_path / "died"

    def work(shared: np.ndarray, i: int) -> float:
        if i == 1 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return float(shared.sum()) + i

    found = own_pool.map(functools.partial(work, np.ones(10)), list(range(4)))
    assert found == [10.0, 11.0, 12.0, 13.0]
    assert mark.exists()


@pytest.mark.fault("a worker of a cluster is lost")
@pytest.mark.slow
def test_a_worker_that_is_lost_in_a_training_of_all_ends_it_in_one_line(own_pool: Pool) -> None:
    def work(i: int) -> int:
        import time

        if i == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(1000)
        return i

    with pytest.raises(WorkerLost, match="one of 2 workers that train together was lost") as caught:
        own_pool.together(work, {name: i for i, name in enumerate(own_pool.threads())})
    assert "\n" not in str(caught.value)


@pytest.mark.fault("a worker of a cluster is lost")
@pytest.mark.slow
def test_a_task_that_ends_every_worker_is_one_line(own_pool: Pool) -> None:
    def work(i: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    either = "workers were lost one after the other at the same task|its workers or its scheduler are gone"
    with pytest.raises(WorkerLost, match=either) as caught:  # the second where the last worker takes its nanny along
        own_pool.map(work, [0])
    assert "\n" not in str(caught.value)


@pytest.mark.fault("a cluster that does not answer, or has other versions")
def test_workers_with_other_versions_are_refused(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    here = client.environment.versions() | {"xgboost": "9.9"}
    monkeypatch.setattr(client.environment, "versions", lambda: here)
    monkeypatch.setattr(pool.client, "run", lambda work: {"tcp://a:1": here | {"xgboost": "3.0"}})
    with pytest.raises(BadInput, match=r"worker tcp://a:1 has xgboost 3.0, here is 9.9"):
        client._check_versions(pool.client, "tcp://a:2")
