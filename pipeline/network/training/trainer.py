"""Train a network: epochs of steps, a validation after each epoch, and a checkpoint to continue from.

A step depends on (seed, epoch, step) alone: order of tiles, augmentation, learning rate. A training that was stopped
and continued therefore takes the same steps as one that was not, and cached tiles give the same as streamed tiles.

No step waits for the device. The metrics of the steps stay on the device until they are synchronized, once a second and
before every checkpoint.

Several processes of torchrun train one network together, each on its share of every batch. Between any two steps they
agree whether to synchronize, to save and to stop. The first process writes.
"""

import contextlib
import functools
import math
import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from pipeline.errors import PipelineError, WorkerLost
from pipeline.network.distributed import Ranks
from pipeline.network.precision import Precision
from pipeline.network.resnet import ResNet
from pipeline.network.training.checkpoint import SAVE_EVERY_S, Checkpoint, Progress, Stateful, Weights
from pipeline.network.training.pixel_cache import CachedTiles, StreamedTiles, in_step, open_tile_sources
from pipeline.network.training.precise_norms import estimate_norms
from pipeline.network.training.setup import LabelledTiles, TrainingSetup
from pipeline.network.training.step import TrainStep, validate
from pipeline.network.training.step_metrics import StepMetrics
from pipeline.runtime.console import log
from pipeline.runtime.progress import progress
from pipeline.runtime.signals import StopRequest

SYNCHRONIZE_EVERY_S = 1.0
"""Time between readings of the metrics, and the longest time until a divergence is noticed."""


