"""The training loop: epochs of steps, a validation pass after each, a checkpoint from which any stop continues.

What a step does depends on (seed, epoch, step) alone - order of tiles, augmentation, learning rate - so that a run that
was stopped and continued takes the same steps as one that was not, and tiles held in memory give the same as tiles read
again.

No step waits for the device: what the steps say (loss, hits) stays there until it is looked at, once a second and
before every save.
"""

import functools
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torchvision.models.resnet import ResNet

from pipeline.cli.options import say
from pipeline.cli.progress import progress
from pipeline.cli.signals import StopRequest
from pipeline.errors import PipelineError, WorkerLost
from pipeline.network.augmentation import augment, draw, mix
from pipeline.network.averaging import Average
from pipeline.network.batches import TileFiles, normalise, to_device
from pipeline.network.checkpoint import Checkpoint, Progress, Stateful, Weights
from pipeline.network.compiling import compile_steps
from pipeline.network.held import Held, Streamed, supply
from pipeline.network.optimising import build_optimizer, learning_rate
from pipeline.network.pace import share_of_limit
from pipeline.network.precision import Precision, autocast
from pipeline.network.recipe import Recipe
from pipeline.storage.models import Preprocess

SAVE_EVERY_S = 600
"""Time between checkpoints within an epoch: what a kill -9 can cost."""

LOOK_EVERY_S = 1.0
"""Time between looks at what the steps said; also the longest that a training which diverged goes on."""

EVAL_BATCH = 64


