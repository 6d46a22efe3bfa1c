"""The torch engine through torch.compile: kernels made for this network and this batch, at a minute's price."""

import contextlib
import functools
import os
import tempfile
from collections.abc import Iterator
from typing import Any

import torch

from pipeline.errors import PipelineError
from pipeline.network.engines.eager import TorchEngine
from pipeline.storage.models import Model

CACHE = "TORCHINDUCTOR_CACHE_DIR"


@functools.cache
def _kernels() -> tempfile.TemporaryDirectory[str]:
    """Return the folder of kernels: the next network of a plan finds them, and the end of the process removes them."""
    return tempfile.TemporaryDirectory(prefix="histoheads-kernels-")


@contextlib.contextmanager
def _own_cache() -> Iterator[None]:
    """Keep torch from leaving its kernels in the system's temporary folder for ever (P5)."""
    before = os.environ.get(CACHE)  # torch sets it too
    os.environ[CACHE] = _kernels().name
    try:
        yield
    finally:
        if before is None:
            del os.environ[CACHE]
        else:
            os.environ[CACHE] = before


def _frozen() -> dict[str, bool]:
    """Return torch.compile's options for a CPU, which hold for one network and leave the process's settings alone."""
    from torch._inductor import config

    options = {"freezing": True}
    if hasattr(config, "cpp_cache_precompile_headers"):  # newer than the oldest torch allowed
        options["cpp_cache_precompile_headers"] = False  # they would stay in the temporary folder, whatever CACHE says
    return options


class CompiledEngine(TorchEngine):
    """On a CPU the weights are frozen into the kernels; on CUDA kernels are chosen by timing and run as a CUDA graph.

    Args:
        model: as for `TorchEngine`.
        device: cpu or cuda.
        precision: fp32 or bf16.
        batch: tiles per forward pass; the kernels are made for it.

    Raises:
        PipelineError: torch cannot compile here (most often there is no C++ compiler).
    """

    name = "compiled"

    def __init__(self, model: Model, *, device: torch.device, precision: str, batch: int) -> None:
        super().__init__(model, device=device, precision=precision, batch=batch)
        # a graph module has code of its own: torch keeps what it compiled by the code, of which there is one per class
        graph = torch.fx.symbolic_trace(self.embed)
        how: dict[str, Any] = {"mode": "max-autotune"} if device.type == "cuda" else {"options": _frozen()}
        self.embed = torch.compile(graph, fullgraph=True, dynamic=False, **how)
        size = model.preprocess.size
        blank = torch.zeros(batch, 3, size, size, dtype=torch.uint8)
        try:
            with _own_cache():
                for _ in range(3):  # the first compiles, the next ones record the graph on CUDA
                    self.finish(self.start(blank.contiguous(memory_format=torch.channels_last)))
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:160]
            raise PipelineError(
                f"--engine compiled: torch.compile does not work here ({reason}): install a C++ compiler, or give "
                "another --engine"
            ) from None
