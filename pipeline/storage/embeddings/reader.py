"""Read embeddings.h5, schema 1.1: one row per tile, traceable to its pixels (docs/format.md has the schema).

A file that breaks a rule of the schema is refused, and the message states the rule. `writer` writes the file.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import BadArtifact
from pipeline.names import SPLITS, TRAINED, RunFile
from pipeline.storage.embeddings.shards import ShardRows, read_shard_rows
from pipeline.storage.embeddings.slide_info import SlideInfo, check_coords, read_info
from pipeline.storage.hdf5 import DatasetSpec, Refuse, open_dataset, opened, read_dataset
from pipeline.storage.records import SCHEMAS

SCHEMA = SCHEMAS[RunFile.EMBEDDINGS]

OK, UNREADABLE, CHANGED = 0, 1, 2
"""Codes in /status: a row of features; zeros because the tile was unreadable; zeros because it changed."""

VIEWS = (1, 8)
"""Numbers of orientations that a row may average: the tile itself, or all eight of a square."""


@dataclasses.dataclass(frozen=True)
class Embeddings:
    """The content of an embeddings file."""

    features: np.ndarray
    """(N, D) float32 (float16 if written so); (N, 0) if they were not read."""

    logits: np.ndarray
    """(N, K) float32: the softmax head's scores of the same forward pass; (N, 0) of a frozen encoder."""

    tile_id: list[str]
    path: list[str]
    group: list[str]
    label: np.ndarray
    """(N,) int16 class code, -1 = none."""

    split: np.ndarray
    """(N,) uint8: 0 train, 1 val, 2 test, 255 = none."""

    status: np.ndarray
    """(N,) uint8: 0 = a row of features; else a row of zeros."""

    sha256: np.ndarray
    """(N, 32) uint8 hashes of the tiles' pixels."""

    attrs: Mapping[str, Any]
    """Root attributes; classes and preprocess decoded from JSON."""

    coords: np.ndarray | None = None
    """For a slide: (N, 2) int32, level-0 x and y of each tile's upper left corner, ordered by y and x."""

    slide: SlideInfo | None = None
    """For a slide: its name, size and scale, and the size of its tiles."""

    shard: ShardRows | None = None
    """For a shard: the rows of the manifest that it has."""

    @property
    def classes(self) -> list[str]:
        """Class names in the order of the codes and logits."""
        return list(self.attrs["classes"])


STRINGS = ("tile_id", "path", "group")

DATASETS = {
    "features": DatasetSpec(2, ("<f4", "<f2")),
    "logits": DatasetSpec(2, ("<f4",)),
    "label": DatasetSpec(1, ("<i2",)),
    "split": DatasetSpec(1, ("|u1",)),
    "status": DatasetSpec(1, ("|u1",)),
    "sha256": DatasetSpec(2, ("|u1",)),
    **dict.fromkeys(STRINGS, DatasetSpec(1)),
}

JSON_ATTRS = ("classes", "preprocess", "versions", "shard")
"""Root attributes that hold a list or an object, as JSON."""

COORDS = DatasetSpec(2, ("<i4",))
"""Rank and type of /coords."""

BLOCK_ROWS = 1024
"""Rows of features that are read at once if not all are in memory: 8 MB."""

OTHER_FEATURES = "the features are not those that were written (features_sha256)"

NO_SPLIT = 255
"""Code in /split of a tile without a split."""

SPLIT_CODES = (*range(len(SPLITS)), NO_SPLIT)
"""All codes in /split."""


def _refusal(path: Path) -> Refuse:
    return lambda rule: BadArtifact(f"{path}: {rule}: run `python -m pipeline.extract --restart`")


def feature_blocks(path: Path, status: np.ndarray) -> Iterator[np.ndarray]:
    """Yield /features in row order, at most `BLOCK_ROWS` at once, as float32.

    Args:
        path: the HDF5 file.
        status: (N,) from `read_embeddings`.

    Raises:
        BadArtifact: a row breaks the schema, or (after the last block) the hash of the features is wrong.
    """
    refuse = _refusal(path)
    digest = hashlib.sha256()
    with opened(path, SCHEMA, refuse) as (file, attrs):
        features = open_dataset(file, "features", DATASETS["features"], refuse)
        for start in range(0, len(status), BLOCK_ROWS):
            block = features[start : start + BLOCK_ROWS]
            _check_values(block, status[start : start + BLOCK_ROWS] == OK, refuse)
            digest.update(np.ascontiguousarray(block).data)
            yield block.astype(np.float32, copy=False)
        if len(features) != len(status) or digest.hexdigest() != attrs["features_sha256"]:
            raise refuse(OTHER_FEATURES)


def feature_rows(path: Path, rows: np.ndarray) -> np.ndarray:
    """Return (M, D) features of some rows of an embeddings file, as they are stored.

    Args:
        path: the HDF5 file.
        rows: (M,) increasing row numbers of readable tiles.

    Raises:
        BadArtifact: a row breaks the schema.
    """
    refuse = _refusal(path)
    with opened(path, SCHEMA, refuse) as (file, _):
        found = open_dataset(file, "features", DATASETS["features"], refuse)[rows]
    _check_values(found, np.ones(len(found), dtype=bool), refuse)
    return found


def _check_values(rows: np.ndarray, used: np.ndarray, refuse: Refuse) -> None:
    """Check that rows (N, ...) of features or logits are finite where they are used (N,), and zero elsewhere."""
    if not np.isfinite(rows[used]).all():
        raise refuse("a row of features or logits is not finite")
    if rows[~used].any():
        raise refuse("a row without a tile (/status not 0) is not zero")


