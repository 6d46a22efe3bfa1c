"""What the steps of an epoch say - loss, hits - left on the device until it is looked at, as looking waits for it."""

import math
import time

import numpy as np
import torch

from pipeline.network.distributed import Ranks
from pipeline.network.training.checkpoint import Progress


class StepMetrics:
    """The steps that were not looked at yet.

    Args:
        ranks: the processes whose sums count together; all of them look together.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.unseen: list[tuple[torch.Tensor, torch.Tensor, int, int]] = []
        """Of each step: mean loss and hits of this process's tiles, on the device, their number, and that of all."""
        self.restart()

    def restart(self) -> None:
        """Let the time up to now count for no step."""
        self.looked = time.monotonic()

    def add(self, loss: torch.Tensor, hits: torch.Tensor, own: int, n: int) -> None:
        """Take in a step; nothing waits for the device."""
        self.unseen.append((loss, hits, own, n))

    def look(self, state: Progress) -> int | None:
        """Wait for the steps, add what they say to the epoch's sums, one after another, and the time to its time.

        Returns:
            The first step, from 1, whose loss is not finite, and at which adding ended.
        """
        if not self.unseen:
            return None
        losses, hits, own, sizes = zip(*self.unseen, strict=True)
        first = state.step - len(sizes) + 1
        self.unseen = []
        means = np.array(torch.stack(losses).tolist()) * (np.array(own) / sizes)
        each = zip(self.ranks.total(means.tolist()), self.ranks.total(torch.stack(hits).tolist()), sizes, strict=True)
        for i, (loss, right, n) in enumerate(each):
            if not math.isfinite(loss):
                return first + i
            state.loss_sum += loss * n
            state.hits += int(right)
            state.seen += n
        now = time.monotonic()
        state.seconds += now - self.looked
        self.looked = now
        return None
