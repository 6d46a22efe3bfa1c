"""Run the network by OpenVINO, a library for inference on CPUs (extra `cpu`): fp32, bf16, or int8 on request."""

import contextlib
import functools
import importlib
import io
import logging
import sys
from typing import Any

import numpy as np
import torch

from pipeline.errors import PipelineError
from pipeline.network.engines.base import Engine, NetworkOutput, as_output
from pipeline.network.engines.fold_batchnorm import Embed
from pipeline.network.engines.openvino_graph import graph_of
from pipeline.network.model_file import Model

HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
"""Precision -> OpenVINO's INFERENCE_PRECISION_HINT; for int8 that of the layers that are not quantised."""


def library(name: str) -> Any:
    """Import openvino or nncf without their telemetry.

    Both would report their use over the network and keep an identifier in the home folder.

    Raises:
        PipelineError: it is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: importing it fails
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise PipelineError(
            f"--engine openvino needs the library {name}, which cannot be imported ({error}): "
            "pip install 'histoheads[cpu]', or give another --engine"
        ) from None


@functools.cache
def core() -> Any:
    """Return OpenVINO's core: one for the process, kept to its end.

    On chips with AMX each core replaces the main thread's stack for signals and restores the earlier one when it ends.
    Where two cores do not end in reverse order, a stack is restored that is gone, and the next signal ends the process.
    """
    return library("openvino").Core()


class OpenvinoEngine(Engine):
    """Convert the network to OpenVINO and compile it for this CPU and one batch size.

    All threads compute one batch while the next one waits: tiles are loaded and rows stored during the computation.

    Args:
        model: its network is copied, not changed.
        precision: fp32, bf16 or int8.
        batch: tiles per forward pass.
        calibration: (N, 3, S, S) uint8 training tiles; int8 computes the scale of every layer from them.

    Raises:
        PipelineError: a library is missing, or this CPU cannot compute in `precision`.
    """

    name = "openvino"
    in_flight = 2

    def __init__(self, model: Model, *, precision: str, batch: int, calibration: torch.Tensor | None) -> None:
        openvino = library("openvino")
        self.precision, self.batch = precision, batch
        self.versions = {"openvino": openvino.__version__}
        try:
            compiled = self.compiled(openvino, model, calibration)
            computes_in = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
            self.idle = [compiled.create_infer_request() for _ in range(self.in_flight)]
        except (PipelineError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001  (torch.export, openvino and nncf raise many kinds)
            reason = " ".join(str(error).split())[:160]
            raise PipelineError(
                f"--engine openvino: openvino {openvino.__version__} does not take this network from torch "
                f"{torch.__version__} ({reason}): give another --engine, or install newer ones"
            ) from None
        if computes_in != HINTS[precision]:
            raise PipelineError(f"--engine openvino: this CPU computes in {computes_in}, not in {precision}: give fp32")

    def compiled(self, openvino: Any, model: Model, calibration: torch.Tensor | None) -> Any:
        """Return the network compiled for this CPU."""
        graph = graph_of(openvino, Embed(model), self.batch, model.preprocess.input_px)
        if self.precision == "int8":
            graph = self.quantised(graph, calibration)
        settings = {
            "INFERENCE_PRECISION_HINT": HINTS[self.precision],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # it would pin two processes to the same cores
        }
        return core().compile_model(graph, "CPU", settings)

    def quantised(self, graph: Any, calibration: torch.Tensor | None) -> Any:
        """Return the graph with weights and activations in int8.

        Raises:
            PipelineError: nncf is missing, or there are no calibration tiles.
        """
        nncf = library("nncf")
        if calibration is None or not len(calibration):
            raise PipelineError("--embed-precision int8 needs training tiles to calibrate with, and there are none")
        self.versions = {**self.versions, "nncf": nncf.__version__}
        nncf.set_log_level(logging.ERROR)
        n = len(calibration)
        rows = torch.arange(-(-n // self.batch) * self.batch) % n  # the last batch is filled up from the start
        batches = [calibration[part].contiguous().numpy() for part in torch.split(rows, self.batch)]
        with contextlib.redirect_stdout(io.StringIO()):  # its progress bars
            return nncf.quantize(
                graph, nncf.Dataset(batches), subset_size=len(batches), target_device=nncf.TargetDevice.CPU
            )

    def start(self, pixels: torch.Tensor) -> Any:
        """Queue the batch."""
        request, shared = self.idle.pop(), np.ascontiguousarray(pixels.numpy())
        request.start_async([shared], share_inputs=True)
        return request, shared

    def finish(self, started: Any) -> NetworkOutput:
        """Wait for the rows; the request may then be used again."""
        request, _ = started
        request.wait()
        arrays = [np.array(output.data, np.float32) for output in request.output_tensors]
        self.idle.append(request)
        return as_output(arrays)
