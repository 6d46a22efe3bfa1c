"""Measure time and memory of the stages by number of tiles; write <machine>-growth.csv, .md and .png next to this file.

    python reports/bench/growth.py --sizes 1000 5000 20000 80000          (hours; the same command continues)

Each stage runs as a real command. The tiles are the demo's, 64 px. The network is trained once, for an epoch, on the
smallest set. The heads get synthetic embeddings in place of the extracted ones: those of a hardly trained network would
make every row a support vector.
"""

import argparse
import csv
import dataclasses
import io
import json
import shutil
from pathlib import Path

import numpy as np
from figures import draw_growth
from stage_cost import Cost, run_stage, shows_memory

from pipeline.benchmark.config import BenchConfig
from pipeline.benchmark.hardware import machine_slug
from pipeline.benchmark.report_page import facts
from pipeline.benchmark.synthetic_data import synthetic_features, synthetic_logits
from pipeline.markup.document import Bullets, Document, Figure, Section, Table, Text, to_markdown
from pipeline.runtime.device import n_cores, use_device
from pipeline.storage import atomic, records
from pipeline.storage.embeddings.partial_rows import PartialRows, row_type
from pipeline.storage.embeddings.reader import SCHEMA as EMBEDDINGS
from pipeline.storage.embeddings.reader import read_embeddings
from pipeline.storage.embeddings.writer import write_embeddings
from pipeline.tiles.datasets.sources import DataSource, find_tiles
from pipeline.tiles.manifest import read_manifest

STAGES = ("prepare", "extract", "fit_heads", "report")
TILE_PX, BLOCK = 64, 1024

BYTES_PER_TILE = 40_000
"""Disk space that a size needs: its tiles, embeddings twice, predictions."""

STEEPEST = 1.1
"""Slope up to which a stage counts as linear in time."""

KB_PER_TILE = 2.0
"""Memory per further tile up to which a stage counts as flat: far below a tile's pixels (12 kB) or features (8 kB)."""

Costs = dict[str, dict[int, Cost]]
"""Stage -> number of tiles -> cost."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all commands of a growth run get; results of another setting are not continued."""

    arch: str
    device: str
    threads: int
    seed: int

    @property
    def words(self):
        return ["--device", self.device, "--threads", str(self.threads), "--seed", str(self.seed)]


# -- commands ----------------------------------------------------------------------------------------------------------


def demo_words(size, data_dir):
    return ["--data", "demo", "--demo-tiles", str(size), "--demo-px", str(TILE_PX), "--data-dir", str(data_dir)]


def commands(size, folder, model, setting):
    """Return the words of every stage's command line at one size, by one engine, so that sizes compare."""
    run = ["--run", str(folder / "run"), *setting.words]
    return {
        "prepare": [*run, *demo_words(size, folder / "data"), "--allow-leakage", "--restart"],
        "extract": [*run, "--model", str(model), "--engine", "torch", "--force", "--restart"],
        "fit_heads": [*run, "--restart"],
        "report": [*run, "--restart"],
    }


def train_small(size, run, setting):
    """Train a network for one epoch on the smallest set, by the real commands."""
    common = ["--run", str(run), *setting.words]
    run_stage("prepare", [*common, *demo_words(size, run / "data"), "--allow-leakage"], log=run / "prepare.log")
    words = ["--arch", setting.arch, "--tile-px", str(TILE_PX), "--epochs", "1"]
    run_stage("train", [*common, *words], log=run / "train.log")


def make_tiles(size, data_dir, *, seed):
    """Make the demo set where `prepare` looks for it, so that its time is that of preparing alone."""
    find_tiles(DataSource("demo", data_dir=data_dir, demo_tiles=size, demo_px=TILE_PX), seed=seed)


def replace_embeddings(run, *, seed):
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
    names = ("classes", "preprocess", "encoder", "layer", "model_sha256", "manifest_sha256", "versions", "precision")
    write_embeddings(path, scratch, table, attrs={name: found.attrs[name] for name in names})
    scratch.remove()
    records.write_record(
        records.Artifact(path, EMBEDDINGS, "extract", record["options"], [run / "manifest.csv"]),
        details=record["details"] | {"dataset": "synthetic embeddings"},
    )


# -- measuring ---------------------------------------------------------------------------------------------------------


def read_costs(work, setting):
    """Return what an interrupted run has measured; nothing if there is none."""
    path = work / "costs.json"
    costs = {stage: {} for stage in STAGES}
    if path.is_file():
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["setting"] != dataclasses.asdict(setting):
            raise SystemExit(f"{path}: has another arch, device, threads or seed: give the same, or remove {work}")
        for stage, sizes in content["costs"].items():
            costs[stage] = {int(n): Cost(**cost) for n, cost in sizes.items()}
    return costs


def write_costs(work, setting, costs):
    plain = {stage: {str(n): dataclasses.asdict(cost) for n, cost in sizes.items()} for stage, sizes in costs.items()}
    atomic.write_text(work / "costs.json", atomic.to_json({"setting": dataclasses.asdict(setting), "costs": plain}))


