"""Good files that attacks begin from."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from pipeline.network.model_file import SCHEMA as MODEL_SCHEMA
from pipeline.network.model_file import save_model
from pipeline.network.resnet import build_network
from pipeline.storage.embeddings.partial_rows import PartialRows, row_type
from pipeline.storage.embeddings.writer import write_embeddings

from .hostile import vouch

N, D, CLASSES = 6, 4, ["ADI", "TUM"]


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    """A good model.safetensors with model.json and record, of a resnet10 with two classes."""
    path = tmp_path / "model.safetensors"
    preprocess = {"size": 32, "mean": [0.5] * 3, "std": [0.2] * 3, "interpolation": "bilinear", "mpp": None}
    state = build_network("resnet10", n_classes=len(CLASSES), seed=0).state_dict()
    save_model(path, state, {"arch": "resnet10", "classes": CLASSES, "preprocess": preprocess})
    return vouch(path, MODEL_SCHEMA, stage="train", outputs=[path.with_suffix(".json")])


@pytest.fixture
def change_hdf5(tmp_path: Path) -> Callable[[Callable[[h5py.File], object]], Path]:
    """`change_hdf5(change)`: a good embeddings.h5 after that change."""

    def make(change: Callable[[h5py.File], object]) -> Path:
        scratch = PartialRows(tmp_path / "embeddings.h5", row=row_type(D, len(CLASSES)), identity={}, batch=N)
        scratch.open(restart=True)
        rows = np.zeros(N, scratch.row)
        rows["features"] = np.arange(N * D, dtype=np.float32).reshape(N, D)
        scratch.append(rows)
        table = pd.DataFrame({"tile_id": [f"t{i}" for i in range(N)], "path": "a.png", "group": "g", "split": "test"})
        attrs = {
            "classes": CLASSES,
            "preprocess": {},
            "encoder": "trained",
            "layer": "avgpool",
            "model_sha256": "a",
            "manifest_sha256": "b",
        }
        write_embeddings(tmp_path / "embeddings.h5", scratch, table.assign(label="ADI"), attrs=attrs)
        with h5py.File(tmp_path / "embeddings.h5", "r+") as file:
            change(file)
        return tmp_path / "embeddings.h5"

    return make
