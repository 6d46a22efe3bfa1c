"""`python -m pipeline` from tiles to report on tiny demo tiles, and what verify says of the run."""

import csv
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest

from pipeline import __main__ as whole
from pipeline import fit_heads, prepare, verify
from pipeline.storage import atomic

FILES = (
    "manifest.csv",
    "audit.json",
    "audit.md",
    "figures/classes.png",
    "model.safetensors",
    "model.json",
    "history.csv",
    "figures/history.png",
    "figures/batch.png",
    "embeddings.h5",
    "heads/svm.skops",
    "heads/xgboost.ubj",
    "heads/heads.json",
    "predictions.csv",
    "comparison.csv",
    "comparison.md",
    "report.html",
)
"""Every file of the design's table."""


def words(run: Path, data: Path, **options: object) -> list[str]:
    chosen = {
        "run": run,
        "data-dir": data,
        "folds": 1,
        "demo-tiles": 96,
        "demo-px": 32,
        "arch": "resnet10",
        "tile-px": 32,
        "epochs": 2,
        "threads": 1,
        "workers": 0,
        "rounds": 3,
        "draws": 100,
        "map": "pca",
    } | options
    return [word for name, value in chosen.items() for word in (f"--{name.replace('_', '-')}", str(value))]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    assert whole.main(words(run, data)) == 0
    return run


@pytest.fixture
def copy(finished: Path, data: Path) -> Path:
    """A copy of the finished run that a test may damage; the image root is relative, so it lies as deep."""
    return Path(shutil.copytree(finished, tempfile.mkdtemp(dir=finished.parent), dirs_exist_ok=True))


def test_every_file_of_the_design_is_there_and_verifies(finished: Path) -> None:
    for name in FILES:
        assert (finished / name).is_file(), name
    assert not list(finished.rglob("*.tmp"))
    assert not list(finished.rglob("*.partial*"))
    assert verify.main(["--run", str(finished)]) == 0


def test_a_second_call_skips_every_stage_and_says_so(
    finished: Path, data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.name != ".lock"}
    assert whole.main(words(finished, data)) == 0
    told = capfd.readouterr().err
    for stage in ("prepare", "train", "extract", "fit_heads", "report"):
        assert f"{stage}: current" in told
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.name != ".lock"} == before


