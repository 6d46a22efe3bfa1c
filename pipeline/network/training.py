"""The training loop: epochs of steps, a validation pass after each, a checkpoint from which any stop continues.

What a step does depends on (seed, epoch, step) alone - order of tiles, flips - so that a run that was stopped and
continued takes the same steps as one that was not.
"""

import dataclasses
import math
import time
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torchvision.models.resnet import ResNet

from pipeline.cli.options import say
from pipeline.cli.progress import progress
from pipeline.cli.signals import StopRequest
from pipeline.errors import BadArtifact, BadInput, PipelineError, StaleInput, WorkerLost
from pipeline.network.batches import Batch, TileFiles, load_batches, normalise, random_flips
from pipeline.network.precision import Precision, autocast
from pipeline.storage import artifacts
from pipeline.storage.models import Preprocess

SAVE_EVERY_S = 600
"""Time between checkpoints within an epoch: what a kill -9 can cost."""

EVAL_BATCH = 64


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is trained."""

    tile_px: int
    epochs: int
    batch_size: int = 32
    lr: float = 1e-3
    """Of Adam."""
    lr_step: int = 7
    """Epochs between drops of the learning rate."""
    lr_gamma: float = 0.1
    """Factor of each drop."""


RECIPES = {
    "tutorial": Recipe(tile_px=150, epochs=15),
    "quick": Recipe(tile_px=96, epochs=8, lr_step=5),
}
"""tutorial: Adam 1e-3, StepLR x0.1 every 7 epochs, 15 epochs, flips, 150 px. quick: minutes on two cores (demo)."""


@dataclasses.dataclass
class Progress:
    """Everything that a checkpoint holds beside the tensors; plain values only."""

    epoch: int = 0
    """Epochs finished."""
    step: int = 0
    """Steps finished in the epoch under way."""
    loss_sum: float = 0.0
    hits: int = 0
    seen: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)
    best_epoch: int = 0
    best_accuracy: float = -1.0
    best_loss: float = math.inf


def _differences(now: Mapping[str, Any], then: Mapping[str, Any]) -> list[str]:
    """Return "name (then, now value)" for each value of `now`, nested ones by their own names, that was another."""
    found: list[str] = []
    for name, value in now.items():
        if isinstance(value, Mapping) and isinstance(then.get(name), Mapping):
            found += _differences(value, then[name])
        elif value != then.get(name):
            found.append(f"{name} ({then.get(name)}, now {value})")
    return found


class Training:
    """One network's training, resumable at any step.

    Args:
        network: on its device, channels_last.
        train: the training tiles and their class codes.
        val: likewise, for the choice of the epoch.
        recipe: how to train.
        preprocess: mean and std of the input.
        precision: fp32 or bf16 autocast.
        seed: of tile order and flips.
        workers: decoding processes.
        checkpoint: the file to save to and continue from.
        identity: what a checkpoint must agree with to be continued (plain values).
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
    ) -> None:
        self.network, self.recipe, self.preprocess, self.precision = network, recipe, preprocess, precision
        self.train, self.val = train, val
        self.seed, self.workers = seed, workers
        self.checkpoint, self.identity = checkpoint, {**identity, "precision": precision}
        self.device = next(network.parameters()).device
        self.optimizer = torch.optim.Adam(network.parameters(), lr=recipe.lr)
        self.schedule = torch.optim.lr_scheduler.StepLR(self.optimizer, recipe.lr_step, recipe.lr_gamma)
        self.state = Progress()
        self.best: dict[str, torch.Tensor] = {}
        self.saved = time.monotonic()

    # -- checkpoint ------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write the checkpoint atomically: tensors and plain Python, loadable with weights_only.

        Raises:
            PipelineError: a weight is not finite (the next loss would show it); the former checkpoint stays.
            DiskFull: no space; likewise.
        """
        if not all(bool(torch.isfinite(value).all()) for value in self.network.state_dict().values()):
            raise self.broken("a weight")
        content = {
            "identity": self.identity,
            "progress": dataclasses.asdict(self.state),
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "best": self.best,
        }
        with artifacts.atomic(self.checkpoint) as temporary, temporary.open("wb") as file:
            torch.save(content, file)  # given a path, torch would not say why it cannot write
        self.saved = time.monotonic()

    def resume(self) -> bool:
        """Continue from the checkpoint if there is one; tell whether there was.

        Raises:
            StaleInput: it belongs to a training with another manifest or other options.
            BadArtifact: it cannot be read.
        """
        if not self.checkpoint.is_file():
            return False
        try:
            with zipfile.ZipFile(self.checkpoint) as members:  # torch.load does not look at the checksums
                if damaged := members.testzip():
                    raise zipfile.BadZipFile(f"the checksum of {damaged} does not hold")
            content = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
            theirs = content["identity"]
            if theirs.get("options", {}).get("precision") == "auto":
                # auto is decided by timing, which a busy machine can turn: go on as the training began
                self.precision = self.identity["precision"] = theirs["precision"]
            changed = _differences(self.identity, theirs)
            if not changed:
                self.network.load_state_dict(content["network"])
                self.optimizer.load_state_dict(content["optimizer"])
                self.schedule.load_state_dict(content["schedule"])
                self.state = Progress(**content["progress"])
                self.best = content["best"]
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  (torch raises many kinds for a damaged file)
            reason = " ".join(str(error).split())[:120]
            raise BadArtifact(f"{self.checkpoint}: cannot be read ({reason}): pass --restart to train anew") from None
        if changed:
            raise StaleInput(
                f"{self.checkpoint} belongs to a training with another {', '.join(changed)}: "
                "give the same options, or --restart to train anew"
            )
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
            PipelineError: the loss is no longer finite; the checkpoint keeps the last good state.
            BadInput: a training tile can no longer be read.
            WorkerLost: a process that decodes tiles died; saved.
        """
        with StopRequest() as stop:
            try:
                while self.state.epoch < self.recipe.epochs:
                    self.run_epoch(stop)
            except WorkerLost:
                self.save()  # it comes between two steps
                raise

    def run_epoch(self, stop: StopRequest) -> None:
        """Take the steps of the epoch that are left, validate, save; raises as `run` does."""
        steps = self.epoch_batches(self.state.epoch)
        label = f"epoch {self.state.epoch + 1}/{self.recipe.epochs}"
        with progress(len(self.train[0]), unit="tile", label=label, done=self.state.seen) as bar:
            for batch in load_batches(self.train[0], steps[self.state.step :], workers=self.workers):
                start = time.monotonic()
                self.step(batch)
                self.state.seconds += time.monotonic() - start
                bar.update(len(batch.rows))
                bar.set_postfix_str(f"loss {self.state.loss_sum / self.state.seen:.3f}", refresh=False)
                if stop.signum or time.monotonic() - self.saved > SAVE_EVERY_S:
                    self.save()
                if stop.signum:
                    raise stop.interrupted(f"training saved in {self.checkpoint}")
        self.finish_epoch()
        self.save()
        if stop.signum:
            raise stop.interrupted(f"training saved in {self.checkpoint}")

    def inputs(self, batch: Batch, labels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a batch's uint8 pixels and class codes on the device.

        Raises:
            BadInput: a tile of the manifest can no longer be read.
        """
        for problem in filter(None, batch.problems):
            raise BadInput(f"{problem}: run `python -m pipeline.prepare --restart`, then train again")
        return batch.pixels.to(self.device), torch.from_numpy(labels[batch.rows]).to(self.device)

    def broken(self, what: str) -> PipelineError:
        """Return the error for a training that diverged: `what` is no longer finite."""
        kept = f"the best model so far is in {self.checkpoint}" if self.best else "no epoch was finished before"
        return PipelineError(
            f"{what} became infinite or not a number in epoch {self.state.epoch + 1}, step {self.state.step + 1}: "
            f"{kept}; train anew with a lower --lr and --restart"
        )

    def step(self, batch: Batch) -> None:
        """Take one step of Adam on one batch and count it.

        Raises:
            PipelineError: the loss is not finite; neither weights nor counts are changed.
        """
        pixels, target = self.inputs(batch, self.train[1])
        pixels = random_flips(pixels, seed=(self.seed, self.state.epoch, self.state.step))
        self.network.train()
        with autocast(self.device, self.precision):
            scores = self.network(normalise(pixels, mean=self.preprocess.mean, std=self.preprocess.std))
        loss = functional.cross_entropy(scores.float(), target)
        value = loss.item()
        if not math.isfinite(value):
            raise self.broken("the loss")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        n = len(batch.rows)
        self.state.loss_sum += value * n
        self.state.hits += int((scores.argmax(1) == target).sum())
        self.state.seen += n
        self.state.step += 1

    @torch.inference_mode()
    def validate(self) -> tuple[float, float]:
        """Return (mean cross-entropy, accuracy) on the validation tiles."""
        self.network.eval()
        tiles, labels = self.val
        rows = np.arange(len(tiles))
        loss_sum, hits = 0.0, 0
        steps = [rows[start : start + EVAL_BATCH] for start in range(0, len(rows), EVAL_BATCH)]
        for batch in load_batches(tiles, steps, workers=self.workers):
            pixels, target = self.inputs(batch, labels)
            with autocast(self.device, self.precision):
                scores = self.network(normalise(pixels, mean=self.preprocess.mean, std=self.preprocess.std))
            loss_sum += float(functional.cross_entropy(scores.float(), target, reduction="sum"))
            hits += int((scores.argmax(1) == target).sum())
        return loss_sum / len(tiles), hits / len(tiles)

    def finish_epoch(self) -> None:
        """Validate, write the epoch into the history, keep the best weights, begin the next epoch."""
        state = self.state
        lr = self.optimizer.param_groups[0]["lr"]
        val_loss, val_accuracy = self.validate()
        if not math.isfinite(val_loss):
            raise self.broken("the validation loss")
        with warnings.catch_warnings():  # continued at an epoch's end, torch misses the step that it did not see
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step", category=UserWarning)
            self.schedule.step()
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
                "images_per_second": round(state.seen / max(state.seconds, 1e-9), 3),
            }
        )
        say(
            f"train: epoch {state.epoch}/{self.recipe.epochs}: loss {state.loss_sum / state.seen:.3f}, validation loss "
            f"{val_loss:.3f}, accuracy {val_accuracy:.3f}, {state.seen / max(state.seconds, 1e-9):.1f} tiles/s"
        )
        if (val_accuracy, -val_loss) > (state.best_accuracy, -state.best_loss):
            state.best_epoch, state.best_accuracy, state.best_loss = state.epoch, val_accuracy, val_loss
            self.best = {name: value.detach().cpu().clone() for name, value in self.network.state_dict().items()}
        state.step, state.loss_sum, state.hits, state.seen, state.seconds = 0, 0.0, 0, 0, 0.0
