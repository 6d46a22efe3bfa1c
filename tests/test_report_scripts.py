"""The scripts of reports/bench and reports/scale: their arithmetic, and that they run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from pipeline.storage import records
from pipeline.storage.predictions.csv_table import SCHEMA, read_predictions

from .scripts import REPORTS, load_script

stage_cost, growth, targets = (load_script(f"bench/{name}") for name in ("stage_cost", "growth", "targets"))
synthetic_predictions = load_script("scale/synthetic_predictions")
encoders = load_script("encoders/measure")

needs_proc = pytest.mark.skipif(not stage_cost.shows_memory(), reason="only Linux shows the memory of processes")

HOLD = "import time; held = bytearray({n}); held[::4096] = b'x' * len(held[::4096]); time.sleep(2)"
"""Eight readings long."""


def run_script(name: str, *words: str) -> str:
    """Run a script to its good end; return what it printed."""
    command = [sys.executable, str(REPORTS / f"{name}.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPORTS.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout


def peak_of(code: str) -> int:
    """Run code to its end; return its peak memory."""
    with subprocess.Popen([sys.executable, "-c", code]) as process, stage_cost.Watch(process.pid) as watch:
        assert process.wait() == 0
    return int(watch.peak_bytes)


@needs_proc
def test_the_memory_of_a_process_and_of_its_children_counts() -> None:
    small, large = peak_of(HOLD.format(n=20_000_000)), peak_of(HOLD.format(n=120_000_000))
    assert 80e6 < large - small < 130e6
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HOLD.format(n=120_000_000)!r}])"
    assert peak_of(code) > 120e6
    assert stage_cost.children(os.getpid())[0] == os.getpid()


def test_slopes_and_memory_between_the_largest_sizes() -> None:
    costs = {n: stage_cost.Cost(3e-3 * n**1.5, 400 + 1.5e-3 * n) for n in (1000, 4000, 16_000)}
    assert growth.slope({n: cost.seconds for n, cost in costs.items()}) == pytest.approx(1.5)
    assert growth.last_slope(costs, "seconds") == pytest.approx(1.5)
    assert growth.kb_per_tile(costs) == pytest.approx(1.5)
    assert growth.last_slope({1000: costs[1000]}, "seconds") is None
    assert "MORE THAN LINEAR" in growth.verdict("extract", costs)
    assert "flat in memory" in growth.verdict("extract", costs)


def test_the_words_of_the_growth_script_are_those_of_the_commands() -> None:
    from pipeline import extract, fit_heads, prepare, report
    from pipeline.cli.parse import parse

    mains = {"prepare": prepare.main, "extract": extract.main, "fit_heads": fit_heads.main, "report": report.main}
    steps = growth.commands(300, Path("x"), Path("model.safetensors"), growth.Setting("resnet10", "cpu", 1, 0))
    assert steps.keys() == mains.keys()
    for stage, words in steps.items():
        common, _ = parse(mains[stage].syntax, words)
        assert common.run == Path("x/run")


def test_the_committed_tables_are_judged_as_their_pages_judge_them() -> None:
    for name in ("amd-epyc-2-cores", "intel-xeon-amx-2-cores"):
        table = targets.read_table(REPORTS / "bench" / f"{name}.csv")
        page = (REPORTS / "bench" / f"{name}.md").read_text().splitlines()
        expected = [line[2:].partition(":")[0] for line in page if line.startswith(("- Met: ", "- Missed: "))]
        verdicts = [target(table) for target in targets.ON_CPU]
        assert [verdict.line.partition(":")[0] for verdict in verdicts] == expected
        assert len(expected) == 7


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    for judges in (targets.ON_CPU, targets.ON_GPU):
        assert {judge([]).is_met for judge in judges} == {None}


def test_every_head_predicts_the_same_tiles_better_than_by_chance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic_predictions, "BLOCK", 300)
    path = synthetic_predictions.write_synthetic(tmp_path / "run", 800, n_classes=4)
    records.check_artifact(path, schema=SCHEMA)
    table = read_predictions(path)  # refuses heads on other tiles
    assert table["head"].value_counts(sort=False).to_dict() == dict.fromkeys(synthetic_predictions.HEADS, 800)
    assert set(table.groupby("group")["split"].nunique()) == {1}
    right = (table["predicted"] == table["label"]).groupby(table["head"]).mean()
    assert right.between(0.5, 0.95).all()


@pytest.mark.slow
@needs_proc
def test_the_memory_of_a_report_grows_by_less_than_300_bytes_a_row(tmp_path: Path) -> None:
    """140 were measured (reports/scale/report.md): names, hashes and codes of the tiles, and one pass's own."""
    pytest.importorskip("pyarrow", reason="needs the extra `large`")
    peak = {}
    for n in (350_000, 1_000_000):
        run = tmp_path / str(n)
        assert synthetic_predictions.write_synthetic(run, n).suffix == ".parquet"
        peak[n] = stage_cost.run_stage("report", ["--run", str(run)], log=tmp_path / f"{n}.log").megabytes
    assert 1e6 * (peak[1_000_000] - peak[350_000]) / 650_000 < 300


@pytest.mark.slow
@needs_proc
def test_the_studies_run(tmp_path: Path) -> None:
    """Each on small sizes; the verdicts are judged from what they write."""
    words = ["--device", "cpu", "--threads", "1", "--arch", "resnet10", "--out", str(tmp_path)]
    run_script("bench/growth", "--sizes", "200", *words)
    quick = ["--quick", "--rounds", "1", "--tile-px", "32", "--engines", "torch-fp32", "--batches", "8", "4"]
    run_script("bench/engines", *quick, *words)
    run_script("bench/hdf5_write", "--rows", "64", "--rounds", "1", "--out", str(tmp_path))
    tables = [str(path) for path in tmp_path.glob("*.csv") if not path.stem.endswith("growth")]
    assert len(tables) == 2
    printed = run_script("bench/targets", *tables, "--figure", str(tmp_path / "figure.png"))
    measured = [line for line in printed.splitlines() if not line.startswith("Not measured")]
    assert len(measured) == 4
    suffixes = sorted(path.suffix for path in tmp_path.iterdir())
    assert suffixes == [".csv", ".csv", ".csv", ".md", ".md", ".png", ".png"]


def test_tiles_of_the_comparison_of_encoders_are_the_same_in_each_draw(tmp_path: Path) -> None:
    for i in range(12):
        path = tmp_path / "tiles" / f"class{i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    table, again = (
        pd.read_csv(encoders.draw(tmp_path / "tiles", tmp_path / name, 5), dtype=str) for name in ("a.csv", "b.csv")
    )
    assert len(table) == 5
    assert all(Path(path).parent.name == label for path, label in table[["path", "label"]].to_numpy())
    assert list(again["path"]) == list(table["path"])
    encoders.describe(tmp_path / "w.safetensors", "resnet50", 64)
    assert json.loads((tmp_path / "config.json").read_text())["pretrained_cfg"]["input_size"] == [3, 64, 64]
