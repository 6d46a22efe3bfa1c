"""The training loop: epochs of steps, a validation pass after each, a checkpoint from which any stop continues.

What a step does depends on (seed, epoch, step) alone - order of tiles, augmentation, learning rate - so that a run that
was stopped and continued takes the same steps as one that was not, and tiles held in memory give the same as tiles read
again.

No step waits for the device: what the steps say (loss, hits) stays there until it is looked at, once a second and
before every save.

Several processes that torchrun started train one network together, each on its share of every batch (`learning`). They
agree between any two steps whether to look, to save and to stop; the first of them writes.
"""

import functools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision.models.resnet import ResNet

from pipeline.errors import PipelineError, WorkerLost
from pipeline.network.batches import TileFiles
from pipeline.network.distributed import Ranks
from pipeline.network.model_file import Preprocess
from pipeline.network.precision import Precision
from pipeline.network.training.checkpoint import Checkpoint, Progress, Stateful, Weights
from pipeline.network.training.pixel_cache import CachedTiles, StreamedTiles, open_tile_sources
from pipeline.network.training.recipe import Recipe
from pipeline.network.training.step import TrainStep, validate
from pipeline.network.training.step_metrics import StepMetrics
from pipeline.runtime.console import log
from pipeline.runtime.progress import progress
from pipeline.runtime.signals import StopRequest

SAVE_EVERY_S = 600
"""Time between checkpoints within an epoch: what a kill -9 can cost."""

LOOK_EVERY_S = 1.0
"""Time between looks at what the steps said; also the longest that a training which diverged goes on."""