class Trainer:
    """Train one network, resumable at any step.

    Args:
        network: network on its device, channels_last.
        train: the training tiles.
        val: the tiles that choose the epoch.
        setup: how to train.
    """

    def __init__(self, network: ResNet, train: LabelledTiles, val: LabelledTiles, setup: TrainingSetup) -> None:
        self.network, self.train, self.val, self.setup = network, train, val, setup
        self.recipe, self.ranks = setup.recipe, Ranks()
        self.train_step = TrainStep(
            network,
            recipe=setup.recipe,
            preprocess=setup.preprocess,
            precision=setup.precision,
            seed=setup.seed,
            ranks=self.ranks,
        )
        self.device, self.eval_network = self.train_step.device, self.train_step.eval_network
        parts: dict[str, Stateful] = {"network": network, "optimizer": self.train_step.optimizer}
        if self.train_step.average is not None:
            parts["average"] = self.train_step.average.network
        identity = {**setup.identity, "precision": setup.precision}
        self.checkpoint = Checkpoint(setup.checkpoint, identity=identity, parts=parts)
        self.state, self.metrics = Progress(), StepMetrics(self.ranks)
        self.best: Weights = {}
        self.sources: dict[str, CachedTiles | StreamedTiles] = {}  # of train and val, opened by `run`
        self.saved = time.monotonic()

    @property
    def precision(self) -> Precision:
        """Precision of the computation."""
        return self.train_step.precision

    # -- the loop ------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Train to the last epoch, from wherever the state is.

        Raises:
            Interrupted: SIGINT or SIGTERM; saved.
            PipelineError: the loss is no longer finite, or the device's memory does not hold a step; the checkpoint
                keeps the last good state.
            BadInput: a tile is unreadable or has changed.
            WorkerLost: a process that decodes tiles died; saved.
            RuntimeError: torch's own, of another process that ended (`distributed.peer_errors_as_one_line`).
        """
        if self.state.epoch == self.recipe.epochs:
            return
        if self.setup.compiled:
            self.train_step.compile()
        with StopRequest(echoes=self.ranks.n > 1) as stop, self.errors_handled():
            splits = {"train": self.train[0], "val": self.val[0]}
            self.sources = open_tile_sources(
                splits,
                self.device,
                workers=self.setup.workers,
                stop_if_requested=lambda: self.stop_if_requested(stop),
            )
            while self.state.epoch < self.recipe.epochs:
                self.run_epoch(stop)

    def run_epoch(self, stop: StopRequest) -> None:
        """Take the steps of the epoch that are left, validate, save; raises as `run` does."""
        state, steps = self.state, self.epoch_batches(self.state.epoch)[self.state.step :]
        label = f"epoch {state.epoch + 1}/{self.recipe.epochs}"
        self.metrics.restart()
        with progress(len(self.train[0]), unit="tile", label=label, done=state.seen) as bar:
            for rows, pixels in zip(steps, self.pixels_of(steps, stop), strict=True):
                self.step(rows, pixels)
                bar.update(len(rows))
                if state.seen:
                    bar.set_postfix_str(f"loss {state.loss_sum / state.seen:.3f}", refresh=False)
        self.synchronize()
        self.finish_epoch()
        self.save()
        if self.setup.log is not None and self.ranks.is_first:
            self.setup.log.write(state.history)
        self.checkpoint_if_due(stop)

    def pixels_of(self, steps: Sequence[np.ndarray], stop: StopRequest) -> Iterator[torch.Tensor]:
        """Return this process's tiles of each step; `checkpoint_if_due` before each step and after the last one."""
        batches = self.sources["train"].batches([rows[self.train_step.places(len(rows))] for rows in steps])
        return in_step(batches, functools.partial(self.checkpoint_if_due, stop))

    def step(self, rows: np.ndarray, pixels: torch.Tensor) -> None:
        """Take one step of the recipe on one batch; its metrics are synchronized later.

        Args:
            rows: (B,) row numbers of the training tiles.
            pixels: (P, 3, size, size) uint8, channels_last, of those in this process's `places`.
        """
        state, labels = self.state, self.train[1][rows]
        loss, n_correct, own = self.train_step.step(
            pixels, labels, epoch=state.epoch, step=state.step, steps=self.steps_per_epoch
        )
        self.metrics.add(loss, n_correct, own, len(rows))
        state.step += 1

    def epoch_batches(self, epoch: int) -> list[np.ndarray]:
        """Return the row numbers of each step of an epoch (counted from 0).

        A last batch of one tile is left out: batch normalisation cannot see a spread in it. Every epoch has another
        order, so that it is another tile each time.
        """
        order = np.random.default_rng([self.setup.seed, epoch]).permutation(len(self.train[0]))
        size = self.recipe.batch_size
        steps = [order[start : start + size] for start in range(0, len(order), size)]
        return steps if len(steps[-1]) > 1 else steps[:-1]

    @functools.cached_property
    def steps_per_epoch(self) -> int:
        """The number of steps, the same in every epoch."""
        return len(self.epoch_batches(0))

    # -- metrics and validation ----------------------------------------------------------------------------------------

    def synchronize(self) -> None:
        """Wait for the steps taken and add their metrics to the epoch's sums; all processes do it together.

        Raises:
            PipelineError: a loss is not finite; names the first such step.
        """
        step = self.metrics.synchronize(self.state)
        if step is not None:
            raise self.diverged("the loss", step)

    def validate(self) -> tuple[float, float]:
        """Return (mean cross-entropy without smoothing, accuracy) on the validation tiles."""
        return validate(self.train_step, self.sources["val"], self.val[1])

    def finish_epoch(self) -> None:
        """Validate, add the epoch to the history, keep the best weights, begin the next epoch."""
        state = self.state
        if self.recipe.norm_tiles:
            estimate_norms(self.train_step, self.sources["train"], len(self.train[0]))
        lr = self.train_step.optimizer.param_groups[0]["lr"]
        val_loss, val_accuracy = self.validate()
        if not math.isfinite(val_loss):
            raise self.diverged("the validation loss", state.step)
        if state.finish_epoch(lr=lr, val_loss=val_loss, val_accuracy=val_accuracy):
            self.best = {name: value.detach().cpu().clone() for name, value in self.eval_network.state_dict().items()}
        row = state.history[-1]
        log.info(
            f"train: epoch {state.epoch}/{self.recipe.epochs}: loss {row['train_loss']:.3f}, validation loss "
            f"{val_loss:.3f}, accuracy {val_accuracy:.3f}, {row['images_per_second']:.1f} tiles/s"
        )

    # -- checkpoints and stops -----------------------------------------------------------------------------------------

    def checkpoint_if_due(self, stop: StopRequest, lost: WorkerLost | None = None) -> None:
        """Synchronize, save and stop between two steps, all processes together, if one of the processes has a reason.

        Args:
            stop: whether this process has to stop.
            lost: the error of this process, if it lost a worker.

        Raises:
            WorkerLost: one of the processes lost a worker; `run` saves.
            Interrupted: a process was stopped; saved.
            PipelineError: as `save`.
        """
        now = time.monotonic()
        reasons = [
            stop.signum,
            lost is not None,
            now - self.metrics.synchronized > SYNCHRONIZE_EVERY_S,
            now - self.saved > SAVE_EVERY_S,
        ]
        signum, is_lost, must_synchronize, must_save = self.ranks.highest(reasons)
        if is_lost:
            self.ranks.raise_lost(lost)
        if must_synchronize:
            self.synchronize()
        if signum:  # a signal that only this process got since then is handled before the next step
            stop.signum = signum
            self.stop_if_requested(stop)
        if must_save:
            self.save()

    def stop_if_requested(self, stop: StopRequest) -> None:
        """Save and raise Interrupted if a stop was requested."""
        if stop.signum:
            self.save()
            raise stop.interrupted(f"training saved in {self.checkpoint.path}")

    def save(self) -> None:
        """Write the checkpoint after synchronizing all steps.

        Raises:
            PipelineError: a loss or a weight is not finite; the former checkpoint stays.
            DiskFull: no space; the former checkpoint stays.
        """
        self.synchronize()
        weights = self.network.state_dict().values()
        if not bool(torch.stack([torch.isfinite(value).all() for value in weights]).all()):
            raise self.diverged("a weight", self.state.step)
        if self.ranks.is_first:
            self.checkpoint.write(self.state, self.best)
        self.metrics.restart()
        self.saved = time.monotonic()

    def resume(self) -> bool:
        """Continue from the checkpoint if there is one; return whether there was.

        Raises:
            StaleInput: it belongs to a training with another manifest or other options.
            BadArtifact: it cannot be read.
            PipelineError: the first process found another one, on another machine.
        """
        found = self.checkpoint.read()
        if found is not None:
            self.state, self.best = found
            self.train_step.precision = self.checkpoint.identity["precision"]
        here = f"epoch {self.state.epoch + 1}, step {self.state.step}"
        first = self.ranks.broadcast_from_first(here)
        if first != here:
            raise PipelineError(
                f"{self.checkpoint.path}: this process is at {here} of the training, the first process at {first}: "
                "all machines must see one run folder; run the same command again"
            )
        return found is not None

    @contextlib.contextmanager
    def errors_handled(self) -> Iterator[None]:
        """Save after the loss of a worker, and turn a full memory into one line."""
        try:
            yield
        except WorkerLost:
            self.save()  # between two steps
            raise
        except torch.OutOfMemoryError as error:
            raise self.too_large(error) from None

    def diverged(self, what: str, step: int) -> PipelineError:
        """Return the error for a value that is not finite; `what` is its name, `step` 0 means before the first step."""
        kept = f"the best model so far is in {self.checkpoint.path}" if self.best else "no epoch was finished before"
        return PipelineError(
            f"{what} became infinite or not a number in epoch {self.state.epoch + 1}, step {step}: "
            f"{kept}; train again with a lower --lr and --restart"
        )

    def too_large(self, error: torch.OutOfMemoryError) -> PipelineError:
        """Return the error for a step that does not fit into the device's memory; the step is not saved."""
        reason = (str(error).splitlines() or ["no size given"])[0]
        return PipelineError(
            f"the memory of {self.device} is too small for a step of {self.recipe.batch_size} tiles of "
            f"{self.setup.preprocess.size} px ({reason}): lower --batch-size, with --restart if the training had begun"
        )
