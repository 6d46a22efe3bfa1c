"""Exchange numbers and texts between the processes that torchrun started, one for each GPU.

Small numbers and texts go over the CPU (gloo), so that no exchange waits for a GPU; gradients and norms go over NCCL
between GPUs. Every function that exchanges must be called by all processes, in the same order.
"""

import contextlib
import datetime
import warnings
from collections.abc import Iterator

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.errors import PeerLost, WorkerLost
from pipeline.runtime.process import is_first, local_rank, n_ranks, rank

PATIENCE = datetime.timedelta(hours=1)
"""Longest time that one process may work without the others (decode all tiles, draw figures) before it counts as hung.
A dead process is noticed at once, because its connections close."""

PEER_ERRORS = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer")
"""Words in torch's RuntimeError for an unreachable process."""

LOST_ELSEWHERE = "another process of this torchrun lost a worker: run the same command again"
"""Message of the processes that lost none."""


@contextlib.contextmanager
def process_group(patience: datetime.timedelta = PATIENCE) -> Iterator[None]:
    """Connect the processes that torchrun started.

    Args:
        patience: how long one process may work without the others.

    Raises:
        PeerLost: another process ended.
    """
    backend = "gloo"
    if torch.cuda.is_available() and distributed.is_nccl_available():
        backend = "cpu:gloo,cuda:nccl"
        if local_rank() < torch.cuda.device_count():
            torch.cuda.set_device(local_rank())
    with peer_errors_as_one_line():
        distributed.init_process_group(backend, timeout=patience)
        yield
        distributed.destroy_process_group()  # not after an error: others may wait in the group for ever


@contextlib.contextmanager
def peer_errors_as_one_line() -> Iterator[None]:
    """Turn torch's errors about a process that cannot be reached into one line.

    Raises:
        PeerLost: another process ended.
    """
    try:
        yield
    except RuntimeError as error:  # base class of torch.distributed's errors
        if not isinstance(error, distributed.DistError) and not any(name in str(error) for name in PEER_ERRORS):
            raise
        raise PeerLost(
            "another process of this torchrun ended (if it had an error, its message is above): "
            "run the same command again to continue"
        ) from error


class Ranks:
    """The processes of one command, connected by `process_group`; a single process exchanges nothing.

    Attributes:
        n: number of processes.
        rank: number of this process, from 0.
        is_first: whether this process writes the files.
    """

    def __init__(self) -> None:
        self.n, self.rank, self.is_first = n_ranks(), rank(), is_first()

    def share(self, n: int) -> range:
        """Return the positions among n that belong to this process; shares differ by at most one."""
        return range(self.rank * n // self.n, (self.rank + 1) * n // self.n)

    def trained_together(self, network: nn.Module) -> nn.Module:
        """Return a network whose gradients are means over all processes after its backward pass.

        Args:
            network: network on its device, the same in all processes.
        """
        if self.n == 1:
            return network
        device = next(network.parameters()).device
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch 2.14 has another name for broadcast_buffers
            return DistributedDataParallel(
                network,
                device_ids=[device] if device.type == "cuda" else None,
                broadcast_buffers=False,  # all processes have the same statistics of the norms
                gradient_as_bucket_view=True,
            )

    def barrier(self) -> None:
        """Wait for all processes."""
        self.highest([0])

    def raise_lost(self, lost: WorkerLost | None) -> None:
        """Raise WorkerLost in all processes if one of them lost a worker; `lost` is the error of this process."""
        if self.highest([lost is not None])[0]:
            raise lost or WorkerLost(LOST_ELSEWHERE)

    def highest(self, numbers: list[int]) -> list[int]:
        """Return the maximum over all processes of each number."""
        if self.n == 1:
            return list(map(int, numbers))
        found = torch.tensor(numbers, dtype=torch.int64)
        distributed.all_reduce(found, op=distributed.ReduceOp.MAX)
        return found.tolist()

    def total(self, numbers: list[float]) -> list[float]:
        """Return the sum over all processes of each number, as float64."""
        if self.n == 1:
            return numbers
        found = torch.tensor(numbers, dtype=torch.float64)
        distributed.all_reduce(found)
        return found.tolist()

    def broadcast_from_first(self, text: str) -> str:
        """Return the text of the first process."""
        if self.n == 1:
            return text
        encoded = text.encode()
        size = torch.tensor([len(encoded)])
        distributed.broadcast(size, 0)
        content = torch.zeros(int(size), dtype=torch.uint8)
        if self.is_first:
            content.copy_(torch.tensor(list(encoded), dtype=torch.uint8))
        distributed.broadcast(content, 0)
        return bytes(content.tolist()).decode()
