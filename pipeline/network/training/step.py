"""Run one optimizer step of a training, and the validation of an epoch."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from pipeline.network.batches import normalise, to_device
from pipeline.network.distributed import Ranks
from pipeline.network.precision import Precision, autocast
from pipeline.network.preprocess import Preprocess
from pipeline.network.resnet import ResNet
from pipeline.network.torch_compile import compile_steps
from pipeline.network.training.augmentation import augment, draw, mix
from pipeline.network.training.bf16.forward import applies, forward
from pipeline.network.training.bf16.norm import norms
from pipeline.network.training.optimizer import Average, build_optimizer, learning_rate
from pipeline.network.training.pixel_cache import CachedTiles, StreamedTiles, in_step
from pipeline.network.training.recipe import Recipe
from pipeline.network.training.sync_batchnorm import synchronise
from pipeline.runtime.console import log

if TYPE_CHECKING:
    from collections.abc import Callable


class TrainStep:
    """Update a network by steps of a recipe, with its optimizer and, if the recipe has it, its average.

    Several processes compute the same step as one process with the same batch, except for rounding: tiles are drawn,
    mixed and normalised over the whole batch, and gradients are those of its mean loss.

    Args:
        network: network on its device, channels_last; with several processes its norms are replaced.
        recipe: how to train.
        preprocess: mean and std of the input.
        precision: fp32 or bf16 autocast.
        seed: seed of the augmentation.
        ranks: the processes that train it.
    """

    def __init__(
        self,
        network: ResNet,
        *,
        recipe: Recipe,
        preprocess: Preprocess,
        precision: Precision,
        seed: int,
        ranks: Ranks,
    ) -> None:
        self.network, self.recipe, self.preprocess, self.precision = network, recipe, preprocess, precision
        self.seed, self.ranks = seed, ranks
        self.device = next(network.parameters()).device
        if ranks.n > 1:
            synchronise(network)
        self.optimizer = build_optimizer(network, recipe)
        self.average = Average(network, recipe.ema) if recipe.ema else None
        self.eval_network = network if self.average is None else self.average.network
        """The network that is validated and saved."""
        self.trained = ranks.trained_together(network)
        self.is_compiled = False
        self.full_step_scores: dict[int, Callable[[torch.Tensor], torch.Tensor]] = {}
        """Side -> `scores` compiled for full batches; the smaller last batch of an epoch is not compiled."""

    @property
    def walks(self) -> bool:
        """Whether training passes go through `bf16.forward`; evaluation never does.

        The precision may change after the start: a checkpoint continues in its own.
        """
        return not self.is_compiled and applies(self.device, self.precision, n_ranks=self.ranks.n)

    @property
    def norms(self) -> str:
        """The library that computes the norms of training passes, with its version if that is numba."""
        return norms() if self.walks else "torch"

    def compile(self) -> None:
        """Compile full steps for each side of the recipe.

        Raises:
            PipelineError: torch cannot compile here.
        """
        log.info("train: compiling the network")
        self.is_compiled = True
        for side in self.recipe.sides():
            shape = self.recipe.batch_size, 3, side, side
            self.full_step_scores[side] = compile_steps(self.scores, self.network, shape)

    def places(self, n: int) -> np.ndarray:
        """Return the positions in a batch of n that this process needs: its share and, to mix, the tile before it."""
        own = self.ranks.share(n)
        if self.ranks.n > 1 and own and (self.recipe.mixup or self.recipe.cutmix):
            return np.array([(own.start - 1) % n, *own])
        return np.arange(own.start, own.stop)

    def step(
        self, pixels: torch.Tensor, labels: np.ndarray, *, epoch: int, step: int, steps: int
    ) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Take one step of the recipe on one batch; nothing waits for the device.

        Args:
            pixels: (P, 3, size, size) uint8, channels_last, of the tiles in this process's `places`.
            labels: (B,) class codes of the whole batch.
            epoch: counted from 0.
            step: step of the epoch, counted from 0.
            steps: in each epoch.

        Returns:
            Mean loss and number of correct tiles of this process, both 0-d tensors on the device, and the number of its
            tiles.
        """
        recipe, side, n = self.recipe, self.recipe.side(epoch), len(labels)
        seed, places, own = (self.seed, epoch, step), self.places(n), len(self.ranks.share(n))
        target = to_device(torch.from_numpy(labels[places]), self.device)
        grown = recipe.at((epoch + step / steps) / recipe.epochs)
        pixels = augment(to_device(pixels, self.device), grown, draw(seed, n)[:, places], side=side)
        pixels, share = mix(pixels, recipe, seed=seed)
        others = target.roll(1)
        if len(places) > own:  # remove the tile before the share, which was needed for mixing only
            pixels, target, others = pixels[1:], target[1:], others[1:]
        self.network.train()
        scores = ((n == recipe.batch_size and self.full_step_scores.get(side)) or self.scores)(pixels)
        loss = self.loss(scores, target)
        if share < 1:
            loss = share * loss + (1 - share) * self.loss(scores, others)
        self.optimizer.zero_grad(set_to_none=True)
        # gradients are averaged over the processes, whose shares of the batch may differ by one tile
        (loss * (own * self.ranks.n / n)).backward()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(recipe, epoch=epoch, step=step, steps=steps)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(epoch * steps + step + 1)
        return loss.detach(), (scores.argmax(1) == target).sum(), own

    def loss(self, scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the training loss of scores (B, K) and class codes (B,): mean cross-entropy; 0 without tiles."""
        if not len(target):
            return scores.sum()
        return functional.cross_entropy(scores, target, label_smoothing=self.recipe.label_smoothing)

    def scores(self, pixels: torch.Tensor, network: ResNet | None = None) -> torch.Tensor:
        """Return a network's output (B, K), float32, for uint8 pixels on its device; by default of the trained one."""
        with autocast(self.device, self.precision):
            x = normalise(pixels, mean=self.preprocess.mean, std=self.preprocess.std)
            chosen = self.network if network is None else network
            if self.walks and chosen.training:
                return forward(chosen, x).float()
            scores: torch.Tensor = (self.trained if network is None else network)(x)
            return scores.float()


EVAL_BATCH = 64


@torch.inference_mode()
def validate(train_step: TrainStep, pixels: CachedTiles | StreamedTiles, labels: np.ndarray) -> tuple[float, float]:
    """Return (mean cross-entropy without smoothing, accuracy); each tile is seen by one process.

    Args:
        train_step: network, input, precision and processes.
        pixels: source of N tiles.
        labels: (N,) class codes.

    Raises:
        WorkerLost: a process lost a worker.
    """
    network, ranks = train_step.eval_network, train_step.ranks
    network.eval()
    rows = np.array(ranks.share(len(labels)), dtype=np.int64)
    # as many steps in all processes: the last one of some may have no tile
    steps = [rows[start : start + EVAL_BATCH] for start in range(0, -(-len(labels) // ranks.n), EVAL_BATCH)]
    losses, correct = [], []
    for chosen, batch in zip(steps, in_step(pixels.batches(steps), ranks.raise_lost), strict=True):
        if not len(chosen):
            continue
        target = to_device(torch.from_numpy(labels[chosen]), train_step.device)
        scores = train_step.scores(to_device(batch, train_step.device), network)
        losses.append(functional.cross_entropy(scores, target, reduction="sum"))
        correct.append((scores.argmax(1) == target).sum())
    # with fewer tiles than processes, some have no steps
    loss, right = ranks.total([sum(torch.stack(each).tolist()) if each else 0 for each in (losses, correct)])
    return loss / len(labels), right / len(labels)
