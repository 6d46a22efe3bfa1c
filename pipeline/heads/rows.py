"""Which rows of a run's files heads are fitted on: of embeddings.h5, and for the baselines of baselines.h5.

In memory, or, of files that do not fit into it, as rows that stay in them (`heads.stored`).
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import BadInput
from pipeline.heads.base import Rows
from pipeline.heads.memory_budget import Room
from pipeline.heads.streamed_rows import StoredRows
from pipeline.names import SPLITS
from pipeline.storage import baseline_features as stored_baselines
from pipeline.storage import records
from pipeline.storage.embeddings import reader as stored
from pipeline.storage.embeddings.feature_rows import StoredFeatures, width_of
from pipeline.storage.embeddings.reader import Embeddings
from pipeline.storage.predictions.csv_table import usable_rows


def all_rows(path: Path, streamed: tuple[Room, Path] | None) -> tuple[Embeddings, Rows]:
    """Read an embeddings file once; return its content, and its usable rows.

    Args:
        path: the file.
        streamed: of rows that do not fit into memory, how many may be held at once, and a folder of the run for what is
            computed once and read often: features stay in their file then, and the content is without them.

    Raises:
        BadArtifact: names the rule that the file breaks.
    """
    content = stored.read_embeddings(path, with_features=streamed is None)
    usable = usable_rows(content)
    if streamed is None:
        return content, rows_of(content, usable)
    room, cache = streamed
    return content, stored_rows_of(content, usable, path, room=room, cache=cache)


def rows_of(embeddings: Embeddings, chosen: np.ndarray) -> Rows:
    """Return the rows where `chosen` (N,) bool holds; features as float32, however they are stored.

    They are not copied where that is not needed.
    """
    return Rows(
        features=(embeddings.features if chosen.all() else embeddings.features[chosen]).astype(np.float32, copy=False),
        logits=embeddings.logits[chosen],
        y=embeddings.label[chosen].astype(np.int64),
        groups=np.array(embeddings.group, dtype=str)[chosen],
    )


def stored_rows_of(embeddings: Embeddings, chosen: np.ndarray, path: Path, *, room: Room, cache: Path) -> StoredRows:
    """Return the same rows, their features left in the file.

    Args:
        embeddings: the file's content but for its features.
        chosen: (N,) bool.
        path: the file.
        room: how many rows may be held at once.
        cache: folder of the run for what is computed once and read often.
    """
    rows, width = np.flatnonzero(chosen), width_of(path, stored.SCHEMA, "features")
    return StoredRows(
        features=StoredFeatures(path.absolute(), stored.SCHEMA, "features", rows, width),  # workers stand elsewhere
        logits=embeddings.logits[chosen],
        y=embeddings.label[chosen].astype(np.int64),
        groups=np.array(embeddings.group, dtype=str)[chosen],
        block_rows=room.block_rows,
        sample_rows=room.sample_rows,
        cache=cache,
    )


def parts(every: Rows, split: np.ndarray) -> dict[str, Rows]:
    """Return the rows of train, val and test; `split` (M,) holds the code of each."""
    return {name: every.take(split == code) for code, name in enumerate(SPLITS)}


def split_rows(every: Rows, split: np.ndarray, path: Path, *, fit_on: str) -> dict[str, Rows]:
    """Return the rows of train, val and test.

    Args:
        every: all usable rows, (M, ...).
        split: (M,) code of each.
        path: of the embeddings, for messages.
        fit_on: train or heldout.

    Raises:
        BadInput: a split is empty, or the rows that heads are fitted on hold one class only.
    """
    rows = parts(every, split)
    for name, own in rows.items():
        if not len(own.y):
            raise BadInput(f"{path}: no usable {name} rows: run prepare with other fractions or more tiles")
    fitted = "train" if fit_on == "train" else "val"
    if len(np.unique(rows[fitted].y)) < 2:
        raise BadInput(f"{path}: the {fitted} rows hold one class only, no head can be fitted on them (prepare again)")
    return rows


def baseline_rows(embeddings: Embeddings, usable: np.ndarray, every: Rows, path: Path | None) -> dict[str, Rows]:
    """Return the usable rows with the embeddings and with each feature set of baselines.h5.

    Features that need no other order are not copied; where the embeddings stay in their file, these do, too.

    Raises:
        BadArtifact: baselines.h5 is damaged.
        StaleInput: it is of other tiles, or of their former pixels.
    """
    sources = {"embeddings": every}
    if path is not None:
        records.check_artifact(path, schema=stored_baselines.SCHEMA)
        is_streamed = isinstance(every, StoredRows)
        content = stored_baselines.read_baselines(path, with_features=not is_streamed)
        ids = [name for name, is_usable in zip(embeddings.tile_id, usable, strict=True) if is_usable]
        at = content.rows_of(ids, embeddings.sha256[usable], path=path)
        as_they_are = at.tolist() == list(range(len(content.tile_id)))
        for name, matrix in content.features().items():
            features: Any = matrix if as_they_are else matrix[at]
            if is_streamed:
                width = width_of(path, stored_baselines.SCHEMA, name)
                features = StoredFeatures(path, stored_baselines.SCHEMA, name, at, width)
            sources[name] = dataclasses.replace(every, features=features)
    return sources