class Trainer:
    """One network's training, resumable at any step.

    Args:
        network: on its device, channels_last.
        train: the training tiles and their class codes.
        val: likewise, for the choice of the epoch.
        recipe: how to train.
        preprocess: mean and std of the input.
        precision: fp32 or bf16 autocast.
        seed: of tile order and augmentation.
        workers: decoding processes.
        checkpoint: the file to save to and continue from.
        identity: what a checkpoint must agree with to be continued (plain values).
        compiled: whether full steps run through torch.compile, on CUDA as CUDA graphs; not with several processes.
    """

    def __init__(
        self,
        network: ResNet,
        *,
        train: tuple[TileFiles, np.ndarray],
        val: tuple[TileFiles, np.ndarray],
        recipe: Recipe,
        preprocess: Preprocess,
        precision: Precision,
        seed: int,
        workers: int,
        checkpoint: Path,
        identity: Mapping[str, Any],
        compiled: bool = False,
    ) -> None:
        self.network, self.recipe, self.preprocess = network, recipe, preprocess
        self.train, self.val = train, val
        self.seed, self.workers = seed, workers
        self.ranks = Ranks()
        self.learner = TrainStep(
            network, recipe=recipe, preprocess=preprocess, precision=precision, seed=seed, ranks=self.ranks
        )
        self.device, self.eval_network = self.learner.device, self.learner.eval_network
        parts: dict[str, Stateful] = {"network": network, "optimizer": self.learner.optimizer}
        if self.learner.average is not None:
            parts["average"] = self.learner.average.network
        self.checkpoint = Checkpoint(checkpoint, identity={**identity, "precision": precision}, parts=parts)
        self.state = Progress()
        self.best: Weights = {}
        self.sources: dict[str, CachedTiles | StreamedTiles] = {}
        """Of the pixels of train and val; filled by `run`."""
        self.compiled = compiled
        self.tally = StepMetrics(self.ranks)
        self.saved = time.monotonic()

    @property
    def precision(self) -> Precision:
        """What the network computes in."""
        return self.learner.precision

    # -- checkpoint ------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write the checkpoint, every step in it looked at.

        Raises:
            PipelineError: a loss or a weight is not finite; the former checkpoint stays.
            DiskFull: no space; likewise.
        """
        self.look()
        weights = self.network.state_dict().values()
        if not bool(torch.stack([torch.isfinite(value).all() for value in weights]).all()):
            raise self.broken("a weight", self.state.step)
        if self.ranks.is_first:
            self.checkpoint.write(self.state, self.best)
        self.tally.restart()
        self.saved = time.monotonic()

    def resume(self) -> bool:
        """Continue from the checkpoint if there is one; tell whether there was.

        Raises:
            StaleInput: it belongs to a training with another manifest or other options.
            BadArtifact: it cannot be read.
            PipelineError: the first process found another one, on another machine.
        """
        found = self.checkpoint.read()
        if found is not None:
            self.state, self.best = found
            self.learner.precision = self.checkpoint.identity["precision"]
        here = f"epoch {self.state.epoch + 1}, step {self.state.step}"
        there = self.ranks.broadcast_from_first(here)
        if there != here:
            raise PipelineError(
                f"{self.checkpoint.path}: here the training stands at {here}, for the first process at {there}: "
                "all machines must see one run folder; run the same command again"
            )
        return found is not None

    # -- the loop --------------------------------------------------------------------------------------------------

    def epoch_batches(self, epoch: int) -> list[np.ndarray]:
        """Return the row numbers of each step of an epoch (counted from 0).

        A last batch of one tile is left out: batch normalisation cannot see a spread in it. Every epoch has another
        order, so that it is another tile each time.
        """
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.train[0]))
        size = self.recipe.batch_size
        steps = [order[start : start + size] for start in range(0, len(order), size)]
        return steps if len(steps[-1]) > 1 else steps[:-1]

    def run(self) -> None:
        """Train to the last epoch, from wherever the state stands.

        Raises:
            Interrupted: SIGINT or SIGTERM; saved.
            PipelineError: the loss is no longer finite, or the device's memory does not hold a step; the checkpoint
                keeps the last good state.
            BadInput: a training tile can no longer be read.
            WorkerLost: a process that decodes tiles died; saved.
            RuntimeError: torch's own, of another process that ended (`ranks.peer_errors_as_one_line`).
        """
        if self.state.epoch == self.recipe.epochs:
            return
        if self.compiled:
            self.learner.compile()
        before = torch.backends.cudnn.benchmark
        # on a GPU convolutions are timed once, for all steps have one shape; what timing chooses need not repeat
        torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()
        try:
            with StopRequest(echoes=self.ranks.n > 1) as stop:
                try:
                    splits = {"train": self.train[0], "val": self.val[0]}
                    self.sources = open_tile_sources(
                        splits,
                        self.device,
                        workers=self.workers,
                        stop_if_requested=lambda: self.stop_if_requested(stop),
                    )
                    while self.state.epoch < self.recipe.epochs:
                        self.run_epoch(stop)
                except WorkerLost:
                    self.save()  # it comes between two steps
                    raise
                except torch.OutOfMemoryError as error:
                    raise self.too_large(error) from None
        finally:
            torch.backends.cudnn.benchmark = before

    def stop_if_requested(self, stop: StopRequest) -> None:
        """Save and raise Interrupted if the process was asked to stop."""
        if stop.signum:
            self.save()
            raise stop.interrupted(f"training saved in {self.checkpoint.path}")

    def run_epoch(self, stop: StopRequest) -> None:
        """Take the steps of the epoch that are left, validate, save; raises as `run` does."""
        steps = self.epoch_batches(self.state.epoch)[self.state.step :]
        label = f"epoch {self.state.epoch + 1}/{self.recipe.epochs}"
        self.tally.restart()
        with progress(len(self.train[0]), unit="tile", label=label, done=self.state.seen) as bar:
            for rows, pixels in zip(steps, self.pixels_of(steps, stop), strict=True):
                if self.state.seen:
                    bar.set_postfix_str(f"loss {self.state.loss_sum / self.state.seen:.3f}", refresh=False)
                self.step(rows, pixels)
                bar.update(len(rows))
        self.look()
        self.finish_epoch()
        self.save()
        self.checkpoint_if_due(stop)

    def pixels_of(self, steps: Sequence[np.ndarray], stop: StopRequest) -> Iterator[torch.Tensor]:
        """Yield this process's tiles of each step; `checkpoint_if_due` before each and after the last."""
        batches = self.sources["train"].batches([rows[self.learner.places(len(rows))] for rows in steps])
        while True:
            lost = None
            try:
                pixels = next(batches, None)
            except WorkerLost as error:
                lost = error
            self.checkpoint_if_due(stop, lost)
            if pixels is None:
                return
            yield pixels

    def checkpoint_if_due(self, stop: StopRequest, lost: WorkerLost | None = None) -> None:
        """Look, save and stop between two steps, wherever one of the processes sees a reason; all do it together.

        Args:
            stop: whether this process was asked to stop.
            lost: that it lost a worker.

        Raises:
            WorkerLost: one of the processes lost a worker; `run` saves.
            Interrupted: one of them was asked to stop; saved.
            PipelineError: as `save`.
        """
        now = time.monotonic()
        reasons = [
            stop.signum,
            lost is not None,
            now - self.tally.looked > LOOK_EVERY_S,
            now - self.saved > SAVE_EVERY_S,
        ]
        signum, is_lost, is_time_to_look, is_time_to_save = self.ranks.highest(reasons)
        if is_lost:
            raise lost or WorkerLost("another process of this torchrun lost a worker: run the same command again")
        if is_time_to_look:
            self.look()
        if signum:  # what all know: a signal that came to this process alone since is heard at the next pause
            stop.signum = signum
            self.stop_if_requested(stop)
        if is_time_to_save:
            self.save()

    def step(self, rows: np.ndarray, pixels: torch.Tensor) -> None:
        """Take one step of the recipe on one batch; what it says is looked at later.

        Args:
            rows: (B,) row numbers of the training tiles.
            pixels: (P, 3, size, size) uint8, channels_last, of those in this process's `places`.
        """
        state, labels = self.state, self.train[1][rows]
        loss, hits, own = self.learner.step(
            pixels, labels, epoch=state.epoch, step=state.step, steps=self.steps_per_epoch
        )
        self.tally.add(loss, hits, own, len(rows))
        state.step += 1

    @functools.cached_property
    def steps_per_epoch(self) -> int:
        """As many in every epoch."""
        return len(self.epoch_batches(0))

    def look(self) -> None:
        """Wait for the steps taken and add what they say to the epoch's sums; all processes do it together.

        Raises:
            PipelineError: a loss is not finite; names the first such step.
        """
        step = self.tally.look(self.state)
        if step is not None:
            raise self.broken("the loss", step)

    def broken(self, what: str, step: int) -> PipelineError:
        """Return the error for a training that diverged: `what` was no longer finite at a step (0: at none yet)."""
        kept = f"the best model so far is in {self.checkpoint.path}" if self.best else "no epoch was finished before"
        return PipelineError(
            f"{what} became infinite or not a number in epoch {self.state.epoch + 1}, step {step}: "
            f"{kept}; train anew with a lower --lr and --restart"
        )

    def too_large(self, error: torch.OutOfMemoryError) -> PipelineError:
        """Return the error for a step that the device's memory does not hold; it was not taken, and is not saved."""
        reason = (str(error).splitlines() or ["no size given"])[0]
        return PipelineError(
            f"the memory of {self.device} does not hold a step of {self.recipe.batch_size} tiles of "
            f"{self.preprocess.size} px ({reason}): lower --batch-size, with --restart if the training had begun"
        )

    def validate(self) -> tuple[float, float]:
        """Return (mean cross-entropy without smoothing, accuracy) on the validation tiles."""
        return validate(self.learner, self.eval_network, self.sources["val"], self.val[1])

    def finish_epoch(self) -> None:
        """Validate, write the epoch into the history, keep the best weights, begin the next epoch."""
        state = self.state
        lr = self.learner.optimizer.param_groups[0]["lr"]
        val_loss, val_accuracy = self.validate()
        if not math.isfinite(val_loss):
            raise self.broken("the validation loss", state.step)
        is_best = state.finish_epoch(lr=lr, val_loss=val_loss, val_accuracy=val_accuracy)
        if is_best:
            self.best = {name: value.detach().cpu().clone() for name, value in self.eval_network.state_dict().items()}
        row = state.history[-1]
        log.info(
            f"train: epoch {state.epoch}/{self.recipe.epochs}: loss {row['train_loss']:.3f}, validation loss "
            f"{val_loss:.3f}, accuracy {val_accuracy:.3f}, {row['images_per_second']:.1f} tiles/s"
        )
