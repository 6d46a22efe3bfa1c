"""Growth runs the real commands, continues where it stopped, and gives the heads embeddings that they accept."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from pipeline import extract
from pipeline.benchmark import scaling_run
from pipeline.benchmark.scaling import Cost
from pipeline.benchmark.scaling_run import STAGES, BenchConfig, measure_growth, replace_embeddings, run_stage
from pipeline.errors import BadArtifact, PipelineError
from pipeline.storage import freshness, records
from pipeline.storage.embeddings.reader import SCHEMA, read_embeddings

SETTING = BenchConfig("resnet10", "cpu", 1, 0)


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Commands that only say that they ran: (stage, tiles)."""
    ran: list[tuple[str, int]] = []

    def run(stage: str, words: Sequence[str], *, log: Path) -> Cost:
        ran.append((stage, int(log.parent.name)))
        return Cost(float(len(ran)), 100.0)

    def train(size: int, run: Path, setting: BenchConfig, *, tell: object) -> None:
        ran.append(("train", size))
        run.mkdir()
        (run / "model.safetensors").touch()

    monkeypatch.setattr(scaling_run, "run_stage", run)
    monkeypatch.setattr(scaling_run, "train_small", train)
    monkeypatch.setattr(scaling_run, "make_tiles", lambda size, data_dir, *, seed: data_dir.mkdir(parents=True))
    monkeypatch.setattr(
        scaling_run, "replace_embeddings", lambda run, *, seed: ran.append(("replace", int(run.parent.name)))
    )
    return ran


def test_every_stage_runs_at_every_size_and_leaves_no_tiles(stages: list[tuple[str, int]], tmp_path: Path) -> None:
    costs = measure_growth([300, 600], SETTING, tmp_path)
    order = ["prepare", "extract", "replace", "fit_heads", "report"]
    assert stages == [("train", 300), *((stage, 300) for stage in order), *((stage, 600) for stage in order)]
    assert {stage: sorted(sizes) for stage, sizes in costs.items()} == {stage: [300, 600] for stage in STAGES}
    assert not (tmp_path / "300").exists()


def test_it_continues_with_the_stage_that_was_interrupted(
    stages: list[tuple[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = scaling_run.run_stage

    def interrupted(stage: str, words: Sequence[str], *, log: Path) -> Cost:
        if (stage, log.parent.name) == ("fit_heads", "600"):
            raise KeyboardInterrupt
        return run(stage, words, log=log)

    monkeypatch.setattr(scaling_run, "run_stage", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure_growth([300, 600], SETTING, tmp_path)
    assert (tmp_path / "600").is_dir()
    stages.clear()
    (tmp_path / "600" / "data").rmdir()
    monkeypatch.setattr(scaling_run, "run_stage", run)
    costs = measure_growth([300, 600], SETTING, tmp_path)
    assert stages == [("replace", 600), ("fit_heads", 600), ("report", 600)]
    assert set(costs["report"]) == {300, 600}


def test_results_of_another_setting_are_refused(stages: list[tuple[str, int]], tmp_path: Path) -> None:
    measure_growth([300], SETTING, tmp_path)
    with pytest.raises(BadArtifact, match="another arch, device, threads or seed"):
        measure_growth([300], BenchConfig("resnet18", "cpu", 1, 0), tmp_path)


def test_a_stage_that_fails_is_one_line_with_its_log(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"report ended with code 1 \(error: .*no such run folder.*see .*log"):
        run_stage("report", ["--run", str(tmp_path / "none")], log=tmp_path / "log")


def test_a_stage_has_a_time_and_a_peak(tmp_path: Path) -> None:
    cost = run_stage("verify", ["--help"], log=tmp_path / "log")
    assert cost.seconds > 0
    assert "usage" in (tmp_path / "log").read_text()


def test_synthetic_embeddings_stand_in_for_the_extracted_ones(
    trained_run: Path, words: Callable[..., list[str]]
) -> None:
    assert extract.main(words("extract", trained_run)) == 0
    path = trained_run / "embeddings.h5"
    before, record = read_embeddings(path), records.read_record(path)
    replace_embeddings(trained_run, seed=0)
    after = read_embeddings(path)
    assert after.tile_id == before.tile_id
    assert after.features.shape == before.features.shape
    assert not np.array_equal(after.features, before.features)
    assert (after.features == 0).mean() > 0.3
    replaced = records.check_artifact(path, schema=SCHEMA)
    freshness.check_inputs_unchanged(path, replaced)
    assert set(replaced["details"]) == set(record["details"])
    assert not list(trained_run.glob("*.partial*"))


def test_the_words_are_those_of_the_commands() -> None:
    """Every option that growth gives is known to its command."""
    from pipeline import fit_heads, prepare, report
    from pipeline.cli.parse import Syntax, parse

    steps = scaling_run.commands(300, Path("x"), Path("model.safetensors"), SETTING)
    kinds = {
        "prepare": prepare.PrepareOptions,
        "extract": extract.ExtractOptions,
        "fit_heads": fit_heads.FitHeadsOptions,
        "report": report.ReportOptions,
    }
    for stage, step in steps.items():
        common, _ = parse(Syntax("x", "", kinds[stage], stage), step)
        assert common.run == Path("x/run")
    assert json.dumps(list(steps)) == json.dumps(list(STAGES))
