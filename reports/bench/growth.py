"""How the stages grow with the tiles: each runs as a real command, timed, with the peak memory of its processes.

The tiles are the demo's, small ones. The network is trained once, briefly, on the smallest set. The heads get synthetic
embeddings in place of the extracted ones: a hardly trained network's would make every row a support vector.
"""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from pipeline.benchmark.memory import Watch
from pipeline.benchmark.scaling import Cost, Costs
from pipeline.benchmark.synthetic_data import synthetic_features, synthetic_logits
from pipeline.errors import BadArtifact, PipelineError
from pipeline.storage import atomic, records
from pipeline.storage.embeddings.partial_rows import PartialRows, row_type
from pipeline.storage.embeddings.reader import SCHEMA as EMBEDDINGS
from pipeline.storage.embeddings.reader import read_embeddings
from pipeline.storage.embeddings.writer import write_embeddings
from pipeline.tiles.datasets.sources import DataSource, find_tiles
from pipeline.tiles.manifest import read_manifest

STAGES = ("prepare", "extract", "fit_heads", "report")
TILE_PX = 64
BLOCK = 1024

BYTES_PER_TILE = 40_000
"""Room that a size needs: its tiles, embeddings twice, predictions."""


@dataclasses.dataclass(frozen=True)
class BenchConfig:
    """What all commands of a growth run are given; results of another setting are not continued."""

    arch: str
    device: str
    threads: int
    seed: int

    @property
    def words(self) -> list[str]:
        """The command line's share of it."""
        return ["--device", self.device, "--threads", str(self.threads), "--seed", str(self.seed)]


def run_stage(stage: str, words: Sequence[str], *, log: Path) -> Cost:
    """Run a command of this package in a process of its own and return its cost.

    Raises:
        PipelineError: it failed; says where its messages are.
    """
    command = [sys.executable, "-m", f"pipeline.{stage}", *words]
    root = str(Path(__file__).resolve().parents[2])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)  # noqa: S603
        try:
            with Watch(process.pid) as watch:
                code = process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
        seconds = time.perf_counter() - start
    if code != 0:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise PipelineError(f"growth: {stage} ended with code {code} ({(lines or ['no message'])[-1]}): see {log}")
    return Cost(seconds, watch.peak_bytes / 1e6)


def make_tiles(size: int, data_dir: Path, *, seed: int) -> None:
    """Make the demo set where `prepare` looks for it, so that its time is that of preparing alone."""
    find_tiles(DataSource("demo", data_dir=data_dir, demo_tiles=size, demo_px=TILE_PX), seed=seed)


def replace_embeddings(run: Path, *, seed: int) -> None:
    """Put synthetic features and logits into a run's embeddings.h5, in place of those that were extracted."""
    path = run / "embeddings.h5"
    table = read_manifest(run / "manifest.csv").table
    record, found = records.read_record(path), read_embeddings(path)
    y = found.label.astype(np.int64)
    features = synthetic_features(y, found.features.shape[1], seed=seed)
    logits = synthetic_logits(features, y, len(found.classes))
    scratch = PartialRows(path, row=row_type(features.shape[1], len(found.classes)), identity={}, batch=BLOCK)
    scratch.open(restart=True)
    for start in range(0, len(y), BLOCK):
        block = slice(start, start + BLOCK)
        rows = np.zeros(len(y[block]), scratch.row)
        rows["features"], rows["logits"], rows["sha256"] = features[block], logits[block], found.sha256[block]
        scratch.append(rows)
    given = ("classes", "preprocess", "model_sha256", "manifest_sha256", "versions", "precision")
    write_embeddings(path, scratch, table, attrs={name: found.attrs[name] for name in given})
    scratch.remove()
    records.write_record(
        records.Artifact(path, EMBEDDINGS, "extract", record["options"], [run / "manifest.csv"]),
        details=record["details"] | {"dataset": "synthetic embeddings"},
    )


