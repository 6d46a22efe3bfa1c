"""A training that is stopped anywhere and continued is the training that was not stopped, held or streamed."""

import dataclasses
import errno
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.errors import BadInput, DiskFull, Interrupted, PipelineError, WorkerLost
from pipeline.network.preprocess import Preprocess
from pipeline.network.resnet import as_channels_last, build_network
from pipeline.network.tile_files import TileFiles
from pipeline.network.training import pixel_cache
from pipeline.network.training import step as learning
from pipeline.network.training import trainer as module
from pipeline.network.training.augmentation import mix
from pipeline.network.training.recipe import Recipe, recipe_for
from pipeline.network.training.setup import TrainingSetup
from pipeline.network.training.trainer import Trainer
from pipeline.tiles.manifest import read_manifest

RECIPE = Recipe(tile_px=32, epochs=2, batch_size=7, lr_step=1)
"""Of 24 training tiles: four steps an epoch."""

OPTIONS = {"lr": 1e-3, "precision": "fp32"}

STRONG = dataclasses.replace(
    recipe_for("strong", tile_side=150, colour_share=None),
    tile_px=32,
    epochs=2,
    batch_size=7,
    progressive=(0.75, 1.0),
    ema=0.5,
    norm_tiles=20,
    mixup=0.2,
    cutmix=1.0,
)
"""Every switch of the strong recipe and the two it leaves out, for tiny tiles: 24 px, then 32 px."""

TIMES = ("seconds", "images_per_second")


def begin(
    run: Path, recipe: Recipe = RECIPE, *, workers: int = 0, compiled: bool = False, **identity: object
) -> Trainer:
    """Return a training on the small run, not yet resumed."""
    torch.set_num_threads(1)
    manifest = read_manifest(run / "manifest.csv")
    tiles = {}
    for split in ("train", "val"):
        rows = manifest.table[manifest.table["split"] == split]
        files = TileFiles(manifest.root, list(rows["path"]), list(rows["sha256"]), Preprocess(recipe.tile_px))
        tiles[split] = files, (rows["label"] == "TUM").to_numpy(np.int64)
    network = build_network("resnet10", n_classes=2, seed=0, zero_init=recipe.last_norm == "zero")
    as_channels_last(network, torch.device("cpu"))
    setup = TrainingSetup(
        recipe=recipe,
        preprocess=Preprocess(size=recipe.tile_px),
        precision="fp32",
        seed=0,
        workers=workers,
        checkpoint=run / "checkpoint.pt",
        identity={"manifest": "m", "options": OPTIONS, "seed": 0, **identity},
        compiled=compiled,
    )
    return Trainer(network, tiles["train"], tiles["val"], setup)


def curve(training: Trainer) -> list[dict[str, float]]:
    """Return the history without its times."""
    return [{name: value for name, value in row.items() if name not in TIMES} for row in training.state.history]


