"""Which rows are read, and how."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import BadInput
from pipeline.heads.config import FitConfig
from pipeline.heads.memory_budget import LEAST_BLOCK, LEAST_SAMPLE, Room
from pipeline.heads.rows import EMBEDDINGS, load_head_data
from pipeline.heads.streamed_rows import StreamedRows, in_memory
from pipeline.storage.predictions.csv_table import usable_rows

from ..builders import D, make_run  # noqa: TID252  (no package has the tests)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """120 rows, 72 of them train and 24 val, of three classes."""
    return make_run(tmp_path / "run", bad=(3, 14)) / "embeddings.h5"


def test_rows_in_memory_and_streamed_rows_are_the_same(path: Path, tmp_path: Path) -> None:
    plain = load_head_data(path, None, FitConfig())
    room = Room(LEAST_BLOCK, LEAST_SAMPLE, 9)
    streamed = load_head_data(path, None, FitConfig(), room=room, cache=tmp_path)
    every, stored = plain.every[EMBEDDINGS], streamed.every[EMBEDDINGS]
    assert isinstance(stored, StreamedRows)
    assert not isinstance(every, StreamedRows)
    assert (stored.block_rows, stored.sample_rows, stored.cache) == (LEAST_BLOCK, LEAST_SAMPLE, tmp_path)
    assert (plain.embeddings.features.shape, streamed.embeddings.features.shape) == ((120, D), (120, 0))
    usable = usable_rows(plain.embeddings)
    assert usable.sum() == len(every.y) == 118
    np.testing.assert_array_equal(every.features, plain.embeddings.features[usable])
    for name in ("features", "logits", "y", "groups"):
        np.testing.assert_array_equal(getattr(in_memory(stored), name), getattr(every, name))
        for split, rows in plain.splits[EMBEDDINGS].items():
            own = in_memory(streamed.splits[EMBEDDINGS][split])
            np.testing.assert_array_equal(getattr(own, name), getattr(rows, name))
    assert [len(rows.y) for rows in plain.splits[EMBEDDINGS].values()] == [71, 24, 23]


@pytest.mark.parametrize("is_streamed", [False, True])
def test_features_relative_to_groups(path: Path, tmp_path: Path, is_streamed: bool) -> None:
    """All usable tiles of a group count, those of other splits too; labels do not."""
    room = {"room": Room(LEAST_BLOCK, LEAST_SAMPLE, 9), "cache": tmp_path} if is_streamed else {}
    data = load_head_data(path, None, FitConfig(relative="group"), **room)  # type: ignore[arg-type]
    content = load_head_data(path, None, FitConfig()).embeddings
    usable = usable_rows(content)
    x, groups = content.features[usable], np.array(content.group)[usable]
    mean = x[content.split[usable] == 0].mean(axis=0)
    np.testing.assert_allclose(data.means[EMBEDDINGS], mean, rtol=1e-5)
    own = groups == "g3"
    found = in_memory(data.every[EMBEDDINGS].take(own)).features
    np.testing.assert_allclose(found[:, :D], x[own])
    centre = (x[own].sum(axis=0) + 5 * mean) / (own.sum() + 5)
    np.testing.assert_allclose(found[:, D:], x[own] - centre, atol=1e-5)
    assert in_memory(data.plain["train"]).features.shape[1] == D


@pytest.mark.parametrize(("fit_on", "split"), [("train", "train"), ("heldout", "val")])
def test_one_class_to_fit_on_is_refused(tmp_path: Path, fit_on: str, split: str) -> None:
    path = make_run(tmp_path / "run", classes=1) / "embeddings.h5"
    with pytest.raises(BadInput, match=f"the {split} rows hold one class only"):
        load_head_data(path, None, FitConfig(fit_on))  # type: ignore[arg-type]
