"""A plan of named options becomes ordinary runs and one table; a run that fails costs no other run."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from pipeline import __main__ as whole
from pipeline import ablate, compare
from pipeline.ablate import read_plan
from pipeline.cli.options import Common
from pipeline.errors import DiskFull, Interrupted, PipelineError, UsageError
from pipeline.storage import records
from pipeline.storage.lock import locked

PLAN = """
run = "{run}"
threads = 1
workers = 0
device = "cpu"
[prepare]
data = "{data}"
group_regex = '(S[0-9])_'
protocol = "random"
[train]
arch = "resnet10"
tile_px = 32
epochs = 1
batch_size = 8
precision = "fp32"
[extract]
engine = "torch"
embed_precision = "fp32"
[fit_heads]
heads = ["svm"]
baselines = false
[robustness]
corruptions = ["rotation"]
[report]
draws = 100
map = "pca"
[runs.tutorial]
train.recipe = "tutorial"
[runs.tutorial-8-views]
train.recipe = "tutorial"
extract.views = 8
"""
RUNS = ["tutorial", "tutorial-8-views"]


def write_plan(base: Path) -> Path:
    """Write a plan on the tiles in `base/tiles`, whose runs are in `base/out`."""
    plan = base / "plan.toml"
    plan.write_text(PLAN.format(run=base / "out", data=base / "tiles"))
    return plan


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Common]:
    """The common options of the runs that a command would make, in order; nothing is made and nothing compared."""
    seen: list[Common] = []

    def seeing(common: Common, options: whole.AllOptions) -> int:
        seen.append(common)
        return 0

    monkeypatch.setattr(whole, "run", seeing)
    monkeypatch.setattr(compare, "run", lambda options: 0)
    return seen


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error:"))
    return line


@pytest.mark.slow
def test_a_plan_ends_in_one_table_of_ordinary_runs_and_a_second_command_makes_nothing(
    prepared_base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(prepared_base / "tiles", tmp_path / "tiles")
    plan, out = write_plan(tmp_path), tmp_path / "out"
    assert ablate.main([str(plan)]) == 0
    table = pd.read_csv(out / "compare.csv", keep_default_na=False).set_index(["run", "head", "metric"])
    for run in RUNS:
        own = pd.read_csv(out / run / "comparison.csv").set_index(["head", "split", "metric"])
        for head in ("softmax", "svm"):
            value = float(table.loc[(run, head, "macro_f1"), "value"])
            assert value == pytest.approx(own.loc[(head, "test", "macro_f1"), "value"])
    pairs = table.xs("macro_f1_difference", level="metric")
    assert pairs[pairs["family"] == "asked"]["against"].tolist() == [
        *("tutorial/softmax", "tutorial/svm", "tutorial/mean")
    ]
    assert float(table.loc[("tutorial-8-views", "softmax", "macro_f1_loss[rotation]"), "value"]) == 0
    costs = table.xs("gflops", level="metric")["value"].astype(float)
    assert costs.iloc[1] == pytest.approx(8 * costs.iloc[0])
    record = records.check_artifact(out / "compare.csv", schema="compare/1.1")
    assert record["details"]["verdict"] == "too_few_units"
    before = (out / "compare.csv").read_bytes()
    capfd.readouterr()
    assert ablate.main([str(plan), "--device", "auto"]) == 0
    written = capfd.readouterr().err
    assert written.count("train: current") == written.count("extract: current") == 2
    assert "compare: current" in written
    assert (out / "compare.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('run = "x"', "no runs"),
        ('run = "x"\nruns = 3', "no runs"),
        ('[runs.a]\ntrain.recipe = "strong"', 'run = "FOLDER" is needed'),
        ('run = "x"\n[runs."../a"]\n', "'../a'"),
        ('run = "x"\n[runs.a]\ntrain.recipes = "strong"', "unknown option 'recipes'; did you mean 'recipe'"),
        ('run = "x"\nrestart = true\n[runs.a]\n', "restart: "),
        ('run = "x"\nlearning = 1\n[runs.a]\n', "unknown option 'learning'"),
        ('run = "x"\n[runs.a]\n[runs.A]\n', "upper and lower case"),
    ],
)
def test_a_plan_that_cannot_be_run_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_plan(plan)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "x").exists()


def test_runs_are_made_in_the_order_of_the_plan_by_the_options_of_the_command(
    tmp_path: Path, begun: list[Common]
) -> None:
    words = ["--only", RUNS[1], RUNS[0], "--threads", "3", "--device", "cuda:1"]
    assert ablate.main([str(write_plan(tmp_path)), *words]) == 0
    assert [(one.run.name, one.threads, one.device) for one in begun] == [(name, 3, "cuda:1") for name in RUNS]


@pytest.mark.parametrize("words", [["--only"], ["--only", "weak"], ["--threads", "0"], ["--device", "abacus"]])
def test_words_that_no_plan_can_be_run_by(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], begun: list[Common], words: list[str]
) -> None:
    assert ablate.main([str(write_plan(tmp_path)), *words]) == 2
    error_line(capsys)
    assert not begun
    assert not (tmp_path / "out").exists()


@pytest.mark.fault(
    "shards at the same time on one run, one of them killed; runs of an ablation at the same time on one plan"
)
def test_a_run_that_fails_or_is_in_use_costs_no_other_but_there_is_no_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], begun: list[Common]
) -> None:
    monkeypatch.setattr(compare, "run", lambda options: pytest.fail("a table"))
    with locked(tmp_path / "out" / RUNS[0]):
        assert ablate.main([str(write_plan(tmp_path))]) == 1
    assert [one.run.name for one in begun] == [RUNS[1]]
    assert f"1 of 2 runs failed ({RUNS[0]})" in error_line(capsys)

    def diverging(common: Common, options: whole.AllOptions) -> int:
        raise PipelineError("the loss became infinite")

    monkeypatch.setattr(whole, "run", diverging)
    assert ablate.main([str(write_plan(tmp_path))]) == 1
    assert error_line(capsys).endswith("the loss became infinite")


@pytest.mark.parametrize("error", [Interrupted("SIGTERM: kept", signum=15), DiskFull("no space left")])
def test_what_every_run_would_meet_stops_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: PipelineError
) -> None:
    begun: list[str] = []

    def stopping(common: Common, options: whole.AllOptions) -> int:
        begun.append(common.run.name)
        raise error

    monkeypatch.setattr(whole, "run", stopping)
    assert ablate.main([str(write_plan(tmp_path))]) == error.exit_code
    assert begun == [RUNS[0]]


def test_only_the_command_for_all_runs_compares_them_and_with_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: list[Common]
) -> None:
    compared: list[compare.CompareOptions] = []
    monkeypatch.setattr(compare, "run", lambda options: compared.append(options) or 0)
    plan = str(write_plan(tmp_path))
    assert ablate.main([plan, "--only", *RUNS]) == 0
    assert not compared
    assert ablate.main([plan]) == 0
    (options,) = compared
    assert [run.name for run in options.runs] == RUNS
    assert (options.against, options.out) == (RUNS[0], tmp_path / "out")


def test_the_committed_plan_changes_the_recipe_only() -> None:
    plan = read_plan(Path(__file__).parents[1] / "reports" / "ablation" / "idc.toml")
    names = {"tutorial": "tutorial", "strong": "strong", "normalised": "strong"}
    assert {run.name: run.options.train.recipe for run in plan} == names
    assert {tuple(getattr(run.options.train, each) for each in ("arch", "tile_px", "epochs")) for run in plan} == {
        ("resnet18", 64, 5)
    }
