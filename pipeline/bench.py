"""Measure this machine: how fast the engines, the training, the heads and the files are, against what it could do.

Needs no run. Writes <machine>.csv, .md and .png into --out, where <machine> names the CPU or GPU and the cores: rates
beside those of a plain script and of the machine's limit, and for each target of the project whether it is met. Leave
the machine alone meanwhile: two cores take a quarter of an hour, half of it for scikit-learn's own search and XGBoost's
defaults. Stopped by Ctrl-C it writes what it has, as <machine>-partial.

    python -m pipeline.bench
    python -m pipeline.bench --only embed,train --rounds 5
    python -m pipeline.bench --growth 1000,5000,20000,80000     time and memory of the stages by number of tiles, hours
"""

import dataclasses
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.cli.command import CommandWithoutRun
from pipeline.cli.options import DEVICE, check, plain
from pipeline.errors import EXIT_OK, Interrupted
from pipeline.runtime.console import log
from pipeline.storage import environment

if TYPE_CHECKING:
    from pipeline.benchmark.config import BenchConfig
    from pipeline.benchmark.inputs import BenchInputs
    from pipeline.benchmark.measurement import Measurement

GROWN_BY = ("arch", "device", "threads", "growth", "seed")
"""Options that decide what --growth measures."""

PARTS = ("ceilings", "embed", "train", "heads", "hdf5")


def listed(words: str) -> tuple[str, ...]:
    """Return the words that commas separate."""
    return tuple(word.strip() for word in words.split(",") if word.strip())


