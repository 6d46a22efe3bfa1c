"""bench as a command: what it refuses, what it writes, what an interruption leaves."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline import bench
from pipeline.benchmark import hardware_limits, scaling_run
from pipeline.benchmark.measurement import OURS, Measurement
from pipeline.benchmark.scaling import Cost
from pipeline.errors import BadInput
from pipeline.storage import freshness, records


def put(out: Path, *words: str) -> int:
    return bench.main(["--out", str(out), "--device", "cpu", "--threads", "1", *words])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--only", "embed,heds"], "--only heds: known are ceilings, embed, train, heads, hdf5"),
        (["--rounds", "0"], "--rounds 0: at least 1"),
        (["--threads", "0"], "--threads 0: too small"),
        (["--tile-px", "8"], "--tile-px 8: 16 to 1024 px"),
        (["--device", "gpu"], "--device gpu: auto, cpu, cuda, cuda:1 or mps is needed"),
        (["--batches", "8,x"], "--batches x: numbers from 1 to 8192 are needed"),
        (["--growth", "1000,5e3"], "--growth 5e3: numbers of tiles from 200 up are needed"),
        (["--growth", "1000", "--only", "embed"], "--growth measures other things"),
        (["--engines", "tensorrt"], "--engines tensorrt: known are"),
        (["--engines", "torch-int8"], "--engines torch-int8: known are"),
    ],
)
def test_bad_options_are_one_line(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert put(tmp_path / "out", *words) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"error: {said}")
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert put(tmp_path, "--only", "train", "--model", str(tmp_path / "model.safetensors")) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_small_bench_writes_table_page_and_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.benchmark.write.described", lambda device, threads: ["CPU: Some Chip"])
    monkeypatch.setattr("pipeline.benchmark.hardware.machine_slug", lambda device, threads: "some-chip-1-core")
    words = "--quick --rounds 1 --arch resnet10 --tile-px 32 --only hdf5,train,ceilings,embed --engines torch-fp32"
    assert put(tmp_path, *words.split()) == 0
    name = "some-chip-1-core-ceilings-embed-train-hdf5-quick"
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.{end}" for end in ("csv", "csv.json", "md", "png")}
    with (tmp_path / f"{name}.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(dict.fromkeys(row["part"] for row in rows)) == ["ceilings", "embed", "agreement", "train", "hdf5"]
    assert all(float(row["median"]) > 0 for row in rows if row["part"] != "agreement")
    assert next(row for row in rows if row["part"] == "hdf5")["share"]
    page = (tmp_path / f"{name}.md").read_text()
    shown = capsys.readouterr()
    assert page in shown.out
    assert shown.err.count("\n") == 1  # nobody watches: no progress
    assert "- Not measured: the SVM search" in page
    assert "A quick look" in page
    assert "CPU: Some Chip" in page
    assert "python -m pipeline.bench --only" in page
    assert str(tmp_path) not in page
    record = records.check_artifact(tmp_path / f"{name}.csv", schema="bench/1.0")
    assert freshness.damaged_outputs(tmp_path / f"{name}.csv", record) == []
    assert [target["is_met"] for target in record["details"]["targets"]].count(None) == 2
    assert record["options"]["only"] == "hdf5,train,ceilings,embed"
    assert "out" not in record["options"]


def test_an_interruption_keeps_what_was_measured_under_another_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(setting: Any) -> Iterator[Measurement]:
        yield Measurement("ceilings", "memory copy", "GB/s", (10.0,))
        raise KeyboardInterrupt

    monkeypatch.setattr(hardware_limits, "measure_ceilings", interrupted)
    assert put(tmp_path, "--only", "ceilings") == 130
    (page,) = tmp_path.glob("*-ceilings-partial.md")
    assert "Stopped early (KeyboardInterrupt)" in page.read_text()
    assert "memory copy" in page.read_text()
    assert not list(tmp_path.glob("*.png"))
    assert f"error: SIGINT: what was measured is in {page}" in capsys.readouterr().err


def test_a_part_that_fails_does_not_cost_the_parts_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(setting: Any) -> Iterator[Measurement]:
        yield Measurement("ceilings", "memory copy", "GB/s", (10.0,))
        raise BadInput("the reason")

    monkeypatch.setattr(hardware_limits, "measure_ceilings", failing)
    assert put(tmp_path, "--only", "ceilings") == 1
    (page,) = tmp_path.glob("*-ceilings-partial.md")
    assert "Stopped early (BadInput)" in page.read_text()
    assert "error: the reason" in capsys.readouterr().err


def test_an_interruption_before_anything_was_measured_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(setting: Any) -> Iterator[Measurement]:
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(hardware_limits, "measure_ceilings", interrupted)
    assert put(tmp_path, "--only", "ceilings") == 130
    assert "nothing was measured yet" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_is_measured_in_several_groups_becomes_one_row() -> None:
    table: list[Measurement] = []
    bench.add(table, Measurement("embed", "limit", "tiles/s", (1.0, 2.0), "fp32"))
    bench.add(table, Measurement("embed", "limit", "tiles/s", (9.0,), "bf16"))
    bench.add(table, Measurement("embed", "limit", "tiles/s", (3.0,), "fp32"))
    bench.add(table, Measurement("embed", OURS, "tiles/s", (3.0,), "fp32", 8))
    assert [row.values for row in table] == [(1.0, 2.0, 3.0), (9.0,), (3.0,)]


def test_growth_writes_its_own_files_and_removes_its_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[int]] = []

    def measure(sizes: list[int], setting: Any, work: Path, *, tell: Any) -> Any:
        asked.append(sizes)
        work.mkdir(parents=True)
        return {stage: {n: Cost(n / 100, 500.0) for n in sizes} for stage in scaling_run.STAGES}

    monkeypatch.setattr(scaling_run, "measure_growth", measure)
    monkeypatch.setattr("pipeline.benchmark.memory.is_told", lambda: True)
    assert put(tmp_path, "--growth", "5000, 1000") == 0
    assert asked == [[1000, 5000]]
    (table,) = tmp_path.glob("*-growth.csv")
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".csv", ".json", ".md", ".png"]
    record = records.check_artifact(table, schema="growth/1.0")
    assert record["details"]["slopes"]["extract"] == pytest.approx(1.0)
    assert "- extract: linear in time or better" in capsys.readouterr().out
    assert json.dumps(record["options"]["growth"]) == '"5000, 1000"'


def test_growth_needs_a_system_that_tells(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.benchmark.memory.is_told", lambda: False)
    assert put(tmp_path, "--growth", "1000") == 2
    assert "does not show the memory of processes" in capsys.readouterr().err
