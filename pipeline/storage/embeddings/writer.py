"""Write embeddings.h5 block by block and atomically (the schema: `reader`)."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from pipeline.errors import BadArtifact, BadInput
from pipeline.names import SPLITS
from pipeline.storage import atomic
from pipeline.storage.embeddings.reader import NO_SPLIT, SCHEMA, STRINGS
from pipeline.storage.embeddings.slide_info import SlideInfo, attributes, trident_attributes
from pipeline.storage.hdf5 import as_utf8, created, finish, write_attributes

PROVENANCE = ("layer", "encoder")
"""Attributes that state what made the features."""

MOST_CLASS_BYTES = 60_000
"""Most bytes of the list of class names: HDF5 limits an attribute to 64 kB."""


def check_classes(classes: Sequence[str]) -> None:
    """Check that the class names fit into an embeddings file.

    Raises:
        BadInput: too many or too long names.
    """
    size = len(json.dumps(list(classes), ensure_ascii=False).encode())
    if size > MOST_CLASS_BYTES:
        raise BadInput(
            f"the names of {len(classes)} classes take {size} bytes, more than {MOST_CLASS_BYTES}: give fewer classes "
            "or shorter names (are the classes read from the right column or folder?)"
        )


class Rows(Protocol):
    """Finished rows, such as a `PartialRows`."""

    path: Path
    """Their file, for messages."""

    row: np.dtype
    """`partial_rows.row_type(...)`."""

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield all rows in order, not all at once."""
        ...


def write_embeddings(
    path: Path,
    scratch: Rows,
    table: pd.DataFrame,
    *,
    attrs: Mapping[str, Any],
    dtype: str = "float32",
    slide: SlideInfo | None = None,
) -> None:
    """Build the HDF5 file from finished rows, atomically; the caller writes the record.

    Args:
        path: `embeddings.h5`.
        scratch: one row per row of `table`, in order.
        table: the manifest's columns; for a slide also `x` and `y`, level-0 px.
        attrs: classes (list), preprocess (dict), model_sha256, manifest_sha256, versions (dict), engine, precision,
            views (orientations that a row averages), layer and encoder (`PROVENANCE`); for a shard also shard.
        dtype: float32, or float16 to halve the file (2e-4 relative error, far below that of bf16).
        slide: the slide, if the rows are its tiles.

    Raises:
        DiskFull: no room; no file is written.
        BadInput: a feature does not fit into `dtype`.
        BadArtifact: too few or too many rows.
        ValueError: an attribute of `PROVENANCE` is missing.
    """
    if missing := [name for name in PROVENANCE if name not in attrs]:
        raise ValueError(f"the attribute '{missing[0]}' states what made the features: give it")
    n, n_features, n_classes = len(table), scratch.row["features"].shape[0], scratch.row["logits"].shape[0]
    atomic.require_space(path.parent, n * (n_features * np.dtype(dtype).itemsize + n_classes * 4 + 400))
    digest = hashlib.sha256()
    with atomic.atomic(path) as temporary, created(temporary) as file:
        features = file.create_dataset("features", (n, n_features), dtype)
        logits = file.create_dataset("logits", (n, n_classes), "float32") if n_classes else None
        status, hashes = np.empty(n, np.uint8), np.empty((n, 32), np.uint8)
        start = stop = 0
        for rows in scratch.blocks():
            stop = start + len(rows)
            if stop > n:
                break
            with np.errstate(over="ignore"):  # reported below
                block = np.ascontiguousarray(rows["features"].astype(dtype))
            if not np.isfinite(block).all():
                raise BadInput(f"{path}: a feature is too large for {dtype}: pass --dtype float32")
            features[start:stop] = block
            if logits is not None:
                logits[start:stop] = rows["logits"]
            status[start:stop], hashes[start:stop] = rows["status"], rows["sha256"]
            digest.update(block.data)
            start = stop
        if stop != n:
            raise BadArtifact(f"{scratch.path}: {stop} rows for {n} tiles: pass --restart to compute them again")
        file["status"], file["sha256"] = status, hashes
        file["label"], file["split"] = codes_of(table, attrs["classes"])
        for name in STRINGS:
            file[name] = as_utf8(list(table[name]))
        if slide is not None:
            coords = file.create_dataset("coords", data=table[["x", "y"]].to_numpy(np.int32))
            names = trident_attributes(slide, name=table["group"].iloc[0]) if n else {}
            write_attributes(coords, attributes(slide) | names)
            write_attributes(file, attributes(slide))
        # the same bytes, whatever the order of `attrs`
        ordered = {name: attrs[name] for name in sorted(attrs)}
        write_attributes(file, ordered | {"features_sha256": digest.hexdigest()})
        finish(file, SCHEMA)


def codes_of(table: pd.DataFrame, classes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return /label (N,) int16 and /split (N,) uint8 of the rows of a manifest."""
    label = {name: code for code, name in enumerate(classes)}
    split = {name: code for code, name in enumerate(SPLITS)}
    labels = [label.get(name, -1) for name in table["label"]]
    splits = [split.get(name, NO_SPLIT) for name in table["split"]]
    return np.array(labels, np.int16), np.array(splits, np.uint8)
