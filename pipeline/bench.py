"""Measure this machine: how fast it embeds, trains and fits heads, next to a plain script and to its own limits.

Needs no run. Writes <machine>.csv and .md into --out; <machine> names the CPU or GPU and the cores. Takes at most five
minutes on two cores. Leave the machine alone meanwhile.

    python -m pipeline.bench
    python -m pipeline.bench --only embed,train --rounds 5
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipeline.cli.command import command_without_run
from pipeline.cli.options import DEVICE, check, plain
from pipeline.errors import EXIT_OK
from pipeline.runtime.console import log
from pipeline.storage import environment

if TYPE_CHECKING:
    from pipeline.benchmark.config import BenchConfig
    from pipeline.benchmark.measurement import Measurement

PARTS = ("limits", "embed", "train", "heads")

N_TILES, N_CLASSES = 256, 8
"""Random tiles that a network with random weights embeds and is trained on: their content does not change the speed."""


@dataclasses.dataclass(frozen=True)
class BenchOptions:
    """What is measured, on what, and where the result goes."""

    out: Path = Path("reports/bench")
    """Folder of the results."""

    only: str = ""
    """Some of limits,embed,train,heads, separated by commas; default: all. The names of the files include them."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps: where the network runs."""

    threads: int | None = None
    """Compute threads; default: all cores this process may use."""

    rounds: int = 3
    """Number of rounds; each round measures everything once."""

    quick: bool = False
    """Small sizes: to see that it works; the figures mean little."""

    arch: Literal["resnet50", "resnet18", "resnet10"] = "resnet50"
    """The network that is measured."""

    tile_px: int = 150
    """Side of the tiles in px."""

    seed: int = 0
    """Seed of tiles, weights and heads."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check(DEVICE.fullmatch(self.device), f"--device {self.device}: auto, cpu, cuda, cuda:1 or mps is needed")
        check(self.threads is None or self.threads >= 1, f"--threads {self.threads}: too small")
        check(self.rounds >= 1, f"--rounds {self.rounds}: at least 1")
        check(16 <= self.tile_px <= 1024, f"--tile-px {self.tile_px}: 16 to 1024 px")
        check(self.seed >= 0, f"--seed {self.seed}: a number from 0 up is needed")
        for name in self.only.split(",") if self.only else ():
            check(name in PARTS, f"--only {name}: known are {', '.join(PARTS)}")

    @property
    def parts(self) -> tuple[str, ...]:
        """What is measured, in the order of the work."""
        return tuple(part for part in PARTS if not self.only or part in self.only.split(","))


def measure(part: str, options: BenchOptions, config: "BenchConfig") -> "Iterator[Measurement]":
    """Yield the rows of one part of `PARTS`."""
    if part == "limits":
        from pipeline.benchmark.hardware_limits import measure_limits

        yield from measure_limits(config)
    elif part == "heads":
        from pipeline.benchmark.heads import measure_heads

        yield from measure_heads(config)
    else:
        import numpy as np
        import torch

        from pipeline.benchmark.embedding import measure_embedding
        from pipeline.benchmark.training import measure_training
        from pipeline.network.model_file import Model
        from pipeline.network.preprocess import Preprocess
        from pipeline.network.resnet import build_network

        rng = np.random.default_rng(options.seed)
        n = config.size(N_TILES, 32)
        drawn = rng.integers(0, 256, (n, options.tile_px, options.tile_px, 3), dtype=np.uint8)
        pixels = torch.from_numpy(drawn).permute(0, 3, 1, 2)
        classes = [str(code) for code in range(N_CLASSES)]
        preprocess = Preprocess(size=options.tile_px).as_json()
        network = build_network(options.arch, n_classes=N_CLASSES, seed=options.seed).eval()
        model = Model(network, {"arch": options.arch, "classes": classes, "preprocess": preprocess}, {})
        if part == "embed":
            yield from measure_embedding(config, model, pixels)
        else:
            yield from measure_training(config, model, pixels, rng.integers(0, N_CLASSES, n))


def run(options: BenchOptions) -> int:
    """Measure, write table and page, and print the page; return the exit code."""
    from pipeline.benchmark.config import BenchConfig
    from pipeline.benchmark.hardware import machine_slug
    from pipeline.benchmark.report_page import write_bench
    from pipeline.runtime.device import n_cores, use_device

    environment.git_state()
    device = use_device(options.device, options.threads)
    threads = options.threads or n_cores()
    config = BenchConfig(device, threads, options.rounds, options.seed, options.quick)
    table: list[Measurement] = []
    for part in options.parts:
        log.info(f"bench: {part}")
        table += measure(part, options, config)
    words = [machine_slug(device, threads), *(options.parts if options.only else []), *(["quick"] * options.quick)]
    path = options.out / f"{'-'.join(words)}.csv"
    kept = {name: value for name, value in plain(options).items() if name != "out"}
    print(write_bench(path, table, config=config, options=kept))
    log.info(f"bench: {path.with_suffix('.md')}")
    return EXIT_OK


main = command_without_run("pipeline.bench", __doc__, BenchOptions, run)
"""Entry point of `python -m pipeline.bench`."""


if __name__ == "__main__":
    raise SystemExit(main())