class Training:
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
        compiled: whether full steps run through torch.compile, on CUDA as CUDA graphs.
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
        self.network, self.recipe, self.preprocess, self.precision = network, recipe, preprocess, precision
        self.train, self.val = train, val
        self.seed, self.workers = seed, workers
        self.device = next(network.parameters()).device
        self.optimizer = build_optimizer(network, recipe)
        self.average = Average(network, recipe.ema) if recipe.ema else None
        self.judged = network if self.average is None else self.average.network
        """The network that is validated and kept."""
        parts: dict[str, Stateful] = {"network": network, "optimizer": self.optimizer}
        if self.average is not None:
            parts["average"] = self.average.network
        self.checkpoint = Checkpoint(checkpoint, identity={**identity, "precision": precision}, parts=parts)
        self.state = Progress()
        self.best: Weights = {}
        self.sources: dict[str, Held | Streamed] = {}
        """Of the pixels of train and val; filled by `run`."""
        self.compiled = compiled
        self.full_step_scores: dict[int, Callable[[torch.Tensor], torch.Tensor]] = {}
        """Side -> `scores` compiled for batches of the recipe's size; an epoch's last, smaller one is not worth its
        kernels."""
        self.unseen: list[tuple[torch.Tensor, torch.Tensor, int]] = []
        """Of each step that was not looked at: mean loss and hits, on the device, and its number of tiles."""
        self.looked = self.saved = time.monotonic()

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
        self.checkpoint.write(self.state, self.best)
        self.looked = self.saved = time.monotonic()

    def resume(self) -> bool:
        """Continue from the checkpoint if there is one; tell whether there was.

        Raises:
            StaleInput: it belongs to a training with another manifest or other options.
            BadArtifact: it cannot be read.
        """
        found = self.checkpoint.read()
        if found is None:
            return False
        self.state, self.best = found
        self.precision = self.checkpoint.identity["precision"]
        return True

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
        """
        if self.state.epoch == self.recipe.epochs:
            return
        if self.compiled:
            self.compile()
        before = torch.backends.cudnn.benchmark
        # on a GPU convolutions are timed once, for all steps have one shape; what timing chooses need not repeat
        torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()
        try:
            with StopRequest() as stop:
                try:
                    splits = {"train": self.train[0], "val": self.val[0]}
                    self.sources = supply(splits, self.device, workers=self.workers, heed=lambda: self.heed(stop))
                    while self.state.epoch < self.recipe.epochs:
                        self.run_epoch(stop)
                except WorkerLost:
                    self.save()  # it comes between two steps
                    raise
                except torch.OutOfMemoryError as error:
                    raise self.too_large(error) from None
        finally:
            torch.backends.cudnn.benchmark = before

    def compile(self) -> None:
        """Have full steps go through kernels of their own.

        Raises:
            PipelineError: torch cannot compile here.
        """
        say("train: compiling the network")
        for side in self.recipe.sides():
            shape = self.recipe.batch_size, 3, side, side
            self.full_step_scores[side] = compile_steps(self.scores, self.network, shape)

    def heed(self, stop: StopRequest) -> None:
        """Save and raise Interrupted if the process was asked to stop."""
        if stop.signum:
            self.save()
            raise stop.interrupted(f"training saved in {self.checkpoint.path}")

    def run_epoch(self, stop: StopRequest) -> None:
        """Take the steps of the epoch that are left, validate, save; raises as `run` does."""
        steps = self.epoch_batches(self.state.epoch)[self.state.step :]
        label = f"epoch {self.state.epoch + 1}/{self.recipe.epochs}"
        per_tile = self.limit_share()  # measured before the first epoch's clock starts
        self.looked = time.monotonic()
        with progress(len(self.train[0]), unit="tile", label=label, done=self.state.seen) as bar:
            for rows, pixels in zip(steps, self.sources["train"].batches(steps), strict=True):
                self.step(rows, pixels)
                bar.update(len(rows))
                if time.monotonic() - self.looked > LOOK_EVERY_S:
                    self.look()
                    loss = self.state.loss_sum / self.state.seen
                    share = self.rate() * per_tile
                    bar.set_postfix_str(f"loss {loss:.3f}, {share:.0%} of the chip's limit", refresh=False)
                self.heed(stop)
                if time.monotonic() - self.saved > SAVE_EVERY_S:
                    self.save()
        self.look()
        self.finish_epoch()
        self.save()
        self.heed(stop)

    def step(self, rows: np.ndarray, pixels: torch.Tensor) -> None:
        """Take one step of the recipe on one batch; what it says is looked at later.

        Args:
            rows: (B,) row numbers of the training tiles.
            pixels: (B, 3, size, size) uint8, channels_last, of these tiles.
        """
        state, recipe, side = self.state, self.recipe, self.recipe.side(self.state.epoch)
        seed = self.seed, state.epoch, state.step
        target = to_device(torch.from_numpy(self.train[1][rows]), self.device)
        pixels = augment(to_device(pixels, self.device), recipe, draw(seed, len(rows)), side=side)
        pixels, own = mix(pixels, recipe, seed=seed)
        self.network.train()
        is_full = len(rows) == recipe.batch_size
        scores = ((is_full and self.full_step_scores.get(side)) or self.scores)(pixels)
        loss = self.loss(scores, target)
        if own < 1:
            loss = own * loss + (1 - own) * self.loss(scores, target.roll(1))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(recipe, epoch=state.epoch, step=state.step, steps=self.steps_per_epoch)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(state.epoch * self.steps_per_epoch + state.step + 1)
        self.unseen.append((loss.detach(), (scores.argmax(1) == target).sum(), len(rows)))
        state.step += 1

    @functools.cached_property
    def steps_per_epoch(self) -> int:
        """As many in every epoch."""
        return len(self.epoch_batches(0))

    def loss(self, scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the mean cross-entropy that is trained on, of scores (B, K) and class codes (B,)."""
        return functional.cross_entropy(scores, target, label_smoothing=self.recipe.label_smoothing)

    def scores(self, pixels: torch.Tensor, network: ResNet | None = None) -> torch.Tensor:
        """Return a network's output (B, K), float32, for uint8 pixels on its device; by default of the trained one."""
        with autocast(self.device, self.precision):
            x = normalise(pixels, mean=self.preprocess.mean, std=self.preprocess.std)
            return (self.network if network is None else network)(x).float()

    def look(self) -> None:
        """Wait for the steps taken, add what they say to the epoch's sums, one after another, and the time to its time.

        Raises:
            PipelineError: a loss is not finite; names the first such step.
        """
        if not self.unseen:
            return
        losses, hits, sizes = zip(*self.unseen, strict=True)
        first = self.state.step - len(sizes) + 1
        self.unseen = []
        each = zip(torch.stack(losses).tolist(), torch.stack(hits).tolist(), sizes, strict=True)
        for i, (loss, right, n) in enumerate(each):
            if not math.isfinite(loss):
                raise self.broken("the loss", first + i)
            self.state.loss_sum += loss * n
            self.state.hits += right
            self.state.seen += n
        now = time.monotonic()
        self.state.seconds += now - self.looked
        self.looked = now

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

    @torch.inference_mode()
    def validate(self) -> tuple[float, float]:
        """Return (mean cross-entropy without smoothing, accuracy) on the validation tiles."""
        self.judged.eval()
        tiles, labels = self.val
        rows = np.arange(len(tiles))
        steps = [rows[start : start + EVAL_BATCH] for start in range(0, len(rows), EVAL_BATCH)]
        losses, hits = [], []
        for chosen, pixels in zip(steps, self.sources["val"].batches(steps), strict=True):
            target = to_device(torch.from_numpy(labels[chosen]), self.device)
            scores = self.scores(to_device(pixels, self.device), self.judged)
            losses.append(functional.cross_entropy(scores, target, reduction="sum"))
            hits.append((scores.argmax(1) == target).sum())
        return sum(torch.stack(losses).tolist()) / len(tiles), sum(torch.stack(hits).tolist()) / len(tiles)

    def rate(self) -> float:
        """Return the tiles per second of the epoch so far: waiting for tiles counts, validation and saves do not."""
        return self.state.seen / max(self.state.seconds, 1e-9)

    def limit_share(self) -> float:
        """Return the share of the device's limit that one tile per second takes in this epoch."""
        return share_of_limit(self.network, self.recipe.side(self.state.epoch), self.precision)

    def finish_epoch(self) -> None:
        """Validate, write the epoch into the history, keep the best weights, begin the next epoch."""
        state = self.state
        lr = self.optimizer.param_groups[0]["lr"]
        val_loss, val_accuracy = self.validate()
        if not math.isfinite(val_loss):
            raise self.broken("the validation loss", state.step)
        rate, share = self.rate(), self.rate() * self.limit_share()
        state.epoch += 1
        state.history.append(
            {
                "epoch": state.epoch,
                "lr": lr,
                "train_loss": state.loss_sum / state.seen,
                "train_accuracy": state.hits / state.seen,
                "val_loss": val_loss,
                "val_accuracy": val_accuracy,
                "seconds": round(state.seconds, 3),
                "images_per_second": round(rate, 3),
                "share_of_limit": round(share, 4),
            }
        )
        say(
            f"train: epoch {state.epoch}/{self.recipe.epochs}: loss {state.loss_sum / state.seen:.3f}, validation loss "
            f"{val_loss:.3f}, accuracy {val_accuracy:.3f}, {rate:.1f} tiles/s, {share:.0%} of the chip's limit"
        )
        if (val_accuracy, -val_loss) > (state.best_accuracy, -state.best_loss):
            state.best_epoch, state.best_accuracy, state.best_loss = state.epoch, val_accuracy, val_loss
            self.best = {name: value.detach().cpu().clone() for name, value in self.judged.state_dict().items()}
        state.step, state.loss_sum, state.hits, state.seen, state.seconds = 0, 0.0, 0, 0, 0.0
