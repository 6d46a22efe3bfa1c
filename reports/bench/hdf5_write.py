"""What keeping embeddings costs: the crash-safe rows of an extraction and the HDF5 file made of them."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.benchmark.config import BenchConfig, interleaved, seconds_of
from pipeline.benchmark.measurement import OURS, Measurement
from pipeline.benchmark.targets import best_engine, named
from pipeline.storage.embeddings.partial_rows import PartialRows, row_type
from pipeline.storage.embeddings.writer import write_embeddings

WIDTH, N_CLASSES, BATCH = 2048, 8, 16


def store(folder: Path, features: np.ndarray, logits: np.ndarray) -> None:
    """Write rows as `extract` does: batch by batch into the scratch, then into embeddings.h5."""
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
    attrs = {"classes": classes, "preprocess": {}, "model_sha256": "", "manifest_sha256": "", "versions": {}}
    write_embeddings(target, scratch, table, attrs=attrs)
    scratch.remove()


def measure_storing(setting: BenchConfig, table: Sequence[Measurement], folder: Path) -> Iterator[Measurement]:
    """Yield the rate of writing rows and its share of an extraction by the fastest engine measured before.

    Args:
        setting: how.
        table: what was measured before.
        folder: on the disk that results go to.
    """
    n = setting.sized(4096, 256)
    rng = np.random.default_rng(setting.seed)
    features = np.maximum(rng.standard_normal((n, WIDTH), dtype=np.float32), 0)
    logits = rng.standard_normal((n, N_CLASSES), dtype=np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".bench-") as name:

        def rate() -> float:
            return n / seconds_of(lambda: store(Path(name), features, logits))

        rate()
        values = interleaved({"hdf5": rate}, rounds=setting.rounds, tell=setting.tell)["hdf5"]
    best = best_engine(table)
    note, share = f"{n} rows of {WIDTH} features", None
    if best is not None:
        writing, embedding = 1 / float(np.median(values)), 1 / best.median
        share = writing / (writing + embedding)
        note += f", in an extraction by {named(best)}"
    yield Measurement("hdf5", OURS, "rows/s", tuple(values), share=share, note=note)
