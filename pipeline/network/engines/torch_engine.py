"""The engine that needs nothing but torch: layer after layer, channels_last, norms folded, fp32 or bf16."""

from typing import TYPE_CHECKING, Any

import torch

from pipeline.errors import PipelineError
from pipeline.network.engines.base import Engine, HeadOutput
from pipeline.network.engines.fold_batchnorm import Embed
from pipeline.network.model_file import Model
from pipeline.runtime.console import log

if TYPE_CHECKING:
    from collections.abc import Callable

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class TorchEngine(Engine):
    """The network on a CPU, an NVIDIA or an Apple device.

    On CUDA the copy of the next batch to the device runs beside the computation of this one, and the host is only
    waited for when a result is handed over, which is when the next batch is under way.

    Where the device's memory does not hold a batch, this and the next ones are computed in halves, or quarters and so
    on: the rows are the same but for rounding.
    """

    name = "torch"

    def __init__(self, model: Model, *, device: torch.device, precision: str, batch: int) -> None:
        self.device, self.precision, self.batch = device, precision, batch
        self.embed: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
        self.embed = Embed(model, DTYPES[precision]).to(device)
        self.copying = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.in_flight = 1 if self.copying is None else 2
        self._per_pass = batch

    @property
    def per_pass(self) -> int:
        """Tiles in one forward pass, as few as the memory asked for so far."""
        return self._per_pass

    def start(self, pixels: torch.Tensor) -> Any:
        """Compute the batch; on CUDA put it in line.

        Raises:
            PipelineError: the device's memory does not hold a single tile.
        """
        while (started := self._begin(pixels)) is None:
            if self._per_pass == 1:
                raise PipelineError(
                    f"the memory of {self.device} does not hold one tile of {pixels.shape[-1]} px and the network: end "
                    "what else runs there, or give another --device"
                )
            before, self._per_pass = self._per_pass, (self._per_pass + 1) // 2
            log.info(f"not enough memory on {self.device} for {before} tiles at once: going on with {self._per_pass}")
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        return started

    def _begin(self, pixels: torch.Tensor) -> Any:
        """Return what `finish` needs, None if the memory is full; what was taken of it is free on return."""
        try:
            return self._embedded(pixels)
        except torch.OutOfMemoryError:
            return None

    @torch.no_grad()
    def _embedded(self, pixels: torch.Tensor) -> Any:
        if self.copying is None:
            return [self.embed(part) for part in pixels.to(self.device).split(self._per_pass)]
        pinned, computing = pixels.pin_memory(), torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self.copying):
            there = pinned.to(self.device, non_blocking=True)
        computing.wait_stream(self.copying)
        there.record_stream(computing)  # its memory is not given to the next copy while this batch reads it
        host = []
        for part in there.split(self._per_pass):
            # copied on the computing stream, before the next pass can overwrite what a CUDA graph gave back
            found = self.embed(part)
            ours = [torch.empty(theirs.shape, dtype=theirs.dtype, pin_memory=True) for theirs in found]
            for mine, theirs in zip(ours, found, strict=True):
                mine.copy_(theirs, non_blocking=True)
            host.append(ours)
        done = torch.cuda.Event()
        done.record(computing)
        return pinned, host, done

    def finish(self, started: Any) -> HeadOutput:
        """Return the rows, once they are there."""
        if self.copying is None:
            passes = started
        else:
            _, passes, done = started
            done.synchronize()
        found, scores = (torch.cat(parts).cpu().numpy() for parts in zip(*passes, strict=True))
        return found, scores
