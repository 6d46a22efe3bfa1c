"""Measure what keeping embeddings costs: the crash-safe rows of an extraction and the HDF5 file made of them.

python reports/bench/hdf5_write.py               writes <machine>-hdf5.csv next to this file
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from pipeline.benchmark.config import seconds_of
from pipeline.benchmark.hardware import machine_slug
from pipeline.benchmark.measurement import OURS, Measurement, to_csv
from pipeline.benchmark.synthetic_data import synthetic_attrs
from pipeline.runtime.device import n_cores
from pipeline.storage import atomic
from pipeline.storage.embeddings.partial_rows import PartialRows, row_type
from pipeline.storage.embeddings.writer import write_embeddings

WIDTH, N_CLASSES, BATCH = 2048, 8, 16


def store(folder, features, logits):
    """Write rows as `extract` does: batch by batch into the scratch file, then into embeddings.h5."""
    n = len(features)
    target = folder / "embeddings.h5"
    scratch = PartialRows(target, row=row_type(features.shape[1], logits.shape[1]), identity={}, batch=BATCH)
    scratch.open(restart=True)
    for start in range(0, n, BATCH):
        rows = np.zeros(min(BATCH, n - start), scratch.row)
        rows["features"], rows["logits"] = features[start : start + BATCH], logits[start : start + BATCH]
        scratch.append(rows)
    names = [f"{row:06d}" for row in range(n)]
    table = pd.DataFrame({"tile_id": names, "path": names, "group": "", "label": "a", "split": "train"})
    classes = [chr(ord("a") + code) for code in range(logits.shape[1])]
    write_embeddings(target, scratch, table, attrs=synthetic_attrs(classes))
    scratch.remove()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="on the disk that is measured")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    features = np.maximum(rng.standard_normal((args.rows, WIDTH), dtype=np.float32), 0)
    logits = rng.standard_normal((args.rows, N_CLASSES), dtype=np.float32)
    with tempfile.TemporaryDirectory(dir=args.out, prefix=".bench-") as folder:
        seconds = [seconds_of(lambda: store(Path(folder), features, logits)) for _ in range(args.rounds + 1)][1:]
    rates = tuple(args.rows / value for value in seconds)
    text = to_csv([Measurement("hdf5", OURS, "rows/s", rates, note=f"{args.rows} rows of {WIDTH} features")])
    atomic.write_text(args.out / f"{machine_slug(torch.device('cpu'), n_cores())}-hdf5.csv", text)
    print(text)


if __name__ == "__main__":
    main()
