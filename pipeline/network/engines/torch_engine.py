"""Run the network by torch alone: layer after layer, channels_last, batch norms folded, fp32 or bf16."""

from typing import TYPE_CHECKING, Any

import torch

from pipeline.errors import PipelineError
from pipeline.network.engines.base import Engine, NetworkOutput, as_output
from pipeline.network.engines.fold_batchnorm import Embed
from pipeline.network.model_file import Model

if TYPE_CHECKING:
    from collections.abc import Callable

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

CUDA: Any = torch.cuda
"""Its streams and events have no types."""


class TorchEngine(Engine):
    """Run the network on a CPU, an NVIDIA or an Apple device.

    On CUDA the next batch is copied to the device while this one is computed. The host waits for a result only when it
    is handed over, which is after the next batch was started.

    The batch is never made smaller where memory is short: kernels depend on its size, and rows would then depend on
    what else runs on the device.
    """

    name = "torch"

    def __init__(self, model: Model, *, device: torch.device, precision: str, batch: int) -> None:
        self.device, self.precision, self.batch = device, precision, batch
        self.embed: Callable[[torch.Tensor], tuple[torch.Tensor, ...]]
        self.embed = Embed(model, DTYPES[precision]).to(device)
        self.copying = CUDA.Stream(device) if device.type == "cuda" else None
        self.in_flight = 1 if self.copying is None else 2

    @torch.no_grad()
    def start(self, pixels: torch.Tensor) -> Any:
        """Compute the batch; on CUDA queue it.

        Raises:
            PipelineError: the device's memory does not hold the batch.
        """
        try:
            if self.copying is None:
                return self.embed(pixels.to(self.device))
            return self._queued(pixels, self.copying)
        except torch.OutOfMemoryError:
            raise PipelineError(
                f"the memory of {self.device} does not hold the network and {self.batch} tiles of "
                f"{pixels.shape[-1]} px: end what else runs there, or give extract a smaller --embed-batch"
            ) from None

    def _queued(self, pixels: torch.Tensor, copying: torch.cuda.Stream) -> Any:
        """Queue copy, computation and copy back on CUDA; return what must live until they are done."""
        pinned, computing = pixels.pin_memory(), torch.cuda.current_stream(self.device)
        with torch.cuda.stream(copying):
            on_device = pinned.to(self.device, non_blocking=True)
        computing.wait_stream(copying)
        on_device.record_stream(computing)  # its memory is not given to the next copy while this batch reads it
        host = []
        for found in self.embed(on_device):
            # copied on the computing stream, before the next pass can overwrite what a CUDA graph returned
            host.append(torch.empty(found.shape, dtype=found.dtype, pin_memory=True))
            host[-1].copy_(found, non_blocking=True)
        done = CUDA.Event()
        done.record(computing)
        return pinned, host, done

    def finish(self, started: Any) -> NetworkOutput:
        """Return the rows as soon as they are on the host."""
        if self.copying is not None:
            _, started, done = started
            done.synchronize()
        return as_output([found.cpu().numpy() for found in started])
