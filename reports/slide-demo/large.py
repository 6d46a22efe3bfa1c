"""Time and peak memory of a 40,000 x 40,000 px synthetic slide through all its commands; writes large.md beside it.

    python reports/slide-demo/large.py reports/demo            (a run of `python -m pipeline`; minutes to an hour)

Memory is that of all processes of a command together. Reading is timed by itself, in one process and by its own
processor time, and held against that of the whole extraction: what share of the work it is, whatever else runs.
"""

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.slides.grid import read_grid
from pipeline.slides.openslide_reader import open_slide
from pipeline.slides.place import grid_path

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "bench"))

from stage_cost import run_stage  # noqa: E402

SAMPLE = 2000


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--side", type=int, default=40_000)
    parser.add_argument("--source", type=int, default=1)
    args = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=HERE).stdout.strip()  # noqa: S607
    name = f"CRC-Prim-HE-{args.source:02d}_demo{args.side}-seed0"
    slide, logs = Path("data/demo-slides") / f"{name}.tif", args.run / "logs"
    run = ["--run", str(args.run)]
    rows = []

    def stage(command, *words):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        cost = run_stage(command, [str(word) for word in words], log=logs / f"{command}.log")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        rows.append((command, cost.seconds, used, cost.megabytes))
        return used

    stage("demo_slide", "--side", args.side, "--source", args.source)
    stage("tile", *run, slide)
    whole = stage("extract", *run, "--slide", slide)
    embeddings = grid_path(args.run, name).with_name(f"{name}.h5")
    truth = slide.with_name(f"{name}-truth.png")
    stage("predict", *run, "--embeddings", embeddings, "--head", "all", "--truth", truth, "--geojson", "regions")

    grid = read_grid(grid_path(args.run, name))
    first = np.random.default_rng(0).integers(0, len(grid.coords) - SAMPLE)  # neighbours, as they are read
    with open_slide(slide) as opened:
        start = time.process_time()
        for x, y in grid.coords[first : first + SAMPLE]:
            opened.read_tile(int(x), int(y), grid.info.patch_size_level0, grid.info.tile_px)
        per_tile = (time.process_time() - start) / SAMPLE
    lines = [
        f"# {args.side:,} x {args.side:,} px, {len(grid.coords):,} tiles",
        "",
        f"Made by `python reports/slide-demo/large.py {args.run}` at commit {commit}.",
        "",
        "| command | s | processor s | peak memory, MB |",
        "|---|---:|---:|---:|",
        *(
            f"| {command} | {seconds:.0f} | {used:.0f} | {megabytes:.0f} |"
            for command, seconds, used, megabytes in rows
        ),
        "",
        f"Reading and resizing: {1e3 * per_tile:.2f} ms of processor time a tile,",
        f"{100 * per_tile * len(grid.coords) / whole:.1f} % of that of the extraction.",
        "",
        "| head | mean IoU of the classes that are there |",
        "|---|---:|",
    ]
    iou = pd.read_csv(args.run / "maps" / name / "iou.csv")
    for head, part in iou[iou.n_cells > 0].groupby("head", sort=False):
        lines.append(f"| {head} | {part.iou.mean():.3f} |")
    (HERE / "large.md").write_text("\n".join([*lines, ""]))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
