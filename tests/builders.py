"""Build run folders with fabricated files, for tests that need rows and no pixels."""

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.storage import records
from pipeline.storage.embeddings.partial_rows import PartialRows, row_type
from pipeline.storage.embeddings.reader import SCHEMA
from pipeline.storage.embeddings.writer import write_embeddings

CLASSES = ["a", "b", "c"]
D = 6
"""Features of a tile."""


def make_run(
    run: Path,
    *,
    n: int = 120,
    seed: int = 0,
    bad: tuple[int, ...] = (),
    leak_train: bool = False,
    classes: int = 3,
    dtype: str = "float32",
) -> Path:
    """Write embeddings.h5 with its record: noisy class centres, splits 60/20/20, no tiles behind them."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    split = np.array(["train", "train", "train", "val", "test"])[(np.arange(n) // classes) % 5]
    centres = np.random.default_rng(5).normal(size=(3, D))
    features = (centres[y] * 1.2 + rng.normal(size=(n, D))).astype(np.float32)
    if leak_train:  # one feature tells the label, but only of tiles the network was trained on
        features[:, 0] = np.where(split == "train", y, rng.integers(0, classes, n))
    logits = (features @ centres.T).astype(np.float32)
    table = pd.DataFrame(
        {
            "tile_id": [f"t{i}" for i in range(n)],
            "path": [f"t{i}.png" for i in range(n)],
            "group": [f"g{i % 7}" for i in range(n)],
            "label": np.array(CLASSES)[y],
            "split": split,
        }
    )
    run.mkdir(parents=True, exist_ok=True)
    path = run / "embeddings.h5"
    scratch = PartialRows(path, row=row_type(D, 3), identity={}, batch=8)
    scratch.open(restart=True)
    rows = np.zeros(n, scratch.row)
    rows["features"], rows["logits"], rows["sha256"] = features, logits, 1
    for i in bad:
        rows[i] = np.zeros((), scratch.row)
        rows["status"][i] = 1
    scratch.append(rows)
    attrs = {
        "classes": CLASSES,
        "preprocess": {"size": 32},
        "encoder": "trained",
        "layer": "avgpool",
        "model_sha256": "m",
        "manifest_sha256": "t",
        "versions": {},
        "precision": "fp32",
    }
    write_embeddings(path, scratch, table, attrs=attrs, dtype=dtype)
    scratch.remove()
    records.write_record(
        records.Artifact(path, SCHEMA, "extract"),
        details={
            "skipped": {f"t{i}": "unreadable" for i in bad},
            "dataset": "test",
            "protocol": "grouped",
            "credit": None,
        },
    )
    return run
