"""The engine that needs nothing but torch: layer after layer, channels_last, norms folded, fp32 or bf16."""

from collections.abc import Callable
from typing import Any

import torch

from pipeline.network.engines.base import Answer, Engine
from pipeline.network.engines.folding import Embed
from pipeline.storage.models import Model

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class TorchEngine(Engine):
    """The network on a CPU, an NVIDIA or an Apple device.

    On CUDA the copy of the next batch to the device runs beside the computation of this one, and the host is only
    waited for when a result is handed over, which is when the next batch is under way.
    """

    name = "torch"

    def __init__(self, model: Model, *, device: torch.device, precision: str, batch: int) -> None:
        self.device, self.precision, self.batch = device, precision, batch
        self.embed: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
        self.embed = Embed(model, DTYPES[precision]).to(device)
        self.copying = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.in_flight = 1 if self.copying is None else 2

    @torch.no_grad()
    def start(self, pixels: torch.Tensor) -> Any:
        """Compute the batch; on CUDA put it in line."""
        if self.copying is None:
            return self.embed(pixels.to(self.device))
        pinned, computing = pixels.pin_memory(), torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self.copying):
            there = pinned.to(self.device, non_blocking=True)
        computing.wait_stream(self.copying)
        there.record_stream(computing)  # its memory is not given to the next copy while this batch reads it
        found = self.embed(there)
        # copied on the computing stream, before the next batch can overwrite what a CUDA graph gave back
        host = [torch.empty(part.shape, dtype=part.dtype, pin_memory=True) for part in found]
        for ours, theirs in zip(host, found, strict=True):
            ours.copy_(theirs, non_blocking=True)
        done = torch.cuda.Event()
        done.record(computing)
        return pinned, host, done

    def finish(self, started: Any) -> Answer:
        """Return the rows, once they are there."""
        if self.copying is None:
            found, scores = started
            return found.cpu().numpy(), scores.cpu().numpy()
        _, (found, scores), done = started
        done.synchronize()
        return found.numpy(), scores.numpy()
