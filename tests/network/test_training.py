"""A training that is stopped anywhere and continued is the training that was not stopped."""

import errno
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.errors import BadArtifact, BadInput, DiskFull, Interrupted, PipelineError, StaleInput, WorkerLost
from pipeline.network import training as module
from pipeline.network.batches import TileFiles
from pipeline.network.resnet import as_channels_last, build_network
from pipeline.network.training import Recipe, Training
from pipeline.storage.models import Preprocess
from pipeline.tiles.manifest import read_manifest

RECIPE = Recipe(tile_px=32, epochs=2, batch_size=7, lr_step=1)
"""Of 24 training tiles: four steps an epoch."""

OPTIONS = {"lr": 1e-3, "precision": "fp32"}


def begin(run: Path, recipe: Recipe = RECIPE, *, workers: int = 0, **identity: object) -> Training:
    """Return a training on the small run, not yet resumed."""
    torch.set_num_threads(1)
    manifest = read_manifest(run / "manifest.csv")
    tiles = {}
    for split in ("train", "val"):
        rows = manifest.table[manifest.table["split"] == split]
        files = TileFiles(manifest.root, list(rows["path"]), list(rows["sha256"]), recipe.tile_px)
        tiles[split] = files, (rows["label"] == "TUM").to_numpy(np.int64)
    network = build_network("resnet10", n_classes=2, seed=0)
    as_channels_last(network, torch.device("cpu"))
    return Training(
        network,
        train=tiles["train"],
        val=tiles["val"],
        recipe=recipe,
        preprocess=Preprocess(size=recipe.tile_px),
        precision="fp32",
        seed=0,
        workers=workers,
        checkpoint=run / "checkpoint.pt",
        identity={"manifest": "m", "options": OPTIONS, "seed": 0, **identity},
    )


def curve(training: Training) -> list[dict[str, float]]:
    """Return the history without its times."""
    return [
        {name: value for name, value in row.items() if name not in ("seconds", "images_per_second")}
        for row in training.state.history
    ]


