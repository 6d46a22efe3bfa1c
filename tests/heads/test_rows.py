"""Which rows are read, how, and whether they fit into memory."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import BadInput
from pipeline.heads import memory_budget, rows
from pipeline.heads.memory_budget import LEAST_BLOCK, LEAST_SAMPLE, LEAST_SHARE, Room, needed
from pipeline.heads.streamed_rows import StoredRows, in_memory
from pipeline.storage.predictions.csv_table import usable_rows

from ..test_fit_heads import D, make_run  # noqa: TID252  (no package has the tests)

HOW = {"cores": 2, "cluster": None, "fit_on": "train", "svm_rows": 20_000}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """120 rows, 72 of them train and 24 val, of three classes."""
    return make_run(tmp_path / "run", bad=(3, 14)) / "embeddings.h5"


@pytest.mark.parametrize(("fit_on", "n_fit"), [("train", 72), ("heldout", 24)])
def test_rows_stay_in_their_file_from_one_byte_less_than_they_take(
    path: Path, monkeypatch: pytest.MonkeyPatch, fit_on: str, n_fit: int
) -> None:
    monkeypatch.setattr(memory_budget, "room", lambda memory, *rows, svm_rows: Room(memory, *rows[:1], svm_rows))
    enough = needed(120, 3, n_fit, D, svm_rows=20_000)
    how = {**HOW, "fit_on": fit_on}
    assert memory_budget.memory_for(enough, path, None, **how).room is None
    assert memory_budget.memory_for(enough - 1, path, None, **how).room == Room(enough - 1, 120, 20_000)


def test_features_of_baselines_take_memory_too(fitted_run: Path) -> None:
    from pipeline import baselines

    assert baselines.main(["--run", str(fitted_run), "--baseline-px", "32", "--threads", "1", "--workers", "0"]) == 0
    asked: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            memory_budget, "needed", lambda n_rows, n_classes, n_fit, width, svm_rows: asked.append(width) or 0
        )
        for place in (None, fitted_run / "baselines.h5"):
            memory_budget.room_for(0, fitted_run / "embeddings.h5", place, fit_on="train", svm_rows=1)
    assert asked[0] == 512
    assert asked[1] > asked[0] + 2048 + 512


def test_memory_that_is_not_stated_is_what_is_free_before_anything_is_read(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    opened = memory_budget.stored.read_header
    monkeypatch.setattr(memory_budget, "free_share", lambda: told.append("free") or 10**10)
    monkeypatch.setattr(memory_budget.stored, "read_header", lambda path: told.append("read") or opened(path))
    memory = memory_budget.memory_for(None, path, None, **HOW)
    assert told == ["free", "read"]
    assert (memory.shared.each, memory.room) == (10**10, None)


def test_a_local_cluster_shares_the_memory_and_its_rows_must_fit_into_a_share(path: Path) -> None:
    enough = needed(120, 3, 72, D, svm_rows=20_000)
    assert enough < LEAST_SHARE
    memory = memory_budget.memory_for(3 * LEAST_SHARE, path, None, **{**HOW, "cluster": "local"})
    assert memory.shared == (2, LEAST_SHARE)
    assert memory.room is None
    with pytest.raises(BadInput, match="are too little for a block"):
        memory_budget.memory_for(enough + 1, path, None, **{**HOW, "cluster": "local"})
    assert memory_budget.memory_for(enough + 1, path, None, **{**HOW, "cluster": "tcp://a:1"}).room is None


def test_what_is_held_and_what_stays_in_the_file_are_the_same_rows(path: Path, tmp_path: Path) -> None:
    content, every = rows.all_rows(path, None)
    rest, stored = rows.all_rows(path, (Room(LEAST_BLOCK, LEAST_SAMPLE, 9), tmp_path))
    assert isinstance(stored, StoredRows)
    assert not isinstance(every, StoredRows)
    assert (stored.block_rows, stored.sample_rows, stored.cache) == (LEAST_BLOCK, LEAST_SAMPLE, tmp_path)
    assert (content.features.shape, rest.features.shape) == ((120, D), (120, 0))
    usable = usable_rows(content)
    assert usable.sum() == len(every.y) == 118
    np.testing.assert_array_equal(every.features, content.features[usable])
    for name in ("features", "logits", "y", "groups"):
        np.testing.assert_array_equal(getattr(in_memory(stored), name), getattr(every, name))
