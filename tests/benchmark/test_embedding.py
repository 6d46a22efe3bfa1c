"""Engines are measured beside the plain loop, compared with fp32, and those that are missing are named."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.benchmark import embedding, inputs
from pipeline.benchmark.config import BenchConfig
from pipeline.benchmark.inputs import BenchInputs, Tiles, demo_material
from pipeline.benchmark.measurement import PLAIN
from pipeline.errors import PipelineError
from pipeline.network.engines import build_engine

CPU = torch.device("cpu")
SETTING = BenchConfig(CPU, threads=1, rounds=2, seed=0, is_quick=True, batches=(8, 4))


@pytest.fixture(scope="module")
def tiny() -> BenchInputs:
    """A resnet10 after five steps, 32 px."""
    return demo_material(SETTING, arch="resnet10", tile_px=32)


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Only torch in fp32, an engine that is not installed, and one that takes long to get ready; the builds."""
    builds: list[tuple[str, int]] = []

    def build(name: str, model: Any, *, device: Any, precision: str, batch: int, calibration: Any) -> Any:
        builds.append((name, batch))
        if name == "absent":
            raise PipelineError("absent is not installed: pip install absent")
        return build_engine("torch", model, device=device, precision=precision, batch=batch)

    monkeypatch.setattr(embedding, "ENGINES", {"torch": ("fp32",), "absent": ("fp32",), "slow": ("fp32",)})
    monkeypatch.setattr(embedding, "build_engine", build)
    return builds


def test_rates_agreement_and_what_is_missing(
    tiny: BenchInputs, engines: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    remarks: list[str] = []
    rows = list(embedding.measure_embedding(SETTING, tiny, remarks))
    rates = {(row.what, row.batch): row for row in rows if row.part == "embed" and row.what in ("torch", "slow")}
    assert set(rates) == {("torch", 8), ("torch", 4), ("slow", 8), ("slow", 4)}
    assert all(len(row.values) == 2 and row.ratio is not None and row.share is not None for row in rates.values())
    assert {row.precision for row in rows if row.what == "limit"} == {"fp32", "bf16"}
    assert all(row.batch == 64 and row.ratio is None for row in rows if row.what == PLAIN)
    agreed = {row.unit: row.median for row in rows if row.part == "agreement" and row.what == "torch"}
    assert agreed["cosine"] > 0.9999
    assert agreed["share of tiles"] == 1
    assert agreed["points"] == 0
    assert remarks == ["Not measured: absent fp32 (absent is not installed: pip install absent)."]
    assert ("absent", 4) not in engines

    monkeypatch.setattr(embedding, "PATIENCE_S", 0.0)
    remarks.clear()
    rows = list(embedding.measure_embedding(SETTING, tiny, remarks))
    assert {row.batch for row in rows if row.what == "torch"} == {8}
    assert remarks[-1] == "Measured at one batch size, because getting ready takes long: torch fp32, slow fp32."


def test_named_engines_only(tiny: BenchInputs, engines: list[tuple[str, int]]) -> None:
    for words, names in ((("torch",), {"torch"}), (("slow-fp32",), {"slow"}), (("torch-bf16",), set())):
        setting = BenchConfig(CPU, 1, 1, 0, is_quick=True, engines=words, batches=(8,))
        rows = list(embedding.measure_embedding(setting, tiny, []))
        assert {row.what for row in rows if row.part == "embed"} == {PLAIN, "limit", *names}


def test_a_wrong_engine_is_found_out(tiny: BenchInputs, engines: list[tuple[str, int]]) -> None:
    """An engine that mixes up its rows agrees with nothing."""

    class Wrong:
        batch = 8

        def run(self, batches: Any) -> Iterator[Any]:
            plain = embedding.PlainLoop(tiny.model, CPU)
            yield from ((f[::-1], z[::-1]) for f, z in plain.run(batches))

    rows = list(embedding.compare(SETTING, tiny, {embedding.Key("wrong", "fp32"): Wrong()}, 8))  # type: ignore[dict-item]
    found = {row.unit: row.median for row in rows}
    assert found["cosine"] < 0.9
    assert found["share of tiles"] < 0.9


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
    assert embedding.rate(Counting(), batches, 3) == (4 + 6 + 4) / 4.0  # type: ignore[arg-type]
    assert seen == [4, 6, 4]


def test_batches_are_whole_and_filled_up_from_the_start() -> None:
    pixels = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 3, 2, 2)
    batches = Tiles(pixels, np.zeros(5, np.int64)).batches(3)
    assert [batch[:, 0, 0, 0].tolist() for batch in batches] == [[0, 1, 2], [3, 4, 0]]
    assert Tiles(pixels, np.zeros(5, np.int64)).batches(7)[0][:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 0, 1]


def test_demo_tiles_hold_every_class_and_do_not_repeat() -> None:
    tiles = inputs.demo_tiles(20, tile_px=32, seed=0)
    assert tiles.pixels.shape == (20, 3, 32, 32)
    assert np.bincount(tiles.y).tolist() == [3, 3, 3, 3, 2, 2, 2, 2]
    assert len({pixels.numpy().tobytes() for pixels in tiles.pixels}) == 20