def read_embeddings(path: Path, *, with_features: bool = True, shard: bool = False) -> Embeddings:
    """Read an embeddings file into memory after checking it against the schema.

    Args:
        path: the HDF5 file; the caller checks its record.
        with_features: read and check /features too; else `feature_blocks` does.
        shard: accept the file of a single shard, too.

    Raises:
        BadArtifact: names the rule that the file breaks.
    """
    refuse = _refusal(path)
    with opened(path, SCHEMA, refuse) as (file, attrs):
        attrs = _checked(attrs, refuse)
        shard_rows = read_shard_rows(attrs, refuse)
        if shard_rows is not None and not shard:
            raise BadArtifact(
                f"{path}: has only shard {shard_rows.shard} of the tiles: merge the shards with "
                "`python -m pipeline.merge` and use its file"
            )
        features = open_dataset(file, "features", DATASETS["features"], refuse)
        names = {name: spec for name, spec in DATASETS.items() if name != "features"}
        if "logits" not in file:
            del names["logits"]
        arrays = {name: read_dataset(file, name, spec, refuse) for name, spec in names.items()}
        arrays["features"] = features[:] if with_features else np.empty((len(features), 0), np.float32)
        texts = {name: [text.decode() for text in arrays[name]] for name in STRINGS}
        coords = read_dataset(file, "coords", COORDS, refuse) if "coords" in file else None
        slide = None if coords is None else read_info(attrs, refuse)
    if "logits" not in arrays:
        if attrs["encoder"] == TRAINED:
            raise refuse("/logits is missing, and the attribute 'encoder' names no frozen encoder")
        arrays["logits"] = np.empty((len(arrays["label"]), 0), np.float32)
    shapes = {name: array.shape for name, array in arrays.items()}
    n = shapes["features"][0]
    wanted = dict.fromkeys(arrays, (n,)) | {
        "features": (n, arrays["features"].shape[-1]),
        "logits": (n, len(attrs["classes"]) if attrs["encoder"] == TRAINED else 0),
        "sha256": (n, 32),
    }
    for name, shape in wanted.items():
        if shapes[name] != shape:
            raise refuse(f"/{name} has shape {shapes[name]}, {shape} is needed")
    if coords is not None and slide is not None:
        if coords.shape != (n, 2):
            raise refuse(f"/coords has shape {coords.shape}, {(n, 2)} is needed")
        check_coords(coords, slide, refuse)
    used = arrays["status"] == OK
    for name in ("features", "logits"):
        _check_values(arrays[name], used, refuse)
    known = {"label": range(-1, len(attrs["classes"])), "split": SPLIT_CODES, "status": (OK, UNREADABLE, CHANGED)}
    for name, codes in known.items():
        if not np.isin(arrays[name], codes).all():
            raise refuse(f"a code in /{name} is unknown")
    if len(set(texts["tile_id"])) != n:
        raise refuse("a tile_id occurs twice")
    digest = hashlib.sha256(np.ascontiguousarray(arrays["features"]).data).hexdigest()
    if with_features and digest != attrs["features_sha256"]:
        raise refuse(OTHER_FEATURES)
    return Embeddings(attrs=attrs, coords=coords, slide=slide, shard=shard_rows, **arrays | texts)  # type: ignore[arg-type]


@dataclasses.dataclass(frozen=True)
class Header:
    """The attributes of an embeddings file, without its rows."""

    attrs: Mapping[str, Any]
    """Root attributes, as in `Embeddings`."""

    shard: ShardRows | None
    """The rows of the manifest that a shard has; None: not a shard."""

    shape: tuple[int, int]
    """Shape of /features: (N, D)."""

    dtype: str
    """Type of /features: float32 or float16."""

    @property
    def n_logits(self) -> int:
        """Width of /logits; 0 where the encoder has none."""
        return len(self.attrs["classes"]) if self.attrs["encoder"] == TRAINED else 0


def read_header(path: Path) -> Header:
    """Return the attributes of a file.

    Raises:
        BadArtifact: names the rule that the file breaks.
    """
    refuse = _refusal(path)
    with opened(path, SCHEMA, refuse) as (file, attrs):
        attrs = _checked(attrs, refuse)
        features = open_dataset(file, "features", DATASETS["features"], refuse)
        return Header(attrs, read_shard_rows(attrs, refuse), features.shape, features.dtype.name)


def read_split(path: Path) -> np.ndarray:
    """Return /split of a file, (N,) uint8; the codes are not checked.

    Raises:
        BadArtifact: names the rule that the file breaks.
    """
    refuse = _refusal(path)
    with opened(path, SCHEMA, refuse) as (file, _):
        return read_dataset(file, "split", DATASETS["split"], refuse)


def _checked(attrs: Mapping[str, Any], refuse: Refuse) -> dict[str, Any]:
    """Return the root attributes, JSON decoded, after checking that all needed ones are there."""
    for name in ("classes", "preprocess", "model_sha256", "manifest_sha256", "features_sha256", "layer", "encoder"):
        if not isinstance(attrs.get(name), str):
            raise refuse(f"the attribute '{name}' is missing or not text")
    decoded = {"views": 1, **attrs} | {name: json.loads(attrs[name]) for name in JSON_ATTRS if name in attrs}
    if decoded["views"] not in VIEWS:
        raise refuse("the attribute 'views' is neither 1 nor 8")
    if not _are_names(decoded["classes"]) or not isinstance(decoded["preprocess"], dict):
        raise refuse("the attribute 'classes' is not a list of names, or 'preprocess' not an object")
    return decoded


def _are_names(value: Any) -> bool:
    """Return whether a value is a list of different strings, at least one."""
    return isinstance(value, list) and all(isinstance(name, str) for name in value) and 0 < len(value) == len({*value})
