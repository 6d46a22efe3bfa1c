"""fit_heads with less memory than its rows take: the same files, the same promises, nothing left behind."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from pipeline import baselines
from pipeline.heads import memory_budget
from pipeline.heads.streamed_rows import StreamedRows
from pipeline.heads.xgb.booster import Boosting
from pipeline.names import SOURCES
from pipeline.storage import records
from pipeline.storage.embeddings.feature_rows import JoinedFeatures
from pipeline.storage.predictions.csv_table import read_predictions

from .builders import make_run
from .scripts import load_script
from .test_fit_heads import fit

stage_cost = load_script("bench/stage_cost")


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no rows fit into any memory."""
    monkeypatch.setattr(memory_budget, "needed", lambda *rows, svm_rows: 10**18)


def answers(run: Path, head: str, split: str) -> tuple[np.ndarray, pd.DataFrame]:
    """Which tiles of a split a head is right on, and its probabilities."""
    table = read_predictions(run / "predictions.csv")
    table = table[(table["head"] == head) & (table["split"] == split)]
    return (table["predicted"] == table["label"]).to_numpy(), table.filter(like="p_")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("fit_on", ["train", "heldout"])
def test_streamed_heads_are_those_in_memory(
    tmp_path: Path, request: pytest.FixtureRequest, capfd: pytest.CaptureFixture[str], fit_on: str, dtype: str
) -> None:
    """XGBoost to the digits that are written, the SVM to 1 point of probability and 5 of accuracy."""
    plain, streamed = (make_run(tmp_path / name, n=300, bad=(3,), dtype=dtype) for name in ("plain", "streamed"))
    words = ("--fit-on", fit_on, "--svm-rows", "1", "--calibration", "temperature")
    assert fit(plain, *words) == 3
    request.getfixturevalue("little_memory")
    capfd.readouterr()
    assert fit(streamed, *words, "--memory", "4GB") == 3
    assert "299 rows do not fit into memory" in capfd.readouterr().err
    assert not list(streamed.glob(".*tmp"))
    facts = [json.loads((run / "heads/heads.json").read_text()) for run in (plain, streamed)]
    tables = [read_predictions(run / "predictions.csv") for run in (plain, streamed)]
    assert tables[0][["tile_id", "head", "label"]].equals(tables[1][["tile_id", "head", "label"]])
    for head in facts[0]["heads"]:
        assert facts[0]["heads"][head]["chosen"] == facts[1]["heads"][head]["chosen"], head
        right, p = zip(*(answers(run, head, "test") for run in (plain, streamed)), strict=True)
        if head in ("svm", "mean"):
            assert abs(right[0].mean() - right[1].mean()) <= 0.05
            np.testing.assert_allclose(p[0], p[1], atol=0.01)
        else:
            pd.testing.assert_frame_equal(p[0].reset_index(drop=True), p[1].reset_index(drop=True))
    notes = {name: " ".join(entry["notes"]) for name, entry in facts[1]["heads"].items()}
    n_fit = int(
        ((tables[1]["head"] == "svm") & (tables[1]["split"] == ("train" if fit_on == "train" else "val"))).sum()
    )
    assert all(f"streamed: fitted on all {n_fit} rows" in notes[name] for name in ("svm", "xgboost"))
    assert facts[0]["source_probe"] == pytest.approx(facts[1]["source_probe"], abs=0.03)
    for split, found in facts[0]["separability"].items():
        assert found == pytest.approx(facts[1]["separability"][split], rel=1e-5)
    assert records.read_record(streamed / "predictions.csv")["options"]["memory"] == 4 * 10**9
    head = Boosting.load(streamed / "heads/xgboost.ubj")
    assert head.booster.num_boosted_rounds() == facts[1]["heads"]["xgboost"]["chosen"]["rounds"]


