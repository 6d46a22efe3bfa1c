"""The torch engine through torch.compile: kernels made for this network and this batch, at a minute's price."""

from typing import Any

import torch

from pipeline.network.engines.torch_engine import TorchEngine
from pipeline.network.model_file import Model
from pipeline.network.torch_compile import compiler_errors


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
        with compiler_errors("--engine compiled", instead="give another --engine"):
            for _ in range(3):  # the first compiles, the next ones record the graph on CUDA
                self.finish(self.start(blank.contiguous(memory_format=torch.channels_last)))
