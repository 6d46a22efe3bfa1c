"""Time and peak memory of merging shards of synthetic rows; writes merge.csv and merge.md beside it.

    python reports/scale/merge.py                          (64 shards of 1,000 rows of 2048 features: 1.1 GB of disk)
    python reports/scale/merge.py --rows 5000              (per shard; rows measured before stay in the table)

The files are written as `extract --shard` writes them; their numbers are random. The merge is a process of its own.
"""

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.storage import environment, records
from pipeline.storage.atomic import SHARDS, sha256_file
from pipeline.storage.embeddings.partial_rows import PartialRows, row_type
from pipeline.storage.embeddings.reader import SCHEMA
from pipeline.storage.embeddings.shards import Shard, ShardRows
from pipeline.storage.embeddings.writer import write_embeddings
from pipeline.tiles.manifest import write_manifest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.append(str(ROOT / "reports" / "bench"))

from stage_cost import Watch  # noqa: E402

COLUMNS = ("shards", "rows", "features", "commit", "read_mb", "written_mb", "seconds", "peak_mb")
CLASSES = [f"class {code}" for code in range(8)]
WIDTH, BATCH = 2048, 16


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--shards", type=int, default=64)
    parser.add_argument("--rows", type=int, default=1000, help="per shard")
    parser.add_argument(
        "--folder", type=Path, help="on the disk that is measured; default: the system's for such files"
    )
    args = parser.parse_args()
    found = measure(args.shards, args.rows, args.folder)
    table = HERE / "merge.csv"
    rows = []
    if table.is_file():
        with table.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    key = ("shards", "rows", "commit")
    new = {tuple(str(row[name]) for name in key) for row in found}
    rows = [row for row in rows if tuple(row[name] for name in key) not in new] + found
    rows.sort(key=lambda row: int(row["rows"]))
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    (HERE / "merge.md").write_text(page(rows), encoding="utf-8")


def measure(n_shards, n_rows, folder):
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT)  # noqa: S607
    found = []
    with tempfile.TemporaryDirectory(dir=folder) as name:
        run = Path(name) / "run"
        files = write_shards(run, n_shards, n_rows)
        size = sum(file.stat().st_size for file in files)
        out = run / "embeddings.h5"
        words = [sys.executable, "-m", "pipeline.merge", *map(str, files)]
        words += ["--manifest", str(run / "manifest.csv"), "--out", str(out)]
        start = time.perf_counter()
        process = subprocess.Popen(words, cwd=ROOT)  # noqa: S603
        with Watch(process.pid) as watch:
            if process.wait():
                raise SystemExit(f"the merge ended with code {process.returncode}")
        row = [n_shards, n_shards * n_rows, WIDTH, commit.stdout.strip(), round(size / 1e6)]
        row += [round(out.stat().st_size / 1e6, 1), round(time.perf_counter() - start, 1)]
        found.append(dict(zip(COLUMNS, [*row, round(watch.peak_bytes / 1e6)], strict=True)))
        print(found[-1])
    return found


def write_shards(run, n_shards, n_rows):
    """Write a manifest of n_shards times n_rows tiles that are nowhere, and its shards; return their files."""
    n, rng = n_shards * n_rows, np.random.default_rng(0)
    hashes = rng.integers(0, 256, (n, 32), dtype=np.uint8)
    names = [f"class {row % 8}/tile-{row:08d}" for row in range(n)]
    table = pd.DataFrame({"tile_id": names, "path": [f"{name}.png" for name in names]})
    table["label"] = [name.partition("/")[0] for name in names]
    table["group"] = [f"source {row % 200}" for row in range(n)]
    table["split"] = np.where(np.arange(n) % 10 < 7, "train", "test")
    table["sha256"] = [digest.tobytes().hex() for digest in hashes]
    table["width"] = table["height"] = 150
    table["problem"] = ""
    manifest, model = run / "manifest.csv", run / "model.safetensors"
    run.mkdir(parents=True)
    model.write_bytes(b"no weights")
    details = {"dataset": "synthetic", "protocol": "grouped"}
    write_manifest(manifest, table, root=run, options={}, details=details, outputs=[], seed=0)
    attrs = {"classes": CLASSES, "preprocess": {"size": 150}, "versions": environment.versions()}
    attrs |= {"model_sha256": sha256_file(model), "manifest_sha256": sha256_file(manifest)}
    attrs |= {"engine": "torch", "precision": "fp32", "views": 1, "encoder": "trained", "layer": "avgpool"}
    files = []
    for index in range(1, n_shards + 1):
        shard = Shard(index, n_shards)
        own = shard.rows(n, BATCH)
        file = run / SHARDS / shard.file_name
        file.parent.mkdir(exist_ok=True)
        scratch = PartialRows(file, row=row_type(WIDTH, len(CLASSES)), identity={}, batch=BATCH)
        scratch.open(restart=True)
        rows = np.zeros(len(own), scratch.row)
        rows["features"] = np.maximum(rng.standard_normal((len(own), WIDTH), dtype=np.float32), 0)
        rows["logits"] = rng.standard_normal((len(own), len(CLASSES)), dtype=np.float32)
        rows["sha256"] = hashes[own.start : own.stop]
        scratch.append(rows)
        held = {"shard": ShardRows(shard, own.start, n).attribute()}
        write_embeddings(file, scratch, table.iloc[own.start : own.stop], attrs=attrs | held)
        scratch.remove()
        records.write_record(
            records.Artifact(file, SCHEMA, "extract", {"shard": str(shard), "dtype": "float32"}, [manifest, model]),
            details={"skipped": {}, "batch": BATCH, "engine": "torch", "precision": "fp32", "views": 1},
        )
        files.append(file)
    return files


def page(rows):
    lines = [
        "# Merging shards",
        "",
        f"Synthetic rows of {WIDTH} float32 features, by `python reports/scale/merge.py`: bytes of all shards, bytes",
        "of the merged file, time and peak memory of `python -m pipeline.merge`, which reads every shard twice",
        "(against its record, and row by row).",
        "Two cores that other work used at the same time: the seconds are an upper bound.",
        "",
        "| shards | rows | commit | read, MB | written, MB | s | peak, MB |",
        "|---:|---:|---|---:|---:|---:|---:|",
    ]
    shown = [name for name in COLUMNS if name != "features"]
    lines += ["| " + " | ".join(str(row[name]) for name in shown) + " |" for row in rows]
    copies = [(int(row["rows"]), float(row["peak_mb"])) for row in rows]
    if copies[-1][0] > copies[0][0]:
        grown = (copies[-1][1] - copies[0][1]) * 1e6 / (copies[-1][0] - copies[0][0])
        lines += [
            "",
            f"The peak grows by {grown:.0f} bytes a row: the manifest's table; a row of features has {4 * WIDTH}.",
        ]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
