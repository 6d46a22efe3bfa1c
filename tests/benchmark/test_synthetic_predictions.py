"""Predictions that no head made, and what a report of very many takes."""

import importlib.util
from pathlib import Path

import pytest

from pipeline.benchmark import synthetic_data as synthetic_predictions
from pipeline.benchmark.memory import is_told
from pipeline.benchmark.scaling_run import run_stage
from pipeline.benchmark.synthetic_data import HEADS, write_synthetic
from pipeline.storage import records
from pipeline.storage.predictions.csv_table import SCHEMA, read_predictions


def test_every_head_answers_for_the_same_tiles_better_than_by_chance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic_predictions, "BLOCK", 300)
    path = write_synthetic(tmp_path / "run", 800, n_classes=4)
    records.check_artifact(path, schema=SCHEMA)
    table = read_predictions(path)  # refuses heads on other tiles
    assert table["head"].value_counts(sort=False).to_dict() == dict.fromkeys(HEADS, 800)
    assert set(table.groupby("group")["split"].nunique()) == {1}
    right = (table["predicted"] == table["label"]).groupby(table["head"]).mean()
    assert right.between(0.5, 0.95).all()


@pytest.mark.slow
@pytest.mark.skipif(not is_told(), reason="this system does not show the memory of processes")
@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="needs the extra `large`")
def test_the_memory_of_a_report_grows_by_less_than_300_bytes_a_row(tmp_path: Path) -> None:
    """140 were measured (reports/scale/report.md): names, hashes and codes of the tiles, and one pass's own."""
    peak = {}
    for n in (350_000, 1_000_000):
        run = tmp_path / str(n)
        assert write_synthetic(run, n).suffix == ".parquet"
        peak[n] = run_stage("report", ["--run", str(run)], log=tmp_path / f"{n}.log").megabytes
    assert 1e6 * (peak[1_000_000] - peak[350_000]) / 650_000 < 300
