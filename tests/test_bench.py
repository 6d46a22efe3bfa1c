"""bench as a command: what it refuses, what it writes."""

import csv
from pathlib import Path

import pytest

from pipeline import bench
from pipeline.storage import freshness, records


def put(out: Path, *words: str) -> int:
    return bench.main(["--out", str(out), "--device", "cpu", "--threads", "1", *words])


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (["--only", "embed,heds"], "--only heds"),
        (["--rounds", "0"], "--rounds 0"),
        (["--threads", "0"], "--threads 0"),
        (["--tile-px", "8"], "--tile-px 8"),
        (["--device", "gpu"], "--device gpu"),
    ],
)
def test_bad_options_are_one_line(
    words: list[str], flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert put(tmp_path / "out", *words) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"error: {flag}: ")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_small_bench_writes_table_page_and_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.benchmark.report_page.describe", lambda device, threads: ["CPU: Some Chip"])
    monkeypatch.setattr("pipeline.benchmark.hardware.machine_slug", lambda device, threads: "some-chip-1-core")
    words = "--quick --rounds 1 --arch resnet10 --tile-px 32 --only train,limits,embed"
    assert put(tmp_path, *words.split()) == 0
    name = "some-chip-1-core-limits-embed-train-quick"
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.{end}" for end in ("csv", "csv.json", "md")}
    with (tmp_path / f"{name}.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(dict.fromkeys(row["part"] for row in rows)) == ["limits", "embed", "train"]
    assert all(float(row["median"]) > 0 for row in rows)
    page = (tmp_path / f"{name}.md").read_text()
    assert page in capsys.readouterr().out
    assert "CPU: Some Chip" in page
    assert "python -m pipeline.bench --only train,limits,embed" in page
    assert str(tmp_path) not in page
    record = records.check_artifact(tmp_path / f"{name}.csv", schema="bench/1.0")
    assert freshness.damaged_outputs(tmp_path / f"{name}.csv", record) == []
    assert record["options"]["only"] == "train,limits,embed"
    assert "out" not in record["options"]