@pytest.mark.fault("the same seed twice")
def test_the_same_seed_gives_the_same_results_and_writes_nothing_elsewhere(
    finished: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P6: model, embeddings, heads, predictions, scores; costs (seconds) differ. P5: only the run folder."""
    run = tmp_path / "inside" / "run"
    monkeypatch.chdir(tmp_path)
    assert whole.main(words(run, data)) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"inside"}
    assert {path.name for path in run.parent.iterdir()} == {"run"}
    repeated = ("manifest.csv", "model.safetensors", "model.json", "embeddings.h5", "baselines.h5", "heads/svm.skops")
    for name in (*repeated, "heads/xgboost.ubj", "predictions.csv", "robustness.csv"):
        assert atomic.sha256_file(run / name) == atomic.sha256_file(finished / name), name

    def merits(folder: Path) -> list[list[str]]:
        with (folder / "comparison.csv").open(newline="") as file:
            return [row for row in csv.reader(file) if row[1]]

    assert merits(run) == merits(finished)
    assert len(merits(run)) > 50


def test_grouped_split_keeps_sources_whole(finished: Path) -> None:
    """P7."""
    with (finished / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    splits = {}
    for row in rows:
        splits.setdefault(row["group"], set()).add(row["split"])
    assert len(splits) == 10
    assert all(len(found) == 1 for found in splits.values())


@pytest.mark.fault("one flipped bit in any file of a run")
@pytest.mark.parametrize("name", [*FILES, "manifest.csv.json", "embeddings.h5.json", "comparison.csv.json"])
def test_one_changed_byte_is_found_and_the_file_named(copy: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = copy / name
    content = bytearray(path.read_bytes())
    content[np.random.default_rng(len(name)).integers(len(content))] ^= 1
    path.write_bytes(content)
    assert verify.main(["--run", str(copy)]) == 1
    assert path.name in capfd.readouterr().err


def test_a_missing_file_is_found(copy: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (copy / "comparison.md").unlink()
    assert verify.main(["--run", str(copy)]) == 1
    assert "comparison.md" in capfd.readouterr().err


def test_a_clone_without_heavy_files_verifies_with_light_only(copy: Path) -> None:
    for name in ("model.safetensors", "embeddings.h5", "heads/svm.skops", "heads/xgboost.ubj", "figures/classes.png"):
        (copy / name).unlink()
    assert verify.main(["--run", str(copy)]) == 1
    assert verify.main(["--run", str(copy), "--light"]) == 0
    content = (copy / "comparison.csv").read_text()
    (copy / "comparison.csv").write_text(content.replace("accuracy", "Accuracy", 1))
    assert verify.main(["--run", str(copy), "--light"]) == 1


@pytest.mark.slow
@pytest.mark.fault("an input that changed since")
def test_stale_embeddings_after_retraining_are_refused_and_remade(
    copy: Path, data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from pipeline import train

    names = ("run", "arch", "tile-px", "epochs", "threads", "workers", "lr")
    chosen = words(copy, data, lr=0.004)
    alone = [word for i in range(0, len(chosen), 2) for word in chosen[i : i + 2] if chosen[i][2:] in names]
    assert train.main(alone) == 1  # other options: nothing is replaced by accident
    assert "--restart" in capfd.readouterr().err
    assert train.main([*alone, "--restart"]) == 0
    assert fit_heads.main(["--run", str(copy), "--rounds", "3", "--threads", "1", "--restart"]) == 1
    told = capfd.readouterr().err
    assert "embeddings.h5 was made from model.safetensors" in told
    assert "pipeline.extract" in told
    assert verify.main(["--run", str(copy)]) == 1
    assert whole.main(words(copy, data, lr=0.004)) == 0
    assert verify.main(["--run", str(copy)]) == 0


def test_the_record_names_options_inputs_versions_and_commit(finished: Path) -> None:
    """P8."""
    record = json.loads((finished / "embeddings.h5.json").read_text())
    assert record["inputs"]["model.safetensors"] == atomic.sha256_file(finished / "model.safetensors")
    assert record["inputs"]["manifest.csv"] == atomic.sha256_file(finished / "manifest.csv")
    assert record["versions"]["torch"]
    assert record["options"]["embed_batch"] is None
    chain = json.loads((finished / "comparison.csv.json").read_text())
    assert chain["inputs"]["predictions.csv"] == atomic.sha256_file(finished / "predictions.csv")


def test_a_lost_figure_does_not_cost_a_training(copy: Path, data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = atomic.sha256_file(copy / "model.safetensors")
    (copy / "figures" / "batch.png").unlink()
    assert whole.main(words(copy, data)) == 1
    assert "figures/batch.png: missing or changed" in capfd.readouterr().err
    assert atomic.sha256_file(copy / "model.safetensors") == before


def test_a_changed_manifest_does_not_cost_a_training(copy: Path, data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = atomic.sha256_file(copy / "model.safetensors")
    assert prepare.main([*words(copy, data)[:10], "--protocol", "random", "--restart"]) == 0
    capfd.readouterr()
    assert whole.main(words(copy, data, protocol="random")) == 1
    assert "model.safetensors was made from another manifest.csv" in capfd.readouterr().err
    assert atomic.sha256_file(copy / "model.safetensors") == before


def test_paths_for_one_stage_are_refused_here(finished: Path, data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert whole.main(words(finished, data, out="x.h5")) == 2
    assert "--out: only for python -m pipeline.extract" in capfd.readouterr().err


def test_verify_needs_no_right_to_write(copy: Path) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in copy.rglob("*"))
    (copy / ".lock").unlink()
    assert verify.main(["--run", str(copy)]) == 0
    assert not (copy / ".lock").exists()
    assert sorted((path, path.stat().st_mtime_ns) for path in copy.rglob("*") if path.is_file()) == [
        (path, time) for path, time in before if path.is_file() and path.name != ".lock"
    ]


def test_verify_of_an_empty_folder_fails(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert verify.main(["--run", str(tmp_path)]) == 1
    assert "no run" in capfd.readouterr().err
