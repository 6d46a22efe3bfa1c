"""Keep loss and correct tiles of the steps on the device, and add them to an epoch's sums at a synchronization."""

import math
import time

import numpy as np
import torch

from pipeline.network.distributed import Ranks
from pipeline.network.training.checkpoint import Progress


class StepMetrics:
    """Collect the metrics of steps; reading them waits for the device.

    Args:
        ranks: the processes whose sums are added; all must synchronize together.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.pending: list[tuple[torch.Tensor, torch.Tensor, int, int]] = []
        """Mean loss, correct tiles (both on the device) and tiles of this process, and tiles of all, for each step."""
        self.restart()

    def restart(self) -> None:
        """Restart the clock: the time before belongs to no step."""
        self.synchronized = time.monotonic()

    def add(self, loss: torch.Tensor, n_correct: torch.Tensor, own: int, n: int) -> None:
        """Add a step; nothing waits for the device."""
        self.pending.append((loss, n_correct, own, n))

    def synchronize(self, state: Progress) -> int | None:
        """Wait for the steps, and add their metrics and time to the epoch's sums.

        Returns:
            The first step, from 1, whose loss is not finite, where adding ended; None if all losses are finite.
        """
        if not self.pending:
            return None
        losses, correct, own, sizes = zip(*self.pending, strict=True)
        first = state.step - len(sizes) + 1
        self.pending = []
        means = np.array(torch.stack(losses).tolist()) * (np.array(own) / sizes)
        totals = self.ranks.total(means.tolist()), self.ranks.total(torch.stack(correct).tolist())
        each = zip(*totals, sizes, strict=True)
        for i, (loss, right, n) in enumerate(each):
            if not math.isfinite(loss):
                return first + i
            state.loss_sum += loss * n
            state.n_correct += int(right)
            state.seen += n
        now = time.monotonic()
        state.seconds += now - self.synchronized
        self.synchronized = now
        return None
