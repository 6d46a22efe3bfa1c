"""Which engine an extraction takes: checked against plain fp32 on a sample of its tiles, and timed on it."""

import dataclasses
import statistics
import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from pipeline.errors import PipelineError
from pipeline.network.engines.base import Engine, HeadOutput, filled
from pipeline.network.engines.build import build_engine
from pipeline.network.engines.check import Agreement, agree, in_plain_fp32
from pipeline.network.model_file import Model
from pipeline.network.precision import choose_precision

GAIN = 1.15
"""An engine must be this much faster than a simpler one to be taken: differences below it are noise on a busy machine,
and the choice should be the same on every run (P6)."""

ROUNDS, ROUND_BATCHES = 5, 2
"""Rounds of timing in turn, of which the median counts, and batches in each."""


@dataclasses.dataclass(frozen=True)
class Prospect:
    """What may be expected of an engine beside torch's own before it is tried."""

    most_gain: float
    """The most it gains over the torch engine."""

    ready_s: float
    """Time to build, check and time it."""


PROSPECTS = {
    ("cpu", "openvino"): Prospect(most_gain=2.5, ready_s=8),
    ("cpu", "compiled"): Prospect(most_gain=1.5, ready_s=40),
    ("cuda", "compiled"): Prospect(most_gain=1.5, ready_s=240),
}
"""Kind of device and engine -> measured with ResNet-50 at 150 px on one to two cores (gains of 2.2 and 1.4 with AMX);
those of CUDA are estimates. An engine is tried if it can save more than `ready_s` on the tiles that are left."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """What became of one engine in one precision."""

    engine: str
    precision: str
    rate: float | None = None
    """Tiles per second, if it was timed."""

    agreement: Agreement | None = None
    problem: str = ""
    """"" or why it was not tried, or could not be built."""

    @property
    def timed(self) -> str:
        """Its name, with its rate if there is one."""
        return f"{self.engine} {self.precision}" + ("" if self.rate is None else f", {self.rate:.0f} tiles/s")

    def __str__(self) -> str:
        if self.agreement is None or self.problem:
            return f"{self.engine} {self.precision}, {self.problem}"
        return self.timed + ("" if self.agreement.passes else f", fails with {self.agreement}")


@dataclasses.dataclass(frozen=True)
class Choice:
    """The engine to use."""

    engine: Engine
    candidates: list[Candidate]
    """All that were looked at, in order; the last rate of each."""

    agreement: Agreement | None
    """Of the engine; None if there was no tile to compare."""

    reason: str
    """Which and why, in one sentence."""


@dataclasses.dataclass(frozen=True)
class Ground:
    """What all candidates are tried on."""

    model: Model
    sample: torch.Tensor
    reference: HeadOutput
    device: torch.device
    batch: int
    n_tiles: int
    calibration: torch.Tensor | None
    ready: Engine | None = None

    def build(self, name: str, precision: str) -> Engine:
        """Return an engine, the one that is ready if it is the same; raises as `build_engine`."""
        if self.ready is not None and (name, precision) == (self.ready.name, self.ready.precision):
            return self.ready
        return build_engine(
            name,
            self.model,
            device=self.device,
            precision=precision,
            batch=self.batch,
            calibration=self.calibration,
        )

    def check(self, engine: Engine) -> Agreement:
        """Return how an engine agrees with plain fp32; it is warm afterwards."""
        found = list(engine.run(self.sample.split(self.batch)))
        return agree((np.concatenate([f for f, _ in found]), np.concatenate([z for _, z in found])), self.reference)

    def race(self, engines: Mapping[str, Engine]) -> dict[str, float]:
        """Return the tiles per second of each engine: medians of rounds in turn, so that all meet the same machine."""
        batch = filled(self.sample[torch.arange(self.batch) % len(self.sample)], self.batch)
        spent: dict[str, list[float]] = {name: [] for name in engines}
        for _ in range(ROUNDS):
            for name, engine in engines.items():
                start = time.perf_counter()
                for _ in engine.run([batch] * ROUND_BATCHES):
                    pass
                spent[name].append(time.perf_counter() - start)
        return {name: ROUND_BATCHES * self.batch / statistics.median(seconds) for name, seconds in spent.items()}

    def pays(self, name: str, rates: Mapping[str, float], agreements: Mapping[str, Agreement]) -> bool:
        """Tell whether an engine may save more time on the tiles that are left than it takes to get ready.

        Args:
            name: of the engine.
            rates: of those that are ready, torch's first.
            agreements: of the same.
        """
        prospect = PROSPECTS[self.device.type, name]
        torch_rate = next(iter(rates.values()))
        best_rate = max([rates[ready] for ready in rates if agreements[ready].passes], default=torch_rate)
        return self.n_tiles / best_rate - self.n_tiles / (prospect.most_gain * torch_rate) > prospect.ready_s


def choose_engine(
    asked: str,
    model: Model,
    sample: torch.Tensor,
    *,
    device: torch.device,
    precision: str,
    batch: int,
    n_tiles: int,
    calibration: torch.Tensor | None = None,
    force: bool = False,
    ready: Engine | None = None,
) -> Choice:
    """Return the engine that was asked for, or for `auto` the fastest, after a check against plain fp32.

    `auto` begins with the torch engine and leaves it for another one only if that passes the check and is `GAIN` times
    as fast. In a precision of `auto`, fp32 is taken where nothing passes in bf16.

    Args:
        asked: auto, or a name of `ENGINES`.
        model: network, and what its input is.
        sample: (N, 3, S, S) uint8 tiles to try engines on; without any, nothing is checked or timed.
        device: where to run.
        precision: auto, fp32, bf16 or int8; int8 is for openvino, and never taken by itself.
        batch: tiles per forward pass.
        n_tiles: tiles that are left to embed: what takes long to get ready must save as much on them.
        calibration: training tiles, for int8.
        force: use an engine that was asked for although it fails its check.
        ready: an engine of this model and setting that was built before.

    Raises:
        PipelineError: the engine that was asked for cannot be used here, or fails its check.
    """
    precisions = [choose_precision(precision, device)] if precision == "auto" else [precision]
    if precision == "auto" and precisions != ["fp32"]:
        precisions.append("fp32")
    named = asked != "auto" or precision == "int8"
    if asked != "auto":
        names = [asked]
    elif precision == "int8":
        names = ["openvino"]
    else:
        names = ["torch", *(name for kind, name in PROSPECTS if kind == device.type)]

    reference = in_plain_fp32(model, sample) if len(sample) else None
    if reference is None or not all(np.isfinite(part).all() for part in reference):
        # a network that is broken is told with the tile's name as soon as its row is computed
        engine = build_engine(
            names[0], model, device=device, precision=precisions[0], batch=batch, calibration=calibration
        )
        reason = f"{engine.name} {engine.precision}: no tile to compare engines on"
        return Choice(engine, [], None, reason)
    ground = Ground(model, sample, reference, device, batch, n_tiles, calibration, ready)
    table: list[Candidate] = []
    refused: Engine | None = None
    for tried in precisions:
        best, first = _best(names, tried, ground, table)
        if best is not None:
            why = "the fastest that agrees" if best.name != "torch" else "faster ones are not worth it"
            return _chosen(best, table, why=why if len(names) > 1 else "as asked" if named else "the only one here")
        refused = refused or first
    if force and refused is not None:
        return _chosen(refused, table, why="by --force")
    raise PipelineError(
        f"{'; '.join(str(candidate) for candidate in table if candidate.agreement)}: such an engine does not stand in "
        "for the network: give another --engine or --embed-precision (fp32 is the closest), or --force to use it"
    )


def _best(
    names: Sequence[str], precision: str, ground: Ground, table: list[Candidate]
) -> tuple[Engine | None, Engine | None]:
    """Return the fastest engine that passes, and the first that could be built; adds what was found to `table`.

    With one name nothing is timed.

    Raises:
        PipelineError: the only engine cannot be built.
    """
    built: dict[str, Engine] = {}
    agreements: dict[str, Agreement] = {}
    rates: dict[str, float] = {}
    problems: dict[str, str] = {}
    for name in names:
        if built and not ground.pays(name, rates, agreements):
            problems[name] = f"cannot save its preparation on {ground.n_tiles} tiles"
            continue
        try:
            built[name] = ground.build(name, precision)
        except PipelineError as error:
            if len(names) == 1:
                raise
            problems[name] = f"cannot be used ({error})"
            continue
        agreements[name] = ground.check(built[name])
        if len(names) > 1:
            rates = ground.race(built)
    table += [
        Candidate(name, precision, rates.get(name), agreements.get(name), problems.get(name, "")) for name in names
    ]
    best: str | None = None
    for name, agreement in agreements.items():
        if agreement.passes and (best is None or rates[name] >= GAIN * rates[best]):
            best = name
    return built.get(best or ""), next(iter(built.values()), None)


def _chosen(engine: Engine, table: list[Candidate], *, why: str) -> Choice:
    """Return the choice with its sentence."""
    own = next(c for c in table if (c.engine, c.precision) == (engine.name, engine.precision))
    others = [str(candidate) for candidate in table if candidate is not own]
    beside = f" (beside it: {'; '.join(others)})" if others else ""
    return Choice(engine, table, own.agreement, f"{own.timed}, {why}: {own.agreement}{beside}")
