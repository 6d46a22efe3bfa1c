"""P3: a pickle under any name that is read stays what it is: bytes."""

import pickle  # noqa: TID251 -- to write what must be refused
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch

from pipeline import train
from pipeline.errors import BadArtifact, BadInput, BadTile, PipelineError
from pipeline.heads.base import SCHEMA as HEAD_SCHEMA
from pipeline.heads.svm.classifier import Svm
from pipeline.heads.xgb.booster import Boosting
from pipeline.network import model_file
from pipeline.network.resnet import build_network
from pipeline.network.start_weights import load_start_weights
from pipeline.storage import baseline_features
from pipeline.storage.embeddings import reader
from pipeline.storage.embeddings.partial_rows import PartialRows, row_type
from pipeline.storage.predictions import corrupted, csv_table, unlabelled
from pipeline.tiles import manifest
from pipeline.tiles.datasets.sources import csv_tiles
from pipeline.tiles.datasets.unzip import unpack_zip
from pipeline.tiles.decoding import decode_tile

from .hostile import Evil, refused, repack, vouch


def save_object_array(evil: object, path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([evil], dtype=object), allow_pickle=True)


WRITERS: dict[str, Callable[[object, Path], object]] = {
    "pickle": lambda evil, path: path.write_bytes(pickle.dumps(evil)),
    "joblib": joblib.dump,  # noqa: TID251
    "torch": lambda evil, path: torch.save({"conv1.weight": evil}, path),
    "torch, old form": lambda evil, path: torch.save([evil], path, _use_new_zipfile_serialization=False),
    "numpy": save_object_array,
}
"""Ways of writing an object that the library itself would read by running code."""


def start_weights(path: Path) -> str:
    return load_start_weights(build_network("resnet10", n_classes=2, seed=0), path).sha256


def unpack(path: Path) -> None:
    unpack_zip(path, path.parent / "unpacked", max_bytes=10**9, max_files=100)


PLACES: dict[str, tuple[Callable[[Path], object], type[PipelineError], str]] = {
    "model.safetensors": (model_file.load_model, BadArtifact, model_file.SCHEMA),
    "start.pth": (start_weights, BadArtifact, ""),
    "start.safetensors": (start_weights, BadArtifact, ""),
    "svm.skops": (Svm.load, BadArtifact, HEAD_SCHEMA),
    "embeddings.h5": (reader.read_embeddings, BadArtifact, ""),
    "baselines.h5": (baseline_features.read_baselines, BadArtifact, ""),
    "manifest.csv": (manifest.read_manifest, BadArtifact, manifest.SCHEMA),
    "predictions.csv": (csv_table.read_predictions, BadArtifact, ""),
    "map.csv": (unlabelled.read_predictions, BadArtifact, ""),
    "robustness.csv": (corrupted.read_robustness, BadArtifact, ""),
    "tiles.csv": (lambda path: csv_tiles(path, group_regex=""), BadInput, ""),
    "tile.png": (decode_tile, BadTile, ""),
    "tile.tif": (decode_tile, BadTile, ""),
    "tiles.zip": (unpack, BadInput, ""),
}
"""File -> its reader, the error it must end with, and the schema of the record that would vouch for it."""


@pytest.mark.fault("a pickle, or a foreign type in a skops file")
@pytest.mark.parametrize("how", WRITERS)
@pytest.mark.parametrize("name", PLACES)
def test_a_pickle_is_refused_and_not_run(tmp_path: Path, name: str, how: str) -> None:
    read, kind, schema = PLACES[name]
    path, marker = tmp_path / name, tmp_path / "marker"
    if (name, how) == ("tiles.zip", "torch"):  # what torch writes is a zip, and unpacking it is harmless
        WRITERS[how](Evil(marker), path)
        read(path)
    else:
        if schema == model_file.SCHEMA:
            model_file.save_model(path, build_network("resnet10", n_classes=2, seed=0).state_dict(), MODEL)
        WRITERS[how](Evil(marker), path)
        if schema:
            vouch(
                path,
                schema,
                details=DETAILS,
                outputs=[path.with_suffix(".json")] if schema == model_file.SCHEMA else [],
            )
        refused(kind, name, read, path)
    assert not marker.exists()


DETAILS = {"root": ".", "dataset": "x", "protocol": "random"}
MODEL: dict[str, Any] = {
    "arch": "resnet10",
    "classes": ["ADI", "TUM"],
    "preprocess": {"size": 32, "mean": [0.5] * 3, "std": [0.2] * 3, "interpolation": "bilinear", "mpp": None},
}


@pytest.mark.fault("a pickle, or a foreign type in a skops file")
def test_the_files_of_these_tests_are_harmful(tmp_path: Path) -> None:
    """Read as their libraries would read them if they were let."""
    for how, read in {
        "pickle": lambda path: pickle.loads(path.read_bytes()),
        "joblib": joblib.load,  # noqa: TID251
        "torch": lambda path: torch.load(path, weights_only=False),
        "torch, old form": lambda path: torch.load(path, weights_only=False),
        "numpy": lambda path: np.load(path, allow_pickle=True),
    }.items():
        marker = tmp_path / f"marker of {how}"
        WRITERS[how](Evil(marker), tmp_path / how)
        read(tmp_path / how)
        assert marker.is_dir(), how


@pytest.mark.fault("damaged XGBoost model")
def test_xgboost_never_sees_a_file_without_a_record(tmp_path: Path) -> None:
    path, marker = tmp_path / "xgboost.ubj", tmp_path / "marker"
    path.write_bytes(pickle.dumps(Evil(marker)))
    refused(BadArtifact, r"record of xgboost\.ubj is missing", Boosting.load, path)
    assert not marker.exists()


@pytest.mark.fault("a pickle, or a foreign type in a skops file")
@pytest.mark.parametrize("how", WRITERS)
def test_a_checkpoint_is_refused_and_not_run(
    prepared_run: Path, capsys: pytest.CaptureFixture[str], words: Callable[..., list[str]], how: str
) -> None:
    marker = prepared_run / "marker"
    WRITERS[how](Evil(marker), prepared_run / "checkpoint.pt")
    assert train.main(words("train", prepared_run)) == 1
    said = capsys.readouterr().err
    assert "checkpoint.pt: cannot be read" in said
    assert "Traceback" not in said
    assert not marker.exists()


def test_a_packed_checkpoint_is_not_unpacked(
    prepared_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: Callable[..., list[str]],
) -> None:
    torch.save({"identity": {}, "best": {"x": torch.zeros(10)}}, tmp_path / "plain.pt")
    repack(tmp_path / "plain.pt", prepared_run / "checkpoint.pt", {"data/0": bytes(50_000_000)})
    unpacked = []
    monkeypatch.setattr(torch, "load", lambda *_, **__: unpacked.append(1))
    assert train.main(words("train", prepared_run)) == 1
    assert "checkpoint.pt: cannot be read" in capsys.readouterr().err
    assert not unpacked


@pytest.mark.parametrize("how", WRITERS)
def test_the_header_of_a_scratch_is_refused_and_not_run(tmp_path: Path, how: str) -> None:
    scratch, marker = (
        PartialRows(tmp_path / "e.h5", row=row_type(2, 2), identity={"a": 1}, batch=2),
        tmp_path / "marker",
    )
    WRITERS[how](Evil(marker), scratch.header)
    scratch.path.write_bytes(b"")
    refused(PipelineError, "--restart", scratch.open, restart=False)
    assert not marker.exists()