def read_costs(work: Path, setting: BenchConfig) -> Costs:
    """Return what an interrupted growth run has measured; nothing if there is none.

    Raises:
        BadArtifact: it was measured with another setting.
    """
    path = work / "costs.json"
    costs: Costs = {stage: {} for stage in STAGES}
    if not path.is_file():
        return costs
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["setting"] != dataclasses.asdict(setting):
        raise BadArtifact(f"{path}: has another arch, device, threads or seed: give the same, or remove {work}")
    for stage, sizes in content["costs"].items():
        costs[stage] = {int(n): Cost(**cost) for n, cost in sizes.items()}
    return costs


def write_costs(work: Path, setting: BenchConfig, costs: Costs) -> None:
    """Keep what was measured so far."""
    plain = {stage: {str(n): dataclasses.asdict(cost) for n, cost in sizes.items()} for stage, sizes in costs.items()}
    atomic.write_text(work / "costs.json", atomic.to_json({"setting": dataclasses.asdict(setting), "costs": plain}))


def measure_growth(
    sizes: Sequence[int], setting: BenchConfig, work: Path, *, tell: Callable[[str], object] = lambda text: None
) -> Costs:
    """Run the stages at every size and return their costs; what `work` holds already is not run again.

    Args:
        sizes: numbers of tiles, rising.
        setting: for all commands.
        work: folder for tiles and runs; those of a size are removed when it is finished.
        tell: takes a line of progress.

    Raises:
        PipelineError: a command failed.
        BadArtifact: `work` holds results of another setting.
    """
    costs = read_costs(work, setting)
    model = work / "model" / "model.safetensors"
    for size in sizes:
        left = [stage for stage in STAGES if size not in costs[stage]]
        if not left:
            continue
        folder = work / str(size)
        atomic.require_space(work, size * BYTES_PER_TILE)
        steps = commands(size, folder, model, setting)
        if not model.is_file():
            train_small(sizes[0], model.parent, setting, tell=tell)
        tell(f"growth: {size} tiles: making them")
        make_tiles(size, folder / "data", seed=setting.seed)
        for stage in STAGES[STAGES.index(left[0]) :]:
            if stage == "fit_heads":
                replace_embeddings(folder / "run", seed=setting.seed)
            cost = run_stage(stage, steps[stage], log=folder / f"{stage}.log")
            costs[stage][size] = cost
            tell(f"growth: {size} tiles: {stage}: {cost.seconds:.1f} s, {cost.megabytes:.0f} MB")
            write_costs(work, setting, costs)
        shutil.rmtree(folder)
    return {stage: {size: costs[stage][size] for size in sizes} for stage in STAGES}


def commands(size: int, folder: Path, model: Path, setting: BenchConfig) -> dict[str, list[str]]:
    """Return the words of every stage's command line at one size; one engine throughout, so that sizes compare."""
    run = ["--run", str(folder / "run"), *setting.words]
    demo = ["--data", "demo", "--demo-tiles", str(size), "--demo-px", str(TILE_PX), "--data-dir", str(folder / "data")]
    return {
        "prepare": [*run, *demo, "--allow-leakage", "--restart"],
        "extract": [*run, "--model", str(model), "--engine", "torch", "--force", "--restart"],
        "fit_heads": [*run, "--restart"],
        "report": [*run, "--restart"],
    }


def train_small(size: int, run: Path, setting: BenchConfig, *, tell: Callable[[str], object]) -> None:
    """Train a network for one epoch on the smallest set, by the real commands."""
    tell("growth: training a network for an epoch")
    demo = ["--data", "demo", "--demo-tiles", str(size), "--demo-px", str(TILE_PX), "--data-dir", str(run / "data")]
    common = ["--run", str(run), *setting.words]
    run_stage("prepare", [*common, *demo, "--allow-leakage"], log=run / "prepare.log")
    how = ["--arch", setting.arch, "--tile-px", str(TILE_PX), "--epochs", "1"]
    run_stage("train", [*common, *how], log=run / "train.log")
