"""Compile a network by torch.compile, and report its errors in one line."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

from pipeline.errors import PipelineError


@contextlib.contextmanager
def compiler_errors(what: str, *, instead: str) -> Iterator[None]:
    """Turn the errors of torch.compile into one line.

    Args:
        what: the option that requested it.
        instead: what to do without a compiler.

    Raises:
        PipelineError: torch cannot compile here.
    """
    try:
        yield
    except RuntimeError as error:  # torch._dynamo's and inductor's own are kinds of it
        reason = " ".join(str(error).split())[:160]
        raise PipelineError(
            f"{what}: torch.compile does not work here ({reason}): install a C++ compiler, or {instead}"
        ) from None


def compile_steps(
    scores: Callable[[torch.Tensor], torch.Tensor], network: nn.Module, shape: Sequence[int]
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a network's forward and backward pass in training, compiled for one shape and warmed up.

    On CUDA the kernels run as CUDA graphs, so that small batches do not wait for launches. The warm-up with blank tiles
    does not change the network.

    Args:
        scores: uint8 tiles of that shape -> (B, K) scores by the network.
        network: network on its device; it is left in training mode, without gradients.
        shape: (B, 3, size, size).

    Raises:
        PipelineError: torch cannot compile here.
    """
    device = next(network.parameters()).device
    compiled = torch.compile(scores, dynamic=False, mode="reduce-overhead" if device.type == "cuda" else None)
    blank = torch.zeros(*shape, dtype=torch.uint8, device=device).contiguous(memory_format=torch.channels_last)
    kept = [(buffer, buffer.clone()) for buffer in network.buffers()]  # running means and variances
    network.train()
    with compiler_errors("--compiled", instead="train without it"):
        for _ in range(3):  # the first compiles, the next ones record the graphs on CUDA
            torch.autograd.backward(compiled(blank).sum())
    for parameter in network.parameters():
        parameter.grad = None
    for buffer, value in kept:
        buffer.copy_(value)
    return compiled
