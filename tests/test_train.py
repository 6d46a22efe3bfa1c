"""The command as a user meets it: what it leaves behind, how it stops, how it goes on."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline import train, verify
from pipeline.errors import BadInput
from pipeline.network.model_file import load_model
from pipeline.network.resnet import build_network
from pipeline.network.training.trainer import Trainer
from pipeline.storage import atomic, freshness, records
from pipeline.tiles.manifest import read_manifest

Words = Callable[..., list[str]]


def model_bytes(run: Path) -> bytes:
    """Return the trained weights' file."""
    return (run / "model.safetensors").read_bytes()


def one_line(text: str) -> str:
    """Return the one line with which a command ended."""
    lines = [line for line in text.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, text
    assert "Traceback" not in text
    return lines[0]


def interrupt_after(monkeypatch: pytest.MonkeyPatch, k: int, signum: int) -> None:
    """Send this process a signal once `k` steps are done."""
    step, count = Trainer.step, 0

    def counted(self: Trainer, *batch: object) -> None:
        nonlocal count
        step(self, *batch)  # type: ignore[arg-type]
        count += 1
        if count == k:
            os.kill(os.getpid(), signum)

    monkeypatch.setattr(Trainer, "step", counted)


def test_what_it_leaves_behind(trained_run: Path) -> None:
    """P8."""
    record = records.check_artifact(trained_run / "model.safetensors", schema="model/1.0")
    assert record["inputs"] == {"manifest.csv": atomic.sha256_file(trained_run / "manifest.csv")}
    companions = {"model.json", "history.csv", "metrics.jsonl", "figures/history.png", "figures/batch.png"}
    assert set(record["outputs"]) == companions
    assert not freshness.damaged_outputs(trained_run / "model.safetensors", record)
    assert not (trained_run / "checkpoint.pt").exists()
    history = pd.read_csv(trained_run / "history.csv")
    assert list(history["epoch"]) == [1, 2]
    lines = [json.loads(line) for line in (trained_run / "metrics.jsonl").read_text().splitlines()]
    pd.testing.assert_frame_equal(pd.DataFrame(lines)[list(history.columns)], history, check_dtype=False)
    model = load_model(trained_run / "model.safetensors")
    assert model.info["metrics"]["val_accuracy"] == history["val_accuracy"].max()
    assert model.classes == ["ADI", "TUM"]


def test_a_second_run_says_current(trained_run: Path, words: Words, capsys: pytest.CaptureFixture[str]) -> None:
    before = model_bytes(trained_run)
    assert train.main(words("train", trained_run)) == 0
    assert "train: current" in capsys.readouterr().err
    assert model_bytes(trained_run) == before


def test_the_same_seed_gives_the_same_model(trained_run: Path, prepared_run: Path, words: Words) -> None:
    """P6."""
    assert train.main(words("train", prepared_run)) == 0
    assert model_bytes(prepared_run) == model_bytes(trained_run)


@pytest.mark.fault("kill -9, SIGTERM, Ctrl-C in training")
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interruption_continues_to_the_same_model(
    prepared_run: Path,
    trained_base: Path,
    words: Words,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    signum: int,
    code: int,
) -> None:
    """P2."""
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2, signum)
        assert train.main(words("train", prepared_run)) == code
    assert "training saved in" in one_line(capsys.readouterr().err)
    assert not (prepared_run / "model.safetensors").exists()
    assert train.main(words("train", prepared_run)) == 0
    assert "continuing after epoch 0, step 2" in capsys.readouterr().err
    assert model_bytes(prepared_run) == model_bytes(trained_base / "run")
    ours, theirs = (pd.read_csv(run / "history.csv") for run in (prepared_run, trained_base / "run"))
    times = ["seconds", "images_per_second"]
    pd.testing.assert_frame_equal(ours.drop(columns=times), theirs.drop(columns=times))