@pytest.mark.usefixtures("little_memory")
def test_a_repeated_command_is_current_and_repeats_to_the_byte(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """P6."""
    run = make_run(tmp_path / "run")
    assert fit(run, "--memory", "4GB") == 0
    before = (run / "predictions.csv").read_bytes()
    capfd.readouterr()
    assert fit(run, "--memory", "4000MB") == 0
    assert "current" in capfd.readouterr().err
    (run / "predictions.csv").unlink()
    assert fit(run, "--memory", "4GB") == 0
    assert "heads/svm.skops" in capfd.readouterr().err
    assert fit(run, "--memory", "4GB", "--restart") == 0
    assert (run / "predictions.csv").read_bytes() == before


def test_memory_that_is_enough_changes_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run")
    assert fit(run) == 0
    capfd.readouterr()
    assert fit(run, "--memory", "8GiB") == 0
    assert "fit_heads: current" in capfd.readouterr().err


@pytest.mark.usefixtures("little_memory")
def test_baselines_of_tiles_are_streamed_from_their_own_file(fitted_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert baselines.main(["--run", str(fitted_run), "--baseline-px", "32", "--threads", "1", "--workers", "0"]) == 0
    read: list[str] = []
    blocks = StreamedRows.blocks

    def spy(self: StreamedRows):  # type: ignore[no-untyped-def]
        parts = self.features.parts if isinstance(self.features, JoinedFeatures) else [self.features]
        read.extend(part.dataset for part in parts)
        return blocks(self)

    monkeypatch.setattr(StreamedRows, "blocks", spy)
    assert fit(fitted_run, "--memory", "4GB") == 0
    table = read_predictions(fitted_run / "predictions.csv")
    assert set(SOURCES) <= set(table["head"])
    assert {"colour_histogram", "handcrafted", "untrained", "features"} <= set(read)
    streamed = table[table["head"].isin(SOURCES)].reset_index(drop=True)
    monkeypatch.undo()
    assert fit(fitted_run, "--restart") == 0
    table = read_predictions(fitted_run / "predictions.csv")
    pd.testing.assert_frame_equal(table[table["head"].isin(SOURCES)].reset_index(drop=True), streamed, atol=1e-5)


@pytest.mark.fault("kill -9 of fit_heads while it streams rows that do not fit into memory")
def test_what_a_killed_command_left_is_removed_by_the_next(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    left, own, elsewhere = run / ".streamed.abcd_123.tmp", run / ".mine.tmp", tmp_path / "elsewhere"
    for folder in (left, own, elsewhere):
        folder.mkdir()
        (folder / "bins-0x1.gradient_index.page").write_bytes(b"x")
    (run / ".streamed.abcd_456.tmp").symlink_to(elsewhere)
    assert fit(run, "--heads", "svm", "--no-baselines") == 0
    assert not left.exists()
    assert len(list(own.iterdir())) == len(list(elsewhere.iterdir())) == 1, "P5"


PROGRAM = """
import os, resource, signal, sys
from pipeline import fit_heads
from pipeline.heads import memory_budget
from pipeline.heads.streamed_rows import StreamedRows
blocks, when, limit = StreamedRows.blocks, int(sys.argv.pop(1)), int(sys.argv.pop(1))
def dying(self):
    global when
    for found in blocks(self):
        when -= 1
        if when < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        yield found
memory_budget.needed, StreamedRows.blocks = lambda *rows, svm_rows: 10**18, dying
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
raise SystemExit(fit_heads.main(sys.argv[1:]))
"""
"""fit_heads with little memory, but kill -9 in the midst of a pass (after so many blocks), or no room for a file."""


def run_program(run: Path, *words: str, blocks: int = 10**9, limit: int = 0) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    given = ["--run", str(run), "--threads", "1", "--rounds", "6", "--memory", "4GB", *words]
    command = [sys.executable, "-c", PROGRAM, str(blocks), str(limit), *given]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.fault("kill -9 of fit_heads while it streams rows that do not fit into memory")
@pytest.mark.timeout(900)
@pytest.mark.slow
@pytest.mark.usefixtures("little_memory")
def test_p2_kills_in_the_midst_of_a_pass_end_in_the_same_heads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 0
    blocks = StreamedRows.blocks

    def counted(self: StreamedRows):  # type: ignore[no-untyped-def]
        nonlocal count
        for found in blocks(self):
            count += 1
            yield found

    undisturbed = make_run(tmp_path / "undisturbed")
    with monkeypatch.context() as patch:
        patch.setattr(StreamedRows, "blocks", counted)
        assert fit(undisturbed, "--memory", "4GB") == 0
    for after in np.linspace(0, count - 1, 7).astype(int).tolist():
        run = make_run(tmp_path / str(after))
        assert run_program(run, blocks=after).returncode == -9
        assert not (run / "predictions.csv").exists()
        assert fit(run, "--memory", "4GB") == 0
        for name in ("predictions.csv", "heads/svm.skops", "heads/xgboost.ubj"):
            assert (run / name).read_bytes() == (undisturbed / name).read_bytes(), (after, name)
        assert not list(run.glob(".*tmp"))


@pytest.mark.fault("no room for the bins and kernel values of rows that do not fit into memory")
@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="limits are tried by allocating")
@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize(("head", "limit"), [("svm", 10_000), ("xgboost", 5_000)])
def test_p1_no_room_for_what_is_kept_on_disk_is_one_line(tmp_path: Path, head: str, limit: int) -> None:
    run = make_run(tmp_path / "run")
    ended = run_program(run, "--heads", head, "--no-baselines", limit=limit)
    errors = [line for line in ended.stderr.splitlines() if not line.startswith("fit_heads:")]
    assert ended.returncode == 1
    assert len(errors) == 1, ended.stderr
    assert "no space left" in errors[0]
    assert not list(run.glob(".*tmp"))
    assert fit(run, "--memory", "4GB", "--heads", head, "--no-baselines") == 0


@pytest.fixture
def scale() -> ModuleType:
    """The script that measures fit_heads by number of rows."""
    return load_script("scale/heads")


@pytest.mark.fault("rows that take more memory than was stated")
@pytest.mark.timeout(900)
@pytest.mark.slow
@pytest.mark.skipif(not stage_cost.shows_memory(), reason="only Linux shows it")
def test_memory_stays_under_what_was_stated_where_fitting_in_memory_takes_more(
    tmp_path: Path, scale: ModuleType
) -> None:
    scale.make_run(tmp_path, 8000, seed=0)
    words = ["--run", str(tmp_path), "--device", "cpu", "--threads", "1", "--rounds", "3", "--restart", "--memory"]
    stated, plenty = (
        stage_cost.run_stage("fit_heads", [*words, memory], log=tmp_path / "log") for memory in ("1150MB", "16GB")
    )
    assert stated.megabytes < 1150 < plenty.megabytes


@pytest.mark.slow
def test_the_measuring_script_goes_on_where_it_stopped(
    tmp_path: Path, scale: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "heads.csv"
    words = [
        "heads.py",
        "--rounds",
        "3",
        "--threads",
        "1",
        "--work",
        str(tmp_path / "work"),
        "--out",
        str(out),
        "--rows",
    ]
    monkeypatch.setattr(sys, "argv", [*words, "200"])
    scale.main()
    monkeypatch.setattr(sys, "argv", [*words, "200", "300"])
    scale.main()
    assert "200 rows: measured before" in capsys.readouterr().out
    table = pd.read_csv(out)
    assert table["rows"].tolist() == [200, 300]
    assert (table["svm_accuracy"] > 0.5).all()
    assert table["streamed"].tolist() == ["no", "no"]
    assert out.with_suffix(".md").read_text().count("\n| ") == 3


@pytest.mark.parametrize("text", ["much", "4", "-4GB", "4gb", "4 PB", "GB", "4GB of it"])
def test_memory_that_is_no_amount_is_a_usage_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], text: str
) -> None:
    assert fit(make_run(tmp_path / "run"), f"--memory={text}") == 2
    assert f"--memory {text}: a number with" in capfd.readouterr().err


@pytest.mark.fault("rows that take more memory than was stated")
def test_memory_too_small_for_a_block_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert fit(make_run(tmp_path / "run"), "--memory", "10MB") == 1
    told = capfd.readouterr().err
    assert told.count("\n") == 1
    assert "--memory: 10MB for a process are too little for a block of the 120 rows" in told
    assert not (tmp_path / "run/heads").exists()
