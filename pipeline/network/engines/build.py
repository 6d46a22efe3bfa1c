"""Build an engine by its name."""

import torch

from pipeline.errors import PipelineError, UsageError
from pipeline.network.engines.base import ENGINES, Engine
from pipeline.network.engines.torch_engine import TorchEngine
from pipeline.network.model_file import Model

DEVICES = {"torch": ("cpu", "cuda", "mps"), "compiled": ("cpu", "cuda"), "openvino": ("cpu",)}
"""Kinds of device that each engine runs on."""


def build_engine(
    name: str,
    model: Model,
    *,
    device: torch.device,
    precision: str,
    batch: int,
    calibration: torch.Tensor | None = None,
) -> Engine:
    """Return an engine that is ready to run; the model's own network is neither changed nor moved.

    Args:
        name: one of `ENGINES`.
        model: network, and what its input is.
        device: that runs the network.
        precision: one that the engine computes in.
        batch: tiles per forward pass.
        calibration: (N, 3, S, S) uint8 training tiles; only int8 needs them.

    Raises:
        UsageError: no such engine, or not one of its precisions.
        PipelineError: the engine does not run on this device, or a library is missing.
    """
    if precision not in ENGINES.get(name, ()):
        known = "; ".join(f"{engine}: {', '.join(precisions)}" for engine, precisions in ENGINES.items())
        raise UsageError(f"--engine {name} --embed-precision {precision}: known are {known}")
    if device.type not in DEVICES[name]:
        raise PipelineError(
            f"--engine {name} does not run on {device.type}: give --device {DEVICES[name][0]}, or another --engine"
        )
    if name == "openvino":
        from pipeline.network.engines.openvino_engine import OpenvinoEngine

        return OpenvinoEngine(model, precision=precision, batch=batch, calibration=calibration)
    if name == "compiled":
        from pipeline.network.engines.compiled_engine import CompiledEngine

        return CompiledEngine(model, device=device, precision=precision, batch=batch)
    return TorchEngine(model, device=device, precision=precision, batch=batch)