def test_metrics_of_a_training_that_was_stopped_hold_each_epoch_once(
    prepared_run: Path, words: Words, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2: the stop is in the second epoch of two, of which the file knows nothing yet."""
    with monkeypatch.context() as patch:
        interrupt_after(patch, 5, signal.SIGTERM)
        assert train.main(words("train", prepared_run)) == 143
    metrics = prepared_run / "metrics.jsonl"
    assert [json.loads(line)["epoch"] for line in metrics.read_text().splitlines()] == [1]
    assert verify.unknown_files(prepared_run, {metrics}) == verify.unknown_files(prepared_run, set())
    assert train.main(words("train", prepared_run)) == 0
    assert [json.loads(line)["epoch"] for line in metrics.read_text().splitlines()] == [1, 2]


def test_tensorboard_changes_nothing_that_is_learnt(
    prepared_run: Path, trained_base: Path, words: Words, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard")
    assert train.main(words("train", prepared_run, "--tensorboard")) == 0
    assert model_bytes(prepared_run) == model_bytes(trained_base / "run")
    assert len(list((prepared_run / "tensorboard").iterdir())) == 1
    capsys.readouterr()
    assert train.main(words("train", prepared_run)) == 0
    assert "train: current" in capsys.readouterr().err


@pytest.mark.parametrize(("more", "changed"), [(("--lr", "0.1"), "lr"), (("--seed", "1"), "seed")])
def test_other_options_do_not_replace_a_model(
    trained_run: Path, words: Words, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], changed: str
) -> None:
    before = model_bytes(trained_run)
    assert train.main(words("train", trained_run, *more)) == 1
    line = one_line(capsys.readouterr().err)
    assert f"was made with {changed}=" in line
    assert "--restart" in line
    assert model_bytes(trained_run) == before


def test_other_options_do_not_continue_a_checkpoint(
    prepared_run: Path, words: Words, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        interrupt_after(patch, 1, signal.SIGTERM)
        assert train.main(words("train", prepared_run)) == 143
    before = (prepared_run / "checkpoint.pt").read_bytes()
    capsys.readouterr()
    assert train.main(words("train", prepared_run, "--lr", "0.1")) == 1
    assert "lr=0.0007, now 0.1" in one_line(capsys.readouterr().err)
    assert (prepared_run / "checkpoint.pt").read_bytes() == before


def test_a_restart_that_was_interrupted_continues_without_the_flag(
    trained_run: Path, words: Words, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = words("train", trained_run, "--lr", "0.002")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 4, signal.SIGTERM)
        assert train.main([*other, "--restart"]) == 143
    assert "(without --restart)" in one_line(capsys.readouterr().err)
    assert load_model(trained_run / "model.safetensors").info["recipe"]["lr"] == 7e-4
    assert train.main(other) == 0
    assert "continuing after epoch 1, step 1" in capsys.readouterr().err
    assert load_model(trained_run / "model.safetensors").info["recipe"]["lr"] == 2e-3


STRONG = "--recipe strong --progressive 0.75 1 --mixup 0.2 --ema 0.5"


def test_the_batch_drawn_is_one_that_was_trained_on(
    prepared_run: Path, words: Words, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of the last epoch, when input and changes have grown."""
    from pipeline.figures import training as figures
    from pipeline.network.training import step as learning

    steps, drawn, augment = [], [], learning.augment

    def trained_on(*given: object, **named: object) -> torch.Tensor:
        steps.append(augment(*given, **named))  # type: ignore[arg-type]
        return steps[-1]

    monkeypatch.setattr(learning, "augment", trained_on)
    monkeypatch.setattr(figures, "draw_batch", lambda path, pixels, labels: (drawn.append(pixels), path.touch()))
    assert train.main(words("train", prepared_run, "--recipe", "strong", "--progressive", "0.75", "1")) == 0
    assert np.array_equal(drawn[0], steps[len(steps) // 2].numpy())


@pytest.mark.slow
def test_a_strong_training_stops_and_continues_to_the_same_model(
    prepared_run: Path,
    tmp_path: Path,
    words: Words,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """P2, P6, P8; the model loads into torchvision's network and every switch stands in its description."""
    shutil.copytree(prepared_run.parent, tmp_path / "other")
    other = tmp_path / "other" / "run"
    assert train.main(words("train", other, *STRONG.split())) == 0
    assert "24, 32 px" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        interrupt_after(patch, 5, signal.SIGTERM)
        assert train.main(words("train", prepared_run, *STRONG.split())) == 143
    capsys.readouterr()
    assert train.main(words("train", prepared_run, "--recipe", "strong", "--ema", "0.9")) == 1
    assert "ema=0.5, now 0.9" in one_line(capsys.readouterr().err)
    assert train.main(words("train", prepared_run, *STRONG.split())) == 0
    assert model_bytes(prepared_run) == model_bytes(other)
    recipe = load_model(other / "model.safetensors").info["recipe"]
    assert recipe["name"] == "strong"
    assert (recipe["progressive"], recipe["ema"], recipe["stain_scale"]) == ([0.75, 1.0], 0.5, 0.2)
    assert train.main(words("train", other, *STRONG.split())) == 0
    assert "train: current" in capsys.readouterr().err


def test_switches_stand_in_a_file_too(prepared_run: Path, words: Words, tmp_path: Path) -> None:
    config = tmp_path / "my.toml"
    config.write_text('[train]\nepochs = 1\nprogressive = [0.5, 1.0]\nlast_norm = "zero"\noptimizer = "sgd"\n')
    argv = [word for word in words("train", prepared_run) if word not in ("--epochs", "2")]
    assert train.main([*argv, "--config", str(config)]) == 0
    recipe = load_model(prepared_run / "model.safetensors").info["recipe"]
    assert (recipe["progressive"], recipe["last_norm"], recipe["optimizer"]) == ([0.5, 1.0], "zero", "sgd")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--ema", "1"), "--ema 1.0: 0 to 0.99999"),
        (("--stain-scale", "-0.1"), "--stain-scale -0.1: 0 to 0.9"),
        (("--low-resolution", "nan"), "--low-resolution nan: 0.1 to 1"),
        (("--progressive", "0.5", "1.5"), "--progressive 1.5: 0.1 to 1"),
    ],
)
def test_switches_out_of_range_are_one_line(
    prepared_run: Path, words: Words, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], message: str
) -> None:
    assert train.main(words("train", prepared_run, *more)) == 2
    assert message in one_line(capsys.readouterr().err)


def test_a_damaged_checkpoint_is_one_line(prepared_run: Path, words: Words, capsys: pytest.CaptureFixture[str]) -> None:
    (prepared_run / "checkpoint.pt").write_bytes(b"PK\x03\x04 torn")
    assert train.main(words("train", prepared_run)) == 1
    assert "pass --restart" in one_line(capsys.readouterr().err)


@pytest.mark.fault("a loss or weight that is not finite")
def test_a_training_that_diverges_is_one_line(
    prepared_run: Path, words: Words, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(words("train", prepared_run, "--lr", "1e30")) == 1
    assert "with a lower --lr" in one_line(capsys.readouterr().err)
    assert not (prepared_run / "model.safetensors").exists()


@pytest.mark.fault("memory of the GPU full")
def test_a_full_memory_is_one_line(
    prepared_run: Path, words: Words, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def out_of_memory(self: Trainer) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore")

    monkeypatch.setattr(Trainer, "run", out_of_memory)
    assert train.main(words("train", prepared_run)) == 1
    assert "not enough memory (CUDA out of memory. Tried to allocate 2 GiB.)" in one_line(capsys.readouterr().err)


@pytest.mark.fault("memory of the GPU full")
def test_a_step_that_the_memory_does_not_hold_is_one_line(
    prepared_run: Path,
    trained_base: Path,
    words: Words,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The checkpoint of the epoch before stays, and with memory the same model comes of it."""
    step, count = Trainer.step, 0

    def crowded(self: Trainer, *batch: object) -> None:
        nonlocal count
        count += 1
        if count == 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore")
        step(self, *batch)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", crowded)
        assert train.main(words("train", prepared_run)) == 1
    line = one_line(capsys.readouterr().err)
    assert "the memory of cpu is too small for a step of 8 tiles of 32 px (CUDA out of memory." in line
    assert "lower --batch-size" in line
    assert train.main(words("train", prepared_run)) == 0
    assert model_bytes(prepared_run) == model_bytes(trained_base / "run")


@pytest.mark.fault("the same seed twice")
def test_deterministic_asks_torch_for_repeatable_kernels_and_changes_nothing_on_a_cpu(
    prepared_run: Path, trained_base: Path, words: Words, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P6."""
    step, seen = Trainer.step, set()

    def watched(self: Trainer, *batch: object) -> None:
        seen.add((torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark))
        step(self, *batch)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "step", watched)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    try:
        assert train.main(words("train", prepared_run, "--deterministic")) == 0
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    finally:
        torch.use_deterministic_algorithms(mode=False)
    assert seen == {(True, False)}
    assert model_bytes(prepared_run) == model_bytes(trained_base / "run")


def test_a_kernel_that_cannot_repeat_is_one_line(
    prepared_run: Path, words: Words, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What torch itself says of one, with an operation that has no repeatable kernel on any device."""

    def unrepeatable(self: Trainer, *batch: object) -> None:
        torch.zeros(4).put_(torch.tensor([0]), torch.ones(1), accumulate=False)

    monkeypatch.setattr(Trainer, "step", unrepeatable)
    try:
        assert train.main(words("train", prepared_run, "--deterministic")) == 1
    finally:
        torch.use_deterministic_algorithms(mode=False)
    line = one_line(capsys.readouterr().err)
    assert line.startswith("error: --deterministic: put_ does not have a deterministic implementation")
    assert line.endswith("leave the option out")


def test_a_tile_that_is_gone_is_one_line(prepared_run: Path, words: Words, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (prepared_run.parent / "tiles").rglob("*.png"):
        path.unlink()
    assert train.main(words("train", prepared_run)) == 1
    assert "not there: run `python -m pipeline.prepare --restart`" in one_line(capsys.readouterr().err)


def test_start_weights_are_part_of_the_model_s_history(
    prepared_run: Path, words: Words, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """P8: other start weights under the same name are not the same model."""
    start = tmp_path / "start.pth"
    torch.save(build_network("resnet10", n_classes=9, seed=1).state_dict(), start)
    argv = words("train", prepared_run, "--epochs", "1", "--init", str(start))
    assert train.main(argv) == 0
    record = records.read_record(prepared_run / "model.safetensors")
    assert atomic.sha256_file(start) in record["inputs"].values()
    first = model_bytes(prepared_run)
    (tmp_path / "moved").mkdir()
    start = start.rename(tmp_path / "moved" / "start.pth")
    argv[-1] = str(start)  # the same weights in another folder
    assert train.main(argv) == 0
    assert "train: current" in capsys.readouterr().err
    torch.save(build_network("resnet10", n_classes=9, seed=2).state_dict(), start)
    assert train.main(argv) == 1
    assert "model.safetensors was made from another start.pth" in capsys.readouterr().err
    assert model_bytes(prepared_run) == first
    assert train.main([*argv, "--restart"]) == 0
    assert model_bytes(prepared_run) != first


def test_imagenet_weights_are_said_and_need_no_cache_later(
    prepared_run: Path,
    words: Words,
    publish_weights: Callable[[dict], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """P8: which they were stands in the record; what the run holds does not hang on another folder."""
    file = publish_weights(build_network("resnet18", n_classes=1000, seed=3).state_dict())
    argv = words("train", prepared_run, "--epochs", "1", "--arch", "resnet18", "--lr", "1e-9", "--init", "imagenet")
    assert train.main(argv) == 0
    assert "resnet18 from ImageNet (torchvision's " in capsys.readouterr().err
    model = load_model(prepared_run / "model.safetensors")
    assert model.info["init"].startswith("ImageNet (torchvision's ")
    assert model.record["details"]["init_sha256"] == atomic.sha256_file(file)
    assert list(model.record["inputs"]) == ["manifest.csv"]
    expected = build_network("resnet18", n_classes=1000, seed=3)
    torch.testing.assert_close(model.network.conv1.weight, expected.conv1.weight, rtol=0, atol=1e-6)
    shutil.rmtree(tmp_path / "torch")
    file.unlink()
    assert train.main(argv) == 0
    assert "train: current" in capsys.readouterr().err


def test_a_file_may_be_called_imagenet(
    prepared_run: Path, words: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(build_network("resnet10", n_classes=9, seed=1).state_dict(), tmp_path / "imagenet")
    monkeypatch.chdir(tmp_path)
    assert train.main(words("train", prepared_run, "--epochs", "1", "--init", "./imagenet")) == 0
    assert load_model(prepared_run / "model.safetensors").info["init"] == "./imagenet"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--init", "imagenet"), "--init imagenet: torchvision has no such weights for resnet10"),
        (("--init", ""), "--init is empty"),
    ],
)
def test_start_weights_that_cannot_be_are_a_usage_error(
    prepared_run: Path, words: Words, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], message: str
) -> None:
    assert train.main(words("train", prepared_run, *more)) == 2
    assert message in one_line(capsys.readouterr().err)


@pytest.mark.fault("no network")
@pytest.mark.parametrize("kind", ["absent", "malicious", "architecture"])
def test_bad_start_weights_are_one_line(
    prepared_run: Path, words: Words, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """P3."""
    start, marker = tmp_path / "start.pth", tmp_path / "marker"

    class Malicious:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(marker),)

    if kind == "malicious":
        torch.save({"conv1.weight": Malicious()}, start)
    elif kind == "architecture":
        torch.save(build_network("resnet18", n_classes=2, seed=0).state_dict(), start)
    assert train.main(words("train", prepared_run, "--init", str(start))) == 1
    assert f"--init {start}: " in one_line(capsys.readouterr().err)
    assert not marker.exists()


@pytest.mark.fault("odd sizes and numbers of tiles")
@pytest.mark.parametrize(("split", "match"), [("train", "0 readable train"), ("val", "0 readable val")])
def test_a_split_without_tiles(prepared_run: Path, split: str, match: str) -> None:
    from pipeline.cli.options import Common
    from pipeline.network.training.recipe import RECIPES

    manifest = read_manifest(prepared_run / "manifest.csv")
    fewer = dataclasses.replace(manifest, table=manifest.table[manifest.table["split"] != split])
    with pytest.raises(BadInput, match=match):
        train.start_training(fewer, RECIPES["quick"], train.TrainOptions(), Common(run=prepared_run), {})


def test_no_run_folder_and_no_manifest(tmp_path: Path, words: Words, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(words("train", tmp_path / "nowhere")) == 1
    assert "no such run folder" in one_line(capsys.readouterr().err)
    assert not (tmp_path / "nowhere").exists()
    assert train.main(words("train", tmp_path)) == 1
    assert "manifest.csv: not there" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize("device", ["gpu9", "meta", "cuda:77"])
def test_a_device_that_is_not_there(
    prepared_run: Path, words: Words, capsys: pytest.CaptureFixture[str], device: str
) -> None:
    argv = [word if word != "cpu" else device for word in words("train", prepared_run)]
    assert train.main(argv) == 2
    assert f"--device {device}" in one_line(capsys.readouterr().err)


# -- real processes ------------------------------------------------------------------------------------------------


def start(argv: list[str]) -> subprocess.Popen[str]:
    """Start the command as a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.train", *argv],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=Path(__file__).parents[1],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    """Wait until a file is there."""
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.fault("kill -9, SIGTERM, Ctrl-C in training")
@pytest.mark.parametrize(("signum", "code", "workers"), [(signal.SIGTERM, 143, "2"), (signal.SIGINT, 130, "0")])
def test_a_signal_to_the_whole_group_saves(
    prepared_run: Path, words: Words, signum: int, code: int, workers: str
) -> None:
    """Ctrl-C and batch systems signal every process of a job: the workers must not take the training with them."""
    checkpoint = prepared_run / "checkpoint.pt"
    process = start(words("train", prepared_run, "--epochs", "500", "--workers", workers))
    wait_for(checkpoint, process)
    os.killpg(process.pid, signum)
    _, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    assert "run the same command again" in one_line(err)
    assert torch.load(checkpoint, weights_only=True)["progress"]["epoch"] >= 1


LIMITED = """
import resource, signal, sys
from pipeline.network.training.trainer import Trainer
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
save = Trainer.save
def limited(self):
    if self.state.epoch == 2:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
    save(self)
Trainer.save = limited
from pipeline import train, verify
raise SystemExit(train.main(sys.argv[1:]))
"""


@pytest.mark.fault("full disk, in every writer")
@pytest.mark.slow
def test_a_disk_that_is_really_full_keeps_the_former_checkpoint(
    prepared_run: Path, trained_base: Path, words: Words
) -> None:
    """P1: the real errors of torch and the system, with a limit on the size of files in the disk's stead."""
    argv = words("train", prepared_run)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *argv],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
    )
    assert done.returncode == 1, done.stderr
    assert "checkpoint.pt: no space left" in one_line(done.stderr)
    assert torch.load(prepared_run / "checkpoint.pt", weights_only=True)["progress"]["epoch"] == 1
    assert train.main(argv) == 0
    assert model_bytes(prepared_run) == model_bytes(trained_base / "run")
