"""Time and peak memory of extracting the same tiles by one process and by two; writes extract.csv and .md beside it.

    python reports/scale/extract.py --tiles 20000

The tiles are the demo's, 64 px, the network a ResNet-50 trained for an epoch on a thousand of them. Every way is
started anew in each round, the ways in turn. Their files are compared byte by byte with the first way's; another number
of threads adds in another order.
"""

import argparse
import csv
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pipeline.benchmark.hardware import cpu_name
from pipeline.runtime.device import n_cores
from pipeline.storage.atomic import sha256_file

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.append(str(ROOT / "reports" / "bench"))

from growth import TILE_PX, Setting, make_tiles, train_small  # noqa: E402
from stage_cost import Watch  # noqa: E402

COLUMNS = ("way", "tiles", "seconds", "tiles_per_second", "times_the_first", "peak_mb", "same_bytes", "commit")
ENGINE = ["--engine", "torch", "--embed-precision", "bf16", "--device", "cpu", "--force"]


def ways(run, model):
    """Return the name of each way and the commands that are started at once in each of its steps."""
    words = ["--run", str(run), "--model", str(model), *ENGINE, "--restart"]
    python = [sys.executable, "-m"]
    extract, half = [*python, "pipeline.extract", *words], ["--threads", str(n_cores() // 2)]
    torchrun = [*python, "torch.distributed.run", "--nproc-per-node", "2", "-m", "--", "pipeline.extract", *words]
    shards = [[*extract, *half, "--shard", f"{i}/2"] for i in (1, 2)]
    files = [str(run / "shards" / f"embeddings-{i}-of-2.h5") for i in (1, 2)]
    merge = [*python, "pipeline.merge", *files, "--restart", "--force"]
    merge += ["--manifest", str(run / "manifest.csv"), "--out", str(run / "embeddings.h5")]
    return {
        f"one process, {n_cores() // 2} thread(s)": [[[*extract, *half]]],
        f"one process, {n_cores()} threads": [[extract]],
        "two processes of torchrun": [[torchrun]],
        "two shards at once, then merge": [shards, [merge]],
    }


def timed(steps, log):
    """Run the steps one after another; return seconds and peak memory in MB."""
    peak, start = 0, time.perf_counter()
    with log.open("wb") as file:
        for commands in steps:
            running = [subprocess.Popen(words, cwd=ROOT, stdout=file, stderr=file) for words in commands]  # noqa: S603
            watches = [Watch(process.pid) for process in running]
            for watch in watches:
                watch.__enter__()
            codes = [process.wait() for process in running]
            for watch in watches:
                watch.__exit__(None, None, None)
            if any(codes):
                raise SystemExit(f"{commands} ended with {codes}: see {log}")
            peak = max(peak, sum(watch.peak_bytes for watch in watches))
    return time.perf_counter() - start, peak / 1e6


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tiles", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, help="folder of tiles and runs; default: a temporary one")
    args = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT)  # noqa: S607
    with tempfile.TemporaryDirectory(dir=args.work) as name:
        work = Path(name)
        train_small(1000, work / "model", Setting("resnet50", "cpu", n_cores(), 0), tell=print)
        make_tiles(args.tiles, work / "data", seed=0)
        run, log = work / "run", work / "log"
        demo = ["--data", "demo", "--demo-tiles", str(args.tiles), "--demo-px", str(TILE_PX), "--allow-leakage"]
        prepare = [sys.executable, "-m", "pipeline.prepare", "--run", str(run), "--data-dir", str(work / "data"), *demo]
        subprocess.run(prepare, cwd=ROOT, check=True)  # noqa: S603
        found, digests = {}, {}
        for _ in range(args.rounds):
            for way, steps in ways(run, work / "model" / "model.safetensors").items():
                found.setdefault(way, []).append(timed(steps, log))
                digests[way] = sha256_file(run / "embeddings.h5")
                print(way, found[way][-1], flush=True)
    rows = []
    for way, rounds in found.items():
        seconds = statistics.median(seconds for seconds, _ in rounds)
        first = statistics.median(rounds[0] for rounds in next(iter(found.values())))
        peak = max(peak for _, peak in rounds)
        cells = (way, args.tiles, round(seconds, 1), round(args.tiles / seconds, 1), round(first / seconds, 2))
        same = "yes" if digests[way] == next(iter(digests.values())) else "no"
        rows.append(dict(zip(COLUMNS, (*cells, round(peak), same, commit.stdout.strip()), strict=True)))
    with (HERE / "extract.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    (HERE / "extract.md").write_text(page(rows, args), encoding="utf-8")


def page(rows, args):
    """Return extract.md."""
    lines = [
        "# Extraction by one process and by two",
        "",
        f"{args.tiles} synthetic tiles of {TILE_PX} px, ResNet-50, torch in bf16, {n_cores()} cores of {cpu_name()};",
        f"`python reports/scale/extract.py --tiles {args.tiles} --rounds {args.rounds}`, medians of the rounds.",
        "Seconds are of whole commands, from start to end; memory is of all processes together.",
        "",
        "| way | s | tiles/s | times the first | peak, MB | the first's bytes | commit |",
        "|---|---:|---:|---:|---:|---|---|",
        *("| " + " | ".join(str(row[name]) for name in COLUMNS if name != "tiles") + " |" for row in rows),
    ]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
