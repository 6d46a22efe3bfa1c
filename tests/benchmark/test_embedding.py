"""Engines are measured next to the plain loop; engines that are missing are skipped."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.benchmark import embedding
from pipeline.benchmark.config import BenchConfig
from pipeline.benchmark.embedding import PLAIN_BATCH, measure_embedding, rate, split_into_batches
from pipeline.benchmark.measurement import PLAIN
from pipeline.errors import PipelineError
from pipeline.network.engines import build_engine
from pipeline.network.model_file import Model
from pipeline.network.preprocess import Preprocess
from pipeline.network.resnet import build_network

CONFIG = BenchConfig(torch.device("cpu"), threads=1, rounds=2, seed=0, is_quick=True)


@pytest.fixture
def model() -> Model:
    info = {"arch": "resnet10", "classes": ["a", "b"], "preprocess": {**Preprocess(size=32).__dict__}}
    return Model(build_network("resnet10", n_classes=2, seed=0).eval(), info, {})


def test_rates_and_a_missing_engine(
    model: Model, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def build(name: str, model: Any, **options: Any) -> Any:
        if name == "absent":
            raise PipelineError("absent is not installed: pip install absent")
        return build_engine("torch", model, **options)

    monkeypatch.setattr(embedding, "ENGINES", ("torch", "absent"))
    monkeypatch.setattr(embedding, "build_engine", build)
    rows = list(measure_embedding(CONFIG, model, torch.zeros(24, 3, 32, 32, dtype=torch.uint8)))
    engines = [row for row in rows if row.what == "torch"]
    assert {row.precision for row in engines} == set(CONFIG.precisions)
    for row in engines:
        assert len(row.values) == 2
        assert row.ratio is not None
        assert row.share is not None
    assert {row.what for row in rows} == {PLAIN, "limit", "torch"}
    (plain,) = [row for row in rows if row.what == PLAIN]
    assert (plain.batch, plain.ratio) == (PLAIN_BATCH, None)
    assert "absent fp32" in capsys.readouterr().err


def test_the_rate_counts_every_tile_and_takes_the_batches_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 14.0])
    monkeypatch.setattr("pipeline.benchmark.embedding.time.perf_counter", lambda: next(clock))
    seen: list[int] = []

    class Counting:
        def run(self, batches: Any) -> Iterator[Any]:
            for pixels in batches:
                seen.append(len(pixels))
                yield np.zeros((len(pixels), 1)), np.zeros((len(pixels), 1))

    batches = [torch.zeros(4, 1), torch.zeros(6, 1)]
    assert rate(Counting(), batches, 3) == (4 + 6 + 4) / 4.0
    assert seen == [4, 6, 4]


def test_batches_are_whole_and_filled_up_from_the_start() -> None:
    pixels = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 3, 2, 2)
    batches = split_into_batches(pixels, 3)
    assert [batch[:, 0, 0, 0].tolist() for batch in batches] == [[0, 1, 2], [3, 4, 0]]
    assert split_into_batches(pixels, 7)[0][:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 0, 1]
