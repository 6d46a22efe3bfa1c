"""Run the network by torch.compile: kernels made for this network and this batch, which takes about a minute."""

from typing import Any

import torch

from pipeline.errors import PipelineError
from pipeline.network.encoders.frozen import FrozenEncoder
from pipeline.network.engines.torch_engine import TorchEngine
from pipeline.network.model_file import Model
from pipeline.network.torch_compile import compiler_errors


def _frozen() -> dict[str, bool]:
    """Return torch.compile's options for a CPU; they hold for one network and change no setting of the process."""
    from torch._inductor import config

    options = {"freezing": True}
    if hasattr(config, "cpp_cache_precompile_headers"):  # not in the oldest torch allowed
        options["cpp_cache_precompile_headers"] = False  # they would stay in the temporary folder
    return options


class CompiledEngine(TorchEngine):
    """Freeze the weights into kernels on a CPU; run kernels as a CUDA graph on CUDA.

    "max-autotune" is not used: it chooses kernels by timing them, so that rows would differ between two runs.

    Args:
        model: as for `TorchEngine`.
        device: cpu or cuda.
        precision: fp32 or bf16.
        batch: tiles per forward pass; the kernels are made for it.

    Raises:
        PipelineError: torch cannot compile here (most often there is no C++ compiler), or a frozen encoder.
    """

    name = "compiled"

    def __init__(self, model: Model, *, device: torch.device, precision: str, batch: int) -> None:
        if isinstance(model.network, FrozenEncoder):
            raise PipelineError("--engine compiled knows the trained network only: give torch or openvino")
        super().__init__(model, device=device, precision=precision, batch=batch)
        # a graph module has code of its own; torch would find kernels of another network of the same class
        graph = torch.fx.symbolic_trace(self.embed)
        settings: dict[str, Any] = {"mode": "reduce-overhead"} if device.type == "cuda" else {"options": _frozen()}
        self.embed = torch.compile(graph, fullgraph=True, dynamic=False, **settings)
        size = model.preprocess.input_px
        blank = torch.zeros(batch, 3, size, size, dtype=torch.uint8)
        with compiler_errors("--engine compiled", instead="give another --engine"):
            for _ in range(3):  # the first compiles, the next ones record the graph on CUDA
                self.finish(self.start(blank.contiguous(memory_format=torch.channels_last)))
