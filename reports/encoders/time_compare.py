"""Time fit_heads and compare on three runs of synthetic embeddings: 5000 tiles of 100 groups and eight classes.

    OMP_NUM_THREADS=1 python reports/encoders/time_compare.py --work data/time --threads 1

Embedding is not counted, so that the rows are drawn. Heads are tuned as by default. Printed are the time of each stage
and its processor time, which a busy machine changes less.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline import compare, fit_heads, import_embeddings

N_TILES, N_GROUPS, N_CLASSES = 5000, 100, 8

WIDTHS = {"a": 2048, "b": 1280, "c": 1024}
"""Run -> width of an embedding: that of ResNet-50, EfficientNet-Lite0 and UNI."""


def make_inputs(work: Path) -> None:
    """Write <run>.npy for each run, and labels.csv: classes overlap, and each group shifts its tiles."""
    rng = np.random.default_rng(0)
    label, group = rng.integers(N_CLASSES, size=N_TILES), np.arange(N_TILES) % N_GROUPS
    for run, width in WIDTHS.items():
        centres, shifts = (rng.normal(size=(n, width)) for n in (N_CLASSES, N_GROUPS))
        noise = rng.normal(size=(N_TILES, width))
        np.save(work / f"{run}.npy", (0.12 * centres[label] + 0.3 * shifts[group] + noise).astype(np.float32))
    names = [f"tile_{i:04d}" for i in range(N_TILES)]
    table = pd.DataFrame({"tile_id": names, "label": [f"class_{i}" for i in label]})
    table["group"] = [f"group_{i:03d}" for i in group]
    table.to_csv(work / "labels.csv", index=False)


def timed(what: str, command: Callable[[list[str]], int], *words: object) -> None:
    """Run a command to its good end, and print its time, and that of the processor."""
    start, busy = time.perf_counter(), time.process_time()
    if code := command([*map(str, words), "--quiet"]):
        raise SystemExit(f"{what} ended with {code}")
    print(f"{what}: {time.perf_counter() - start:.1f} s, CPU {time.process_time() - busy:.1f} s", flush=True)


def main() -> None:
    """Make the runs, fit and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs, which are made again")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    work = options.work
    work.mkdir(parents=True, exist_ok=True)
    make_inputs(work)
    for run, width in WIDTHS.items():
        words = (work / f"{run}.npy", "--labels", work / "labels.csv", "--run", work / run, "--restart")
        timed(f"import {run}, {N_TILES} x {width}", import_embeddings.main, *words)
        words = ("--run", work / run, "--threads", options.threads, "--restart")
        timed(f"fit_heads {run}", fit_heads.main, *words)
    runs = [work / run for run in WIDTHS]
    timed("compare", compare.main, *runs, "--out", work / "table", "--restart")
    print(f"{options.threads} threads, load of the machine {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
