"""What is timed is a whole embeddings file; its share is that of the fastest engine's extraction."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.benchmark.config import BenchConfig
from pipeline.benchmark.hdf5_write import measure_storing, store
from pipeline.benchmark.measurement import Measurement
from pipeline.storage.embeddings.reader import read_embeddings

SETTING = BenchConfig(torch.device("cpu"), threads=1, rounds=2, seed=0, is_quick=True)


def test_the_file_that_is_written_is_whole(tmp_path: Path) -> None:
    features = np.random.default_rng(0).random((37, 6), dtype=np.float32)
    store(tmp_path, features, features[:, :3])
    assert np.array_equal(read_embeddings(tmp_path / "embeddings.h5").features, features)
    assert [path.name for path in tmp_path.iterdir()] == ["embeddings.h5"]


def test_share_of_an_extraction(tmp_path: Path) -> None:
    table = [Measurement("embed", "torch", "tiles/s", (100.0,), "bf16", 8)]
    (row,) = measure_storing(SETTING, table, tmp_path)
    assert len(row.values) == 2
    assert row.share == pytest.approx((1 / row.median) / (1 / row.median + 1 / 100.0))
    (alone,) = measure_storing(SETTING, [], tmp_path)
    assert alone.share is None
    assert list(tmp_path.iterdir()) == []
