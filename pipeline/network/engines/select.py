"""Select engine and precision by a rule, and check the choice against plain fp32.

Nothing is timed: the choice follows from the device, the installed libraries, the number of tiles and the check, so
that the same command makes the same choice on a busy machine and after an interruption (P2, P6).
"""

import dataclasses

import numpy as np
import torch

from pipeline.errors import PipelineError, UsageError
from pipeline.network.engines.base import Engine
from pipeline.network.engines.build import build_engine
from pipeline.network.engines.check import Agreement, check_engine, in_plain_fp32
from pipeline.network.engines.samples import N_SAMPLE, N_SAMPLE_SAME, sample_pixels
from pipeline.network.model_file import Model
from pipeline.network.precision import default_precision
from pipeline.network.tile_files import TileSource

OPENVINO_TILES = 1000
"""Fewest tiles for which `auto` takes OpenVINO. Converting a frozen encoder takes about 5 s, which fewer tiles do not
save. The trained network is ready in 0.5 s, but its check in fp32 takes more tiles than that of torch."""


@dataclasses.dataclass(frozen=True)
class EngineRequest:
    """What the user requests of an engine, and the facts that the rule needs."""

    device: torch.device
    batch: int
    """Tiles per forward pass."""

    n_tiles: int
    """Tiles of the whole job: of all shards of a manifest, or of one slide."""

    engine: str = "auto"
    precision: str = "auto"
    calibration: torch.Tensor | None = None
    """(N, 3, S, S) uint8 training tiles, for int8."""

    force: bool = False
    """Use an engine that fails the check."""

    def candidates(self) -> list[tuple[str, str]]:
        """Return engines with precisions, best first; `select_engine` takes the first that agrees with fp32."""
        engines = [self.engine]
        if self.engine == "auto" and self.precision == "int8":
            engines = ["openvino"]
        elif self.engine == "auto":
            by_openvino = self.device.type == "cpu" and self.n_tiles >= OPENVINO_TILES
            engines = ["openvino", "torch"] if by_openvino else ["torch"]
        precisions = [self.precision]
        if self.precision == "auto":
            precisions = list(dict.fromkeys([default_precision(self.device), "fp32"]))
        return [(engine, precision) for engine in engines for precision in precisions]


@dataclasses.dataclass(frozen=True)
class Selection:
    """The engine to use."""

    engine: Engine
    agreement: Agreement | None
    """None if no tile could be compared."""

    rejected: tuple[str, ...] = ()
    """Each candidate before it, with the reason."""

    def __str__(self) -> str:
        rejected = f"; not {'; not '.join(self.rejected)}" if self.rejected else ""
        compared = "no tile to compare with fp32" if self.agreement is None else self.agreement
        return f"{self.engine.name} {self.engine.precision}: {compared}{rejected}"


def select_engine(
    request: EngineRequest, model: Model, tiles: TileSource, built: dict[tuple[str, str], Engine]
) -> Selection:
    """Return the first candidate of a request that can be built here and agrees with plain fp32.

    Args:
        request: engine and precision, or auto.
        model: network, and what its input is.
        tiles: a sample of which is compared.
        built: engines of this model, device and batch by name and precision; new ones are added.

    Raises:
        UsageError: an engine was requested in a precision that it does not know.
        PipelineError: no candidate can be used here, or none agrees with fp32.
    """
    candidates = request.candidates()
    is_same = request.device.type == "cpu" and candidates[0] == ("torch", "fp32")
    sample = sample_pixels(tiles, N_SAMPLE_SAME if is_same else N_SAMPLE)
    reference = in_plain_fp32(model, sample) if len(sample) else None
    if reference is not None and not all(np.isfinite(part).all() for part in reference):
        reference = None  # the network is broken; the error that follows names the tile
    rejected: list[str] = []
    disagreeing: list[Selection] = []
    for name, precision in candidates:
        try:
            engine = built.get((name, precision)) or build_engine(
                name,
                model,
                device=request.device,
                precision=precision,
                batch=request.batch,
                calibration=request.calibration,
            )
        except UsageError:
            raise
        except PipelineError as error:
            rejected.append(f"{name} {precision}, which cannot be used ({error})")
            failure = error
            continue
        built[name, precision] = engine
        engine.views = 1  # single passes are compared
        agreement = None if reference is None else check_engine(engine, sample, reference)
        selection = Selection(engine, agreement, tuple(rejected))
        if agreement is None or agreement.passes:
            return selection
        rejected.append(f"{name} {precision}, which fails with {agreement}")
        disagreeing.append(selection)
    if not disagreeing:
        raise failure
    if request.force:
        return disagreeing[0]
    raise PipelineError(
        f"{'; '.join(rejected)}: its rows would not be those of the network: give another --engine or "
        "--embed-precision (fp32 is the closest), or --force to use it"
    )