def outcome(training: Training) -> dict[str, torch.Tensor]:
    """Return all tensors that a finished training has made."""
    last = {f"last.{name}": value for name, value in training.network.state_dict().items()}
    return last | {f"best.{name}": value for name, value in training.best.items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Tell whether two outcomes are equal to the last bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def after_step(training: Training, k: int, what: object) -> None:
    """Call `what` once the training's k-th step from now is done."""
    step, count = training.step, 0

    def counted(batch: object) -> None:
        nonlocal count
        step(batch)  # type: ignore[arg-type]
        count += 1
        if count == k:
            what()  # type: ignore[operator]

    training.step = counted  # type: ignore[method-assign, assignment]


@pytest.fixture(scope="module")
def uninterrupted(prepared_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Training:
    """The training that nothing stopped."""
    import shutil

    base = tmp_path_factory.mktemp("uninterrupted") / "base"
    shutil.copytree(prepared_base, base)
    training = begin(base / "run")
    training.run()
    return training


def test_it_learns_and_keeps_the_best_epoch(uninterrupted: Training) -> None:
    state = uninterrupted.state
    assert [row["epoch"] for row in state.history] == [1, 2]
    assert [row["lr"] for row in state.history] == pytest.approx([1e-3, 1e-4])
    best = max(state.history, key=lambda row: (row["val_accuracy"], -row["val_loss"]))
    assert (state.best_epoch, state.best_accuracy) == (best["epoch"], best["val_accuracy"])
    assert state.history[0]["train_loss"] != state.history[1]["train_loss"]


@pytest.mark.parametrize("stopped_after", [1, 4, 5])
def test_a_stop_after_any_step_continues_to_the_same_result(
    uninterrupted: Training, prepared_run: Path, stopped_after: int
) -> None:
    """P2, P6: after the first step, the last of an epoch, the first of the next; equal to the last bit."""
    first = begin(prepared_run)
    after_step(first, stopped_after, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted, match=r"SIGTERM: training saved in .*checkpoint\.pt") as caught:
        first.run()
    assert caught.value.exit_code == 143
    torch.manual_seed(stopped_after)  # nothing may hang on the state of torch's own generator
    second = begin(prepared_run)
    assert second.resume()
    taken = second.state.step + 4 * second.state.epoch
    assert taken == stopped_after
    second.run()
    assert curve(second) == curve(uninterrupted)
    assert same(outcome(second), outcome(uninterrupted))


def test_a_stop_while_validating_is_heard(prepared_run: Path, uninterrupted: Training) -> None:
    first = begin(prepared_run)
    validate = first.validate

    def stopped() -> tuple[float, float]:
        os.kill(os.getpid(), signal.SIGINT)
        return validate()

    first.validate = stopped  # type: ignore[method-assign]
    with pytest.raises(Interrupted) as caught:
        first.run()
    assert caught.value.exit_code == 130
    second = begin(prepared_run)
    second.resume()
    assert (second.state.epoch, second.state.step) == (1, 0)
    second.run()
    assert same(outcome(second), outcome(uninterrupted))


def test_workers_do_not_change_the_result(prepared_run: Path, uninterrupted: Training) -> None:
    training = begin(prepared_run, workers=2)
    training.run()
    assert curve(training) == curve(uninterrupted)
    assert same(outcome(training), outcome(uninterrupted))


def test_a_save_within_an_epoch_by_time(prepared_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAVE_EVERY_S", -1)
    training = begin(prepared_run)
    seen = []
    after_step(training, 2, lambda: seen.append(begin(prepared_run)))
    after_step(training, 2, lambda: seen[0].resume())
    training.run()
    assert (seen[0].state.epoch, seen[0].state.step) == (0, 1)


def test_a_lost_worker_costs_nothing(
    prepared_run: Path, uninterrupted: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = begin(prepared_run)
    load = module.load_batches

    def losing(tiles: TileFiles, batches: list, *, workers: int) -> object:
        yield from load(tiles, batches[:2], workers=workers)
        raise WorkerLost("a worker process ended")

    monkeypatch.setattr(module, "load_batches", losing)
    with pytest.raises(WorkerLost):
        first.run()
    monkeypatch.undo()
    second = begin(prepared_run)
    second.resume()
    assert second.state.step == 2
    second.run()
    assert same(outcome(second), outcome(uninterrupted))


def test_the_checkpoint_holds_tensors_and_plain_values_only(prepared_run: Path) -> None:
    """P3."""
    training = begin(prepared_run, Recipe(tile_px=32, epochs=1, batch_size=7))
    training.run()
    content = torch.load(training.checkpoint, weights_only=True)
    assert set(content) == {"identity", "progress", "network", "optimizer", "schedule", "best"}


def test_another_training_is_refused(prepared_run: Path) -> None:
    begin(prepared_run).save()
    other = begin(prepared_run, manifest="n", options=OPTIONS | {"lr": 0.1})
    before = {name: value.clone() for name, value in other.network.state_dict().items()}
    with pytest.raises(StaleInput, match=r"another manifest \(m, now n\), lr \(0.001, now 0.1\): give") as caught:
        other.resume()
    assert "\n" not in str(caught.value)
    assert same(before, other.network.state_dict())


def test_auto_precision_goes_on_as_it_began(prepared_run: Path) -> None:
    """A busy machine may time the two otherwise; a training must not be refused for it."""
    first = begin(prepared_run, options={"precision": "auto"})
    first.precision = first.identity["precision"] = "bf16"
    first.save()
    second = begin(prepared_run, options={"precision": "auto"})
    assert second.resume()
    assert second.precision == "bf16"


@pytest.mark.parametrize("damage", ["bit", "truncated", "text", "empty", "list", "keys"])
def test_a_damaged_checkpoint(prepared_run: Path, damage: str) -> None:
    training = begin(prepared_run)
    training.save()
    path = training.checkpoint
    data = bytearray(path.read_bytes())
    if damage == "bit":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif damage == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "text":
        path.write_text("hello")
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "list":
        torch.save([1, 2], path)
    else:
        torch.save({"identity": training.identity, "progress": {}}, path)
    with pytest.raises(BadArtifact, match=r"checkpoint\.pt: cannot be read .*: pass --restart") as caught:
        begin(prepared_run).resume()
    assert "\n" not in str(caught.value)


def poison(training: Training) -> None:
    """Make a weight infinite, as a step that is too long does."""
    with torch.no_grad():
        training.network.fc.weight[0, 0] = float("nan")


def test_a_loss_that_is_not_finite_keeps_the_last_good_epoch(prepared_run: Path) -> None:
    training = begin(prepared_run)
    after_step(training, 6, lambda: poison(training))  # the second of epoch 2
    with pytest.raises(PipelineError, match=r"the loss became .* in epoch 2, step 3: the best model so far") as caught:
        training.run()
    assert caught.value.exit_code == 1
    kept = begin(prepared_run)
    kept.resume()
    assert (kept.state.epoch, kept.state.step) == (1, 0)
    assert all(torch.isfinite(value).all() for value in outcome(kept).values())


def test_weights_that_are_not_finite_are_never_saved(prepared_run: Path) -> None:
    training = begin(prepared_run)
    training.save()
    before = training.checkpoint.read_bytes()
    after_step(training, 1, lambda: (poison(training), os.kill(os.getpid(), signal.SIGINT)))
    with pytest.raises(PipelineError, match="a weight became infinite or not a number"):
        training.run()
    assert training.checkpoint.read_bytes() == before


def test_a_validation_loss_that_is_not_finite(prepared_run: Path) -> None:
    training = begin(prepared_run)
    training.validate = lambda: (float("nan"), 0.5)  # type: ignore[method-assign]
    with pytest.raises(PipelineError, match=r"the validation loss became .* no epoch was finished before"):
        training.run()
    assert not training.checkpoint.exists()


def torch_finds_no_space(content: object, file: object) -> None:
    """Fail as torch 2.15 does: its own RuntimeError follows on the system's error."""
    try:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError:
        raise RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 640 vs 598")  # noqa: B904


def system_finds_no_space(content: object, file: object) -> None:
    """Fail as the system does."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("fail", [torch_finds_no_space, system_finds_no_space])
def test_a_full_disk_leaves_the_former_checkpoint(
    prepared_run: Path, monkeypatch: pytest.MonkeyPatch, fail: object
) -> None:
    """P1."""
    training = begin(prepared_run)
    training.save()
    before = training.checkpoint.read_bytes()
    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(DiskFull, match=r"checkpoint\.pt: no space left") as caught:
        training.run()
    assert "\n" not in str(caught.value)
    assert training.checkpoint.read_bytes() == before
    assert not list(prepared_run.glob(".*.tmp"))


def test_a_tile_that_changed_stops_the_training(prepared_run: Path) -> None:
    training = begin(prepared_run)
    files, _ = training.train
    (files.root / files.paths[0]).write_bytes(b"no image")
    with pytest.raises(BadInput, match=r"not a readable .*pipeline\.prepare --restart"):
        training.run()


def test_every_epoch_has_its_own_order(prepared_run: Path) -> None:
    training = begin(prepared_run)
    orders = [np.concatenate(training.epoch_batches(epoch)) for epoch in (0, 1)]
    assert [len(step) for step in training.epoch_batches(0)] == [7, 7, 7, 3]
    assert all(sorted(order) == list(range(24)) for order in orders)
    assert not np.array_equal(*orders)
    assert np.array_equal(orders[0], np.concatenate(training.epoch_batches(0)))


def test_a_last_batch_of_one_tile_is_left_out(prepared_run: Path) -> None:
    """Batch normalisation sees no spread in it."""
    training = begin(prepared_run, Recipe(tile_px=32, epochs=1, batch_size=23))
    assert [len(step) for step in training.epoch_batches(0)] == [23]
    training.run()
    assert 0 <= training.state.history[0]["train_accuracy"] <= 1


def test_the_loop_is_the_tutorials_plain_loop(prepared_run: Path) -> None:
    """The same tiles, order and flips through torchvision's network, Adam and StepLR give the same weights."""
    from torch.nn import functional

    from pipeline.network.batches import load_batches, normalise, random_flips

    training = begin(prepared_run)
    training.run()

    network = build_network("resnet10", n_classes=2, seed=0).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=RECIPE.lr_step, gamma=0.1)
    tiles, labels = training.train
    for epoch in range(RECIPE.epochs):
        network.train()
        for step, batch in enumerate(load_batches(tiles, training.epoch_batches(epoch), workers=0)):
            pixels = random_flips(batch.pixels, seed=(0, epoch, step))
            scores = network(normalise(pixels, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)))
            optimizer.zero_grad()
            functional.cross_entropy(scores, torch.from_numpy(labels[batch.rows])).backward()
            optimizer.step()
        schedule.step()
    for name, value in network.state_dict().items():
        torch.testing.assert_close(training.network.state_dict()[name], value, rtol=1e-5, atol=1e-6, msg=name)