def outcome(training: Trainer) -> dict[str, torch.Tensor]:
    """Return all tensors that a finished training has made."""
    last = {f"last.{name}": value for name, value in training.network.state_dict().items()}
    eval_network = {f"judged.{name}": value for name, value in training.eval_network.state_dict().items()}
    return last | eval_network | {f"best.{name}": value for name, value in training.best.items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Tell whether two outcomes are equal to the last bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def after_step(training: Trainer, k: int, what: object) -> None:
    """Call `what` once the training's k-th step from now is done."""
    step, count = training.step, 0

    def counted(rows: np.ndarray, pixels: torch.Tensor) -> None:
        nonlocal count
        step(rows, pixels)
        count += 1
        if count == k:
            what()  # type: ignore[operator]

    training.step = counted  # type: ignore[method-assign, assignment]


@pytest.fixture(scope="module")
def uninterrupted(prepared_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """The training that nothing stopped."""
    base = tmp_path_factory.mktemp("uninterrupted") / "base"
    shutil.copytree(prepared_base, base)
    training = begin(base / "run")
    training.run()
    return training


@pytest.fixture(scope="module")
def uninterrupted_strong(prepared_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """Likewise, by the strong recipe."""
    base = tmp_path_factory.mktemp("strong") / "base"
    shutil.copytree(prepared_base, base)
    training = begin(base / "run", STRONG)
    training.run()
    return training


def test_it_learns_and_keeps_the_best_epoch(uninterrupted: Trainer) -> None:
    state = uninterrupted.state
    assert [row["epoch"] for row in state.history] == [1, 2]
    assert [row["lr"] for row in state.history] == pytest.approx([1e-3, 1e-4])
    best = max(state.history, key=lambda row: (row["val_accuracy"], -row["val_loss"]))
    assert (state.best_epoch, state.best_accuracy) == (best["epoch"], best["val_accuracy"])
    assert state.history[0]["train_loss"] != state.history[1]["train_loss"]


def stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no tile fit into memory."""
    monkeypatch.setattr(pixel_cache, "SHARE", {"cpu": -1.0})


@pytest.mark.fault("kill -9, SIGTERM, Ctrl-C in training")
@pytest.mark.parametrize(
    ("stopped_after", "streamed"),
    [
        (1, (False, False)),
        (2, (True, True)),
        (2, (True, False)),
        (3, (False, True)),
        (4, (True, True)),
        (5, (False, False)),
    ],
)
def test_a_stop_after_any_step_continues_to_the_same_result(
    uninterrupted: Trainer,
    prepared_run: Path,
    monkeypatch: pytest.MonkeyPatch,
    stopped_after: int,
    streamed: tuple[bool, bool],
) -> None:
    """P2, P6: after the first step, the last of an epoch, the first of the next; equal to the last bit.

    `streamed`: whether the tiles do not fit into memory before the stop, and after it.
    """
    first = begin(prepared_run)
    after_step(first, stopped_after, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with monkeypatch.context() as patch:
        if streamed[0]:
            stream(patch)
        with pytest.raises(Interrupted, match=r"SIGTERM: training saved in .*checkpoint\.pt") as caught:
            first.run()
    assert caught.value.exit_code == 143
    torch.manual_seed(stopped_after)  # nothing may hang on the state of torch's own generator
    second = begin(prepared_run)
    assert second.resume()
    taken = second.state.step + 4 * second.state.epoch
    assert taken == stopped_after
    if streamed[1]:
        stream(monkeypatch)
    second.run()
    assert isinstance(second.sources["train"], pixel_cache.StreamedTiles if streamed[1] else pixel_cache.CachedTiles)
    assert curve(second) == curve(uninterrupted)
    assert same(outcome(second), outcome(uninterrupted))


@pytest.mark.parametrize(
    ("stopped_after", "streamed"), [(1, (False, True)), (4, (False, False)), (5, (True, True)), (7, (True, False))]
)
def test_a_stopped_strong_training_continues_to_the_same_result(
    uninterrupted_strong: Trainer,
    prepared_run: Path,
    monkeypatch: pytest.MonkeyPatch,
    stopped_after: int,
    streamed: tuple[bool, bool],
) -> None:
    """P2, P6: the mean of the weights, augmentation, input side and learning rate go on where they were."""
    first = begin(prepared_run, STRONG)
    after_step(first, stopped_after, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with monkeypatch.context() as patch:
        if streamed[0]:
            stream(patch)
        with pytest.raises(Interrupted):
            first.run()
    torch.manual_seed(stopped_after)
    second = begin(prepared_run, STRONG)
    assert second.resume()
    assert second.state.step + 4 * second.state.epoch == stopped_after
    if streamed[1]:
        stream(monkeypatch)
    second.run()
    assert curve(second) == curve(uninterrupted_strong)
    assert same(outcome(second), outcome(uninterrupted_strong))


def test_the_strong_recipe_judges_and_keeps_the_mean_of_the_weights(uninterrupted_strong: Trainer) -> None:
    training = uninterrupted_strong
    assert training.eval_network is not training.network
    assert not torch.equal(training.eval_network.fc.weight, training.network.fc.weight)
    assert training.validate() == (training.state.history[-1]["val_loss"], training.state.history[-1]["val_accuracy"])
    if training.state.best_epoch == 2:
        assert all(
            torch.equal(training.best[name], value) for name, value in training.eval_network.state_dict().items()
        )


def test_the_strong_recipes_input_grows(prepared_run: Path) -> None:
    training, sides = begin(prepared_run, STRONG), []
    training.network.conv1.register_forward_pre_hook(lambda _, inputs: sides.append(inputs[0].shape[-1]))
    training.eval_network.conv1.register_forward_pre_hook(lambda _, inputs: sides.append(-inputs[0].shape[-1]))
    training.run()
    # the statistics of norms and the validation always see the whole tile
    assert sides == [*4 * [24], -32, -32, *4 * [32], -32, -32]


def test_the_strong_recipes_changes_grow_step_by_step(prepared_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shifts, before = [], learning.augment

    def seen(pixels: torch.Tensor, recipe: Recipe, numbers: np.ndarray, *, side: int) -> torch.Tensor:
        shifts.append(recipe.stain_shift)
        return before(pixels, recipe, numbers, side=side)

    monkeypatch.setattr(learning, "augment", seen)
    begin(prepared_run, STRONG).run()
    assert shifts == pytest.approx([STRONG.stain_shift * step / 8 for step in range(8)])


def test_a_mixed_batch_counts_both_labels(prepared_run: Path) -> None:
    """The loss is that of labels in the shares of the tiles, smoothed."""
    from torch.nn import functional

    recipe = dataclasses.replace(RECIPE, mixup=1.0, label_smoothing=0.1)
    training, seen = begin(prepared_run, recipe), []
    training.network.fc.register_forward_hook(lambda _, __, scores: seen.append(scores.detach().float()))
    rows = np.arange(7)
    training.step(rows, torch.zeros(7, 3, 32, 32, dtype=torch.uint8))
    _, own = mix(torch.zeros(7, 3, 32, 32, dtype=torch.uint8), recipe, seed=(0, 0, 0))
    hot = functional.one_hot(torch.from_numpy(training.train[1][rows]), 2).float()
    target = own * hot + (1 - own) * hot.roll(1, dims=0)
    expected = functional.cross_entropy(seen[0], target, label_smoothing=0.1)
    torch.testing.assert_close(training.metrics.pending[0][0], expected)


def test_a_stop_while_validating_is_heard(prepared_run: Path, uninterrupted: Trainer) -> None:
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


@pytest.mark.fault("another order, batch, number of workers")
@pytest.mark.parametrize(("workers", "streamed"), [(2, False), (0, True), (2, True)])
def test_workers_and_memory_do_not_change_the_result(
    prepared_run: Path,
    uninterrupted: Trainer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    workers: int,
    streamed: bool,
) -> None:
    """P6: tiles held in memory give what tiles read again in every epoch give, to the last bit."""
    if streamed:
        stream(monkeypatch)
    training = begin(prepared_run, workers=workers)
    training.run()
    assert ("decoded again in every epoch" in capsys.readouterr().err) == streamed
    assert curve(training) == curve(uninterrupted)
    assert same(outcome(training), outcome(uninterrupted))


def test_when_metrics_are_synchronized_changes_nothing(
    prepared_run: Path, uninterrupted: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SYNCHRONIZE_EVERY_S", -1)
    training = begin(prepared_run)
    training.run()
    assert curve(training) == curve(uninterrupted)


@pytest.mark.parametrize("recipe", [RECIPE, STRONG])
def test_no_step_waits_for_the_device(prepared_run: Path, monkeypatch: pytest.MonkeyPatch, recipe: Recipe) -> None:
    """Every way to a tensor's value makes the host wait, on a GPU for all steps before."""

    def waits(*_: object) -> None:
        raise AssertionError("a step asked for a value")

    training = begin(prepared_run, recipe)
    training.run()
    pixels = torch.zeros(7, 3, 32, 32, dtype=torch.uint8)
    with monkeypatch.context() as patch:
        for name in ("item", "tolist", "numpy", "cpu", "__bool__", "__float__", "__int__", "__index__"):
            patch.setattr(torch.Tensor, name, waits)
        training.step(np.arange(7), pixels)
        training.step(np.arange(7), pixels)
    assert training.state.seen == 0
    training.synchronize()
    assert training.state.seen == 14


def test_a_stop_while_tiles_are_decoded_is_heard(
    prepared_run: Path, uninterrupted: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = begin(prepared_run)
    load = pixel_cache.load_batches

    def stopped(tiles: TileFiles, batches: list, *, workers: int) -> object:
        os.kill(os.getpid(), signal.SIGTERM)
        yield from load(tiles, batches, workers=workers)

    with monkeypatch.context() as patch:
        patch.setattr(pixel_cache, "load_batches", stopped)
        with pytest.raises(Interrupted, match="training saved in"):
            first.run()
    second = begin(prepared_run)
    assert second.resume()
    assert (second.state.epoch, second.state.step) == (0, 0)
    second.run()
    assert same(outcome(second), outcome(uninterrupted))


def test_a_finished_training_decodes_nothing(prepared_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = begin(prepared_run)
    training.state.epoch = 2
    monkeypatch.delattr(pixel_cache, "load_batches")
    training.run()


def test_a_save_within_an_epoch_by_time(prepared_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAVE_EVERY_S", -1)
    training = begin(prepared_run)
    seen = []
    after_step(training, 2, lambda: seen.append(begin(prepared_run)))
    after_step(training, 2, lambda: seen[0].resume())
    training.run()
    assert (seen[0].state.epoch, seen[0].state.step) == (0, 1)


@pytest.mark.fault("kill -9 of a process that decodes tiles")
@pytest.mark.parametrize("streamed", [True, False])
def test_a_lost_worker_costs_nothing(
    prepared_run: Path, uninterrupted: Trainer, monkeypatch: pytest.MonkeyPatch, streamed: bool
) -> None:
    first = begin(prepared_run)
    load = pixel_cache.load_batches

    def losing(tiles: TileFiles, batches: list, *, workers: int) -> object:
        yield from load(tiles, batches[:2], workers=workers)
        raise WorkerLost("a worker process ended")

    with monkeypatch.context() as patch:
        patch.setattr(pixel_cache, "load_batches", losing)
        if streamed:
            stream(patch)
        with pytest.raises(WorkerLost):
            first.run()
    second = begin(prepared_run)
    second.resume()
    assert second.state.step == (2 if streamed else 0)
    second.run()
    assert same(outcome(second), outcome(uninterrupted))


def test_auto_precision_goes_on_as_it_began(prepared_run: Path) -> None:
    """A busy machine may time the two otherwise; a training must not be refused for it."""
    first = begin(prepared_run, options={"precision": "auto"})
    first.checkpoint.identity["precision"] = "bf16"
    first.save()
    second = begin(prepared_run, options={"precision": "auto"})
    assert second.resume()
    assert second.precision == "bf16"


def poison(training: Trainer) -> None:
    """Make a weight infinite, as a step that is too long does."""
    with torch.no_grad():
        training.network.fc.weight[0, 0] = float("nan")


@pytest.mark.fault("a loss or weight that is not finite")
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


@pytest.mark.fault("a loss or weight that is not finite")
def test_a_loss_that_is_not_finite_is_never_saved(prepared_run: Path) -> None:
    """Steps that were not looked at yet are looked at before they are saved; the first bad one is named."""
    training = begin(prepared_run)
    training.save()
    before = training.checkpoint.path.read_bytes()
    after_step(training, 1, lambda: poison(training))
    after_step(training, 3, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(PipelineError, match=r"the loss became .* in epoch 1, step 2: no epoch was finished before"):
        training.run()
    assert training.checkpoint.path.read_bytes() == before


@pytest.mark.fault("a loss or weight that is not finite")
def test_weights_that_are_not_finite_are_never_saved(prepared_run: Path) -> None:
    """The last step's own loss was good."""
    training = begin(prepared_run)
    training.save()
    before = training.checkpoint.path.read_bytes()
    after_step(training, 1, lambda: (poison(training), os.kill(os.getpid(), signal.SIGINT)))
    with pytest.raises(PipelineError, match=r"a weight became infinite or not a number in epoch 1, step 1"):
        training.run()
    assert training.checkpoint.path.read_bytes() == before


@pytest.mark.fault("a loss or weight that is not finite")
def test_a_validation_loss_that_is_not_finite(prepared_run: Path) -> None:
    training = begin(prepared_run)
    training.validate = lambda: (float("nan"), 0.5)  # type: ignore[method-assign]
    with pytest.raises(PipelineError, match=r"the validation loss became .* no epoch was finished before"):
        training.run()
    assert not training.checkpoint.path.exists()


def torch_finds_no_space(content: object, file: object) -> None:
    """Fail as torch 2.15 does: its own RuntimeError follows on the system's error."""
    try:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError:
        raise RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 640 vs 598")  # noqa: B904


def system_finds_no_space(content: object, file: object) -> None:
    """Fail as the system does."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.fault("full disk, in every writer")
@pytest.mark.parametrize("fail", [torch_finds_no_space, system_finds_no_space])
def test_a_full_disk_leaves_the_former_checkpoint(
    prepared_run: Path, monkeypatch: pytest.MonkeyPatch, fail: object
) -> None:
    """P1."""
    training = begin(prepared_run)
    training.save()
    before = training.checkpoint.path.read_bytes()
    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(DiskFull, match=r"checkpoint\.pt: no space left") as caught:
        training.run()
    assert "\n" not in str(caught.value)
    assert training.checkpoint.path.read_bytes() == before
    assert not list(prepared_run.glob(".*.tmp"))


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_tile_that_changed_stops_the_training(
    prepared_run: Path, monkeypatch: pytest.MonkeyPatch, streamed: bool, split: str
) -> None:
    if streamed:
        stream(monkeypatch)
    training = begin(prepared_run)
    files, _ = getattr(training, split)
    (files.root / files.paths[-1]).write_bytes(b"no image")
    with pytest.raises(BadInput, match=r"not a readable .*pipeline\.prepare --restart"):
        training.run()


def test_every_epoch_has_its_own_order(prepared_run: Path) -> None:
    training = begin(prepared_run)
    orders = [np.concatenate(training.epoch_batches(epoch)) for epoch in (0, 1)]
    assert [len(step) for step in training.epoch_batches(0)] == [7, 7, 7, 3]
    assert all(sorted(order) == list(range(24)) for order in orders)
    assert not np.array_equal(*orders)
    assert np.array_equal(orders[0], np.concatenate(training.epoch_batches(0)))


@pytest.mark.fault("odd sizes and numbers of tiles")
def test_a_last_batch_of_one_tile_is_left_out(prepared_run: Path) -> None:
    """Batch normalisation sees no spread in it."""
    training = begin(prepared_run, Recipe(tile_px=32, epochs=1, batch_size=23))
    assert [len(step) for step in training.epoch_batches(0)] == [23]
    training.run()
    assert 0 <= training.state.history[0]["train_accuracy"] <= 1


def test_the_loop_is_the_tutorials_plain_loop(prepared_run: Path) -> None:
    """The same tiles, order and flips through torchvision's network, plain Adam and StepLR give the same weights."""
    from torch.nn import functional

    from pipeline.network.batches import load_batches, normalise

    training = begin(prepared_run)
    training.run()

    network = build_network("resnet10", n_classes=2, seed=0).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=RECIPE.lr_step, gamma=0.1)
    tiles, labels = training.train
    for epoch, row in enumerate(training.state.history):
        network.train()
        losses, hits = [], 0
        for step, batch in enumerate(load_batches(tiles, training.epoch_batches(epoch), workers=0)):
            coins = np.random.default_rng([0, epoch, step]).random((2, len(batch.rows))) < 0.5
            flips = [[axis for axis, coin in zip((2, 1), pair, strict=True) if coin] for pair in coins.T]
            pixels = torch.stack([tile.flip(axes) for tile, axes in zip(batch.pixels, flips, strict=True)])
            scores = network(normalise(pixels, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)))
            optimizer.zero_grad()
            target = torch.from_numpy(labels[batch.rows])
            each = functional.cross_entropy(scores, target, reduction="none")
            each.mean().backward()
            optimizer.step()
            losses += each.tolist()
            hits += int((scores.argmax(1) == target).sum())
        schedule.step()
        assert row["train_loss"] == pytest.approx(np.mean(losses), rel=1e-3)
        assert row["train_accuracy"] == hits / 24
    ours = training.network.state_dict()
    apart = torch.cat([(ours[name] - value).abs().double().flatten() for name, value in network.state_dict().items()])
    # a step is 1e-3 long; where a gradient is nothing but rounding, Adam takes whole ones in either direction
    assert (apart > 5e-5).double().mean() < 1e-5
    assert apart.median() < 1e-7


def test_the_rate_is_that_of_the_steps(prepared_run: Path) -> None:
    training = begin(prepared_run)
    training.run()
    for row in training.state.history:
        assert row["images_per_second"] == pytest.approx(24 / row["seconds"], rel=0.02)


def test_saves_and_validation_do_not_count_as_time(prepared_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(module, "SAVE_EVERY_S", 15)
    training = begin(prepared_run, Recipe(tile_px=32, epochs=1, batch_size=7))
    write, validate, step = training.checkpoint.write, training.validate, training.step

    def takes(seconds: float, work: object) -> object:
        def timed(*words: object) -> object:
            clock[0] += seconds
            return work(*words)  # type: ignore[operator]

        return timed

    training.step = takes(10, step)  # type: ignore[method-assign, assignment]
    training.checkpoint.write = takes(100, write)  # type: ignore[method-assign, assignment]
    training.validate = takes(1000, validate)  # type: ignore[method-assign, assignment]
    training.run()
    assert training.state.history[0]["seconds"] == 40
    assert clock[0] == 40 + 1000 + 3 * 100  # after the second and the fourth step, and at the epoch's end


def test_no_timing_chooses_kernels(prepared_run: Path) -> None:
    """P6: cuDNN's benchmark would choose by what is fastest at the moment."""
    assert not torch.backends.cudnn.benchmark
    training = begin(prepared_run)
    seen = []
    after_step(training, 1, lambda: seen.append(torch.backends.cudnn.benchmark))
    training.run()
    assert seen == [False]


def test_the_fused_update_is_adams(prepared_run: Path) -> None:
    """From the same gradients, those of the network's own loss."""
    training = begin(prepared_run)
    assert training.train_step.optimizer.param_groups[0]["fused"]
    ours = list(training.network.parameters())
    plain = [torch.nn.Parameter(value.detach().clone()) for value in ours]
    reference = torch.optim.Adam(plain, lr=RECIPE.lr, fused=False, foreach=False)
    pixels = torch.randint(0, 256, (7, 32, 32, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    for _ in range(10):
        training.step(np.arange(7), pixels)
        for one, other in zip(ours, plain, strict=True):
            assert one.grad is not None
            assert one.grad.stride() == one.stride(), "the fused kernel takes them for alike"
            other.grad = one.grad.clone()
        reference.step()
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


@pytest.mark.slow  # torch takes a minute for the kernels
@pytest.mark.skipif(not (shutil.which("c++") or shutil.which("g++")), reason="torch.compile needs a C++ compiler")
def test_compiled_steps_learn_what_plain_ones_learn(prepared_run: Path) -> None:
    plain, compiled = begin(prepared_run), begin(prepared_run, compiled=True)
    before = {name: value.clone() for name, value in compiled.network.state_dict().items()}
    compiled.train_step.compile()
    assert all(torch.equal(value, before[name]) for name, value in compiled.network.state_dict().items())
    plain.run()
    (prepared_run / "checkpoint.pt").unlink()
    compiled.run()
    for ours, theirs in zip(curve(compiled), curve(plain), strict=True):
        # what rounding does to a loss that is nearly 0 grows from step to step
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-3, abs=1e-3)
        assert ours["val_loss"] == pytest.approx(theirs["val_loss"], rel=0.05, abs=5e-3)


def test_no_compiler_is_one_line(prepared_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> object:
        def work(pixels: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("InductorError: no working C++ compiler\nand much more")

        return work

    monkeypatch.setattr(torch, "compile", refuse)
    with pytest.raises(PipelineError, match=r"--compiled: torch.compile does not work here .*no working C"):
        begin(prepared_run, compiled=True).run()