def measure_growth(sizes, setting, work):
    """Run the stages at every size and return their costs; what `work` holds already is not run again."""
    costs = read_costs(work, setting)
    model = work / "model" / "model.safetensors"
    for size in sizes:
        left = [stage for stage in STAGES if size not in costs[stage]]
        if not left:
            continue
        folder = work / str(size)
        atomic.require_space(work, size * BYTES_PER_TILE)
        if not model.is_file():
            train_small(sizes[0], model.parent, setting)
        make_tiles(size, folder / "data", seed=setting.seed)
        for stage in STAGES[STAGES.index(left[0]) :]:
            if stage == "fit_heads":
                replace_embeddings(folder / "run", seed=setting.seed)
            words = commands(size, folder, model, setting)[stage]
            cost = costs[stage][size] = run_stage(stage, words, log=folder / f"{stage}.log")
            print(f"{size} tiles: {stage}: {cost.seconds:.1f} s, {cost.megabytes:.0f} MB", flush=True)
            write_costs(work, setting, costs)
        shutil.rmtree(folder)
    return {stage: {size: costs[stage][size] for size in sizes} for stage in STAGES}


# -- the page ----------------------------------------------------------------------------------------------------------


def slope(values):
    """Return the exponent b of a n^b by least squares on logarithms; None for fewer than two sizes."""
    if len(values) < 2:
        return None
    x, y = np.log(np.array(sorted(values), dtype=float)), np.log([values[n] for n in sorted(values)])
    return float(np.polyfit(x, y, 1)[0])


def last_slope(sizes, what):
    """Return the exponent between the two largest sizes, where starting up weighs least."""
    return slope({n: getattr(sizes[n], what) for n in sorted(sizes)[-2:]})


def kb_per_tile(sizes):
    """Return by how much memory grows between the two largest sizes, in kB (10^3 bytes) a tile."""
    if len(sizes) < 2:
        return None
    low, high = sorted(sizes)[-2:]
    return 1e3 * (sizes[high].megabytes - sizes[low].megabytes) / (high - low)


def verdict(stage, sizes):
    """Return a sentence on a stage's time and memory."""
    steep, grown = last_slope(sizes, "seconds"), kb_per_tile(sizes)
    if steep is None or grown is None:
        return f"{stage}: one size shows no growth"
    in_time = "linear in time or better" if steep <= STEEPEST else "MORE THAN LINEAR in time"
    in_memory = "flat in memory" if grown <= KB_PER_TILE else "growing in memory"
    kept = f"{in_memory} ({grown:.2f} kB for each further tile)"
    return f"{stage}: {in_time} (slope {steep:.2f}), {kept}, between the two largest sizes"


def to_csv(costs):
    """Return rows with stage, tiles, seconds and megabytes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["stage", "tiles", "seconds", "megabytes"])
    for stage, sizes in costs.items():
        for n, cost in sorted(sizes.items()):
            writer.writerow([stage, n, f"{cost.seconds:.2f}", f"{cost.megabytes:.1f}"])
    return text.getvalue()


def to_page(title, costs, *, lines, figure):
    """Return the page as Markdown; `lines` describe the machine, `figure` is the name of the PNG."""
    every = sorted({n for sizes in costs.values() for n in sizes})
    tables = []
    for what, unit, digits in (("seconds", "s", 1), ("megabytes", "MB", 0)):
        rows = []
        for stage, sizes in costs.items():
            values = {n: getattr(cost, what) for n, cost in sizes.items()}
            slopes = [slope(values), last_slope(sizes, what)]
            shown = [f"{values[n]:.{digits}f}" if n in values else "" for n in every]
            rows.append([stage, *shown, *("" if value is None else f"{value:.2f}" for value in slopes)])
        head = ["stage", *(f"{n:,} tiles" for n in every), "slope, all", "slope, last two"]
        caption = {"s": "Time in seconds", "MB": "Peak memory of all processes of the stage together, in MB"}[unit]
        tables.append(Table(head, rows, caption=caption))
    method = (
        "Each stage was run as a command of its own on synthetic tiles of 64 px; making the tiles does not count. "
        "fit_heads and report were given synthetic embeddings. Every stage needs some seconds to start, which lowers "
        "the slope over all sizes."
    )
    drawn = Figure(figure, "Time and memory of the stages by number of tiles", "Both axes logarithmic.")
    sections = [
        Section("Verdict", [Bullets([verdict(stage, costs[stage]) for stage in costs])]),
        Section("Figure", [drawn]),
        Section("Time and memory", tables),
        Section("Machine, versions, command", [Text(method), Bullets(lines)]),
    ]
    return to_markdown(Document(title, sections))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 5000, 20_000, 80_000], help="numbers of tiles")
    parser.add_argument("--arch", default="resnet50")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=n_cores())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    if not shows_memory():
        raise SystemExit("this system does not show the memory of processes (Linux's /proc is needed)")
    if min(args.sizes) < 200:
        raise SystemExit("--sizes: at least 200 tiles are needed")
    device = use_device(args.device, args.threads)
    path = args.out / f"{machine_slug(device, args.threads)}-growth.csv"
    work = path.with_suffix(".partial")
    costs = measure_growth(sorted(args.sizes), Setting(args.arch, str(device), args.threads, args.seed), work)
    page, figure = path.with_suffix(".md"), path.with_suffix(".png")
    draw_growth(figure, costs, slopes={stage: last_slope(sizes, "seconds") for stage, sizes in costs.items()})
    lines = facts(BenchConfig(device, args.threads, 1, args.seed), {})[:-1]
    words = " ".join(["python reports/bench/growth.py --sizes", *map(str, sorted(args.sizes))])
    lines.append(f"Command: {words} --arch {args.arch} --threads {args.threads}")
    atomic.write_text(path, to_csv(costs))
    atomic.write_text(page, to_page(f"Growth: {path.stem}", costs, lines=lines, figure=figure.name))
    shutil.rmtree(work)
    print(page)


if __name__ == "__main__":
    main()