@dataclasses.dataclass(frozen=True)
class BenchOptions:
    """What is measured, on what, and where the result goes."""

    out: Path = Path("reports/bench")
    """Folder of the results."""

    only: str = ""
    """Some of ceilings,embed,train,heads,hdf5, separated by commas; default: all. The names of the files say so."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps: where the network runs."""

    threads: int | None = None
    """Compute threads; default: all cores this process may use."""

    rounds: int = 3
    """How often each thing is measured, all things in turn."""

    quick: bool = False
    """Small sizes: to see that it works; the figures say little."""

    arch: Literal["resnet50", "resnet18", "resnet10"] = "resnet50"
    """The network that is measured."""

    tile_px: int = 150
    """Side of the tiles in px."""

    engines: str = ""
    """Some of the engines of embedding, separated by commas, with or without a precision: torch,openvino-bf16."""

    batches: str = ""
    """Tiles per batch of embedding, separated by commas; at the first the answers are compared. Default: 16,4,8,32,64,
    on a GPU 256,64,512."""

    model: Path | None = None
    """model.safetensors of a run, with its manifest beside it: compare the engines on its own tiles. Default: a
    network trained for some steps on synthetic tiles. Decides --arch and --tile-px."""

    growth: str = ""
    """Numbers of tiles, separated by commas: measure prepare, extract, fit_heads and report at each, nothing else."""

    seed: int = 0
    """Of tiles, weights and heads."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check(DEVICE.fullmatch(self.device), f"--device {self.device}: auto, cpu, cuda, cuda:1 or mps is needed")
        check(self.threads is None or self.threads >= 1, f"--threads {self.threads}: too small")
        check(self.rounds >= 1, f"--rounds {self.rounds}: at least 1")
        check(16 <= self.tile_px <= 1024, f"--tile-px {self.tile_px}: 16 to 1024 px")
        check(self.seed >= 0, f"--seed {self.seed}: a number from 0 up is needed")
        for name in listed(self.only):
            check(name in PARTS, f"--only {name}: known are {', '.join(PARTS)}")
        for word in listed(self.batches):
            check(word.isdecimal() and 0 < int(word) <= 8192, f"--batches {word}: numbers from 1 to 8192 are needed")
        for word in listed(self.growth):
            check(word.isdecimal() and int(word) >= 200, f"--growth {word}: numbers of tiles from 200 up are needed")
        check(not (self.growth and self.only), "--growth measures other things: give it without --only")

    @property
    def parts(self) -> tuple[str, ...]:
        """What is measured, in the order of the work."""
        asked = listed(self.only) or PARTS
        return tuple(part for part in PARTS if part in asked)

    @property
    def sizes(self) -> list[int]:
        """Numbers of tiles, rising."""
        return sorted({int(word) for word in listed(self.growth)})


def given(options: BenchOptions) -> dict[str, Any]:
    """Return the options that decide the result as plain values; of the model only that one was given."""
    return {
        name: value is not None if name == "model" else value for name, value in plain(options).items() if name != "out"
    }


def tell(text: str) -> None:
    """Say a line of progress, if somebody watches."""
    if sys.stderr.isatty():
        log.info(f"bench: {text}")


def measured(options: BenchOptions, setting: "BenchConfig", table: "list[Measurement]", remarks: list[str]) -> None:
    """Measure the parts one after the other, row by row into `table`; `remarks` takes what a reader must know."""
    material = None
    if {"embed", "train"} & set(options.parts):
        from pipeline.benchmark.inputs import demo_material, run_material

        if options.model:
            material = run_material(options.model, setting)
        else:
            material = demo_material(setting, arch=options.arch, tile_px=options.tile_px)
        remarks.append(f"The network: {material.said}.")
    for part in options.parts:
        tell(part)
        for row in rows_of(part, options, setting, table, material, remarks):
            add(table, row)


def rows_of(
    part: str,
    options: BenchOptions,
    setting: "BenchConfig",
    table: "list[Measurement]",
    material: "BenchInputs | None",
    remarks: list[str],
) -> "Iterator[Measurement]":
    """Yield the rows of one part as they are measured; `table` holds those of the parts before."""
    if part == "ceilings":
        from pipeline.benchmark.hardware_limits import measure_ceilings

        yield from measure_ceilings(setting)
    elif part == "embed" and material is not None:
        from pipeline.benchmark.embedding import measure_embedding

        yield from measure_embedding(setting, material, remarks)
    elif part == "train" and material is not None:
        from pipeline.benchmark.training import measure_training

        yield from measure_training(setting, material.model, material.train.pixels, material.train.y)
    elif part == "heads":
        from pipeline.benchmark.heads import measure_heads

        yield from measure_heads(setting)
    elif part == "hdf5":
        from pipeline.benchmark.hdf5_write import measure_storing

        yield from measure_storing(setting, table, options.out)


def add(table: "list[Measurement]", row: "Measurement") -> None:
    """Add a row; what was measured again beside another group joins the row that stands there."""
    same = ("part", "what", "unit", "precision", "batch")
    for i, there in enumerate(table):
        if all(getattr(there, name) == getattr(row, name) for name in same):
            table[i] = dataclasses.replace(there, values=there.values + row.values)
            return
    table.append(row)


def run(options: BenchOptions) -> int:
    """Measure, print the page and write it with its table and figure; return the exit code.

    Raises:
        Interrupted: Ctrl-C; what was measured is written.
    """
    from pipeline.benchmark.config import BenchConfig
    from pipeline.benchmark.hardware import machine_slug
    from pipeline.benchmark.write import write_bench
    from pipeline.network.engines import ENGINES
    from pipeline.runtime.device import n_cores, use_device

    known = {word for name, precisions in ENGINES.items() for word in (name, *(f"{name}-{p}" for p in precisions))}
    for name in listed(options.engines):
        check(name in known, f"--engines {name}: known are {', '.join(sorted(known))}")
    environment.git_state()
    device = use_device(options.device, options.threads)
    threads = options.threads or n_cores()
    setting = BenchConfig(
        device,
        threads=threads,
        rounds=options.rounds,
        seed=options.seed,
        is_quick=options.quick,
        engines=listed(options.engines),
        batches=tuple(map(int, listed(options.batches))),
        tell=tell,
    )
    machine = machine_slug(device, threads)
    if options.growth:
        return grow(options, setting, machine)
    table: list[Measurement] = []
    remarks: list[str] = ["A quick look at small sizes: the figures say little."] if options.quick else []
    suffix = [*(options.parts if options.only else []), *(["quick"] if options.quick else [])]
    name = "-".join([machine, *suffix])

    def keep(name: str) -> None:
        print(write_bench(options.out, name, table, setting=setting, given=given(options), remarks=remarks))
        log.info(f"bench: {options.out / name}.md")

    try:
        measured(options, setting, table, remarks)
    except BaseException as error:  # whatever ends it, the minutes before are not lost
        remarks.append(f"Stopped early ({type(error).__name__}): what was not measured by then is missing.")
        if table:
            keep(f"{name}-partial")
        if isinstance(error, KeyboardInterrupt):
            where = f"what was measured is in {options.out / name}-partial.md" if table else "nothing was measured yet"
            raise Interrupted(f"SIGINT: {where}", signum=signal.SIGINT) from None
        raise
    keep(name)
    return EXIT_OK


def grow(options: BenchOptions, setting: "BenchConfig", machine: str) -> int:
    """Measure the stages by number of tiles, write table, page and figure; return the exit code.

    Raises:
        UsageError: this system does not show the memory of processes.
        Interrupted: Ctrl-C; the sizes and stages that were finished are kept.
    """
    from pipeline.benchmark import scaling_run as growth
    from pipeline.benchmark.memory import is_told
    from pipeline.benchmark.write import write_growth

    check(is_told(), "--growth: this system does not show the memory of processes (Linux's /proc is needed)")
    name = f"{machine}-growth"
    work = options.out / f"{name}.partial"
    same = growth.BenchConfig(options.arch, str(setting.device), setting.threads, options.seed)
    try:
        costs = growth.measure_growth(options.sizes, same, work, tell=tell)
    except KeyboardInterrupt:
        kept = f"stages finished so far are kept in {work}; the same command continues"
        raise Interrupted(f"SIGINT: {kept}", signum=signal.SIGINT) from None
    print(write_growth(options.out, name, costs, setting=setting, given={key: given(options)[key] for key in GROWN_BY}))
    shutil.rmtree(work)
    log.info(f"bench: {options.out / name}.md")
    return EXIT_OK


main = CommandWithoutRun("pipeline.bench", __doc__, BenchOptions, run)
"""Entry point of `python -m pipeline.bench`."""


if __name__ == "__main__":
    raise SystemExit(main())
