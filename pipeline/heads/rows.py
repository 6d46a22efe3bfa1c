"""Load the rows that heads are fitted on: from embeddings.h5, and for the baselines from baselines.h5.

The rows are in memory; rows that do not fit stay in their file (`heads.streamed_rows`).
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import BadInput
from pipeline.heads.base import Rows
from pipeline.heads.config import FitConfig
from pipeline.heads.memory_budget import Room
from pipeline.heads.streamed_rows import StreamedRows
from pipeline.names import FUSED, SOURCES, SPLITS
from pipeline.storage import baseline_features, records
from pipeline.storage.embeddings import reader
from pipeline.storage.embeddings.feature_rows import JoinedFeatures, StoredFeatures, width_of
from pipeline.storage.embeddings.reader import Embeddings
from pipeline.storage.embeddings.relative_features import RelativeFeatures, centres, group_codes, relative, sums_of
from pipeline.storage.predictions.csv_table import usable_rows

EMBEDDINGS = "embeddings"
"""Name of the features in embeddings.h5, next to those in baselines.h5."""

FUSED_NAME, JOINED_NAME = "fused", "histogram_handcrafted"

SIDE_BY_SIDE = {
    JOINED_NAME: ("colour_histogram", "handcrafted"),
    FUSED_NAME: ("colour_histogram", "handcrafted", EMBEDDINGS),
}
"""Features -> the stored feature sets that they are, side by side."""

RELATIVE_SETS = frozenset(SIDE_BY_SIDE[FUSED_NAME])
"""Feature sets that `--relative group` adds differences to."""


@dataclasses.dataclass(frozen=True)
class HeadData:
    """All rows that the heads of a run are fitted on and predict."""

    embeddings: Embeddings
    """The content of the file; without features where the rows are streamed."""

    every: Mapping[str, Rows]
    """Features -> all usable rows (M, ...). Labels, logits and groups are the same in all."""

    splits: Mapping[str, Mapping[str, Rows]]
    """Features -> split -> its rows."""

    plain: Mapping[str, Rows]
    """Split -> its rows with the embeddings as the network gives them."""

    means: Mapping[str, np.ndarray]
    """Feature set -> its mean (D,) over the rows that heads are fitted on; empty where none is relative to groups."""


def load_head_data(
    path: Path,
    baselines: Path | None,
    config: FitConfig,
    *,
    room: Room | None = None,
    cache: Path | None = None,
) -> HeadData:
    """Read the files of a run once.

    Args:
        path: embeddings.h5.
        baselines: baselines.h5, if its features are needed.
        config: names the split that heads are fitted on.
        room: numbers of rows in memory at once, for rows that do not fit into memory; None: they fit.
        cache: with `room`, a folder for intermediate results.

    Raises:
        BadArtifact: names the rule that a file breaks.
        BadInput: a split is empty, or the rows that heads are fitted on have one class only.
        StaleInput: baselines.h5 has other tiles, or other pixels of a tile.
    """
    content = reader.read_embeddings(path, with_features=room is None)
    usable = usable_rows(content)
    rows = rows_of(content, usable) if room is None or cache is None else _streamed(content, usable, path, room, cache)
    code = content.split[usable]
    plain = _by_split(rows, code)
    _check_splits(plain, path, config)
    every, means = {EMBEDDINGS: rows}, {}
    if baselines is not None:
        every |= _baseline_rows(content, usable, rows, baselines)
    if config.relative == "group":
        if "" in rows.groups:
            raise BadInput(f"{path}: --relative group needs the group of every tile: prepare with --group-regex")
        fitted = code == SPLITS.index(config.fit_split)
        for name in sorted(every.keys() & RELATIVE_SETS):
            every[name], means[name] = _relative(every[name], fitted)
    if baselines is not None:
        for name in (JOINED_NAME, FUSED_NAME) if config.fused else (JOINED_NAME,):
            every[name] = joined([every[part] for part in SIDE_BY_SIDE[name]])
    splits = {features: _by_split(own, code) for features, own in every.items()}
    return HeadData(content, every, splits, plain, means)


def normalisation_facts(embeddings: Path, baselines: Path | None) -> dict[str, Any]:
    """Return how colours were normalised by source, from the records of both files; empty if they were not."""
    paths = {"normalised": embeddings, "baselines_normalised": baselines}
    found = {
        name: records.read_record_alone(path)["details"].get("normalised")
        for name, path in paths.items()
        if path is not None
    }
    return {name: facts for name, facts in found.items() if facts}


def features_of(head: str) -> str:
    """Return the name of the features that a head or baseline takes."""
    return FUSED_NAME if head in FUSED else SOURCES.get(head, EMBEDDINGS)


def stored_sets(head: str) -> tuple[str, ...]:
    """Return the names of the stored feature sets that a head or baseline takes."""
    return SIDE_BY_SIDE.get(features_of(head), (features_of(head),))


def _by_split(rows: Rows, code: np.ndarray) -> dict[str, Rows]:
    """Return split -> its rows, by the code (M,) of each row's split."""
    return {name: rows.take(code == number) for number, name in enumerate(SPLITS)}


def _relative(rows: Rows, fitted: np.ndarray) -> tuple[Rows, np.ndarray]:
    """Return rows with features relative to their groups, and the mean (D,) of the features where `fitted` (M,) is."""
    code, counts = group_codes(rows.groups)
    if isinstance(rows, StreamedRows):
        mean = sums_of(rows.features[fitted].blocks(rows.block_rows), np.zeros(fitted.sum(), int), 1)[0] / fitted.sum()
        sums = sums_of(rows.features.blocks(rows.block_rows), code, len(counts))
    else:
        mean = rows.features[fitted].mean(axis=0, dtype=np.float64)
        sums = sums_of([rows.features], code, len(counts))
    mean = mean.astype(np.float32)
    of_groups = centres(sums, counts, mean)
    features: Any = (
        RelativeFeatures(rows.features, of_groups, code)  # type: ignore[arg-type]
        if isinstance(rows, StreamedRows)
        else relative(rows.features, of_groups[code])
    )
    return dataclasses.replace(rows, features=features), mean


def joined(sets: list[Rows]) -> Rows:
    """Return rows with several feature sets side by side."""
    parts: Any = [rows.features for rows in sets]
    together: Any = JoinedFeatures(tuple(parts)) if isinstance(sets[0], StreamedRows) else np.hstack(parts)
    return dataclasses.replace(sets[0], features=together, widths=tuple(int(part.shape[1]) for part in parts))


def rows_of(embeddings: Embeddings, chosen: np.ndarray) -> Rows:
    """Return the rows of a mask `chosen` (N,); features as float32, copied only if necessary."""
    return Rows(
        features=(embeddings.features if chosen.all() else embeddings.features[chosen]).astype(np.float32, copy=False),
        logits=embeddings.logits[chosen],
        y=embeddings.label[chosen].astype(np.int64),
        groups=np.array(embeddings.group, dtype=str)[chosen],
        n_classes=len(embeddings.classes),
    )


def _streamed(content: Embeddings, chosen: np.ndarray, path: Path, room: Room, cache: Path) -> StreamedRows:
    """Return the same rows, their features left in the file."""
    numbers, width = np.flatnonzero(chosen), width_of(path, reader.SCHEMA, "features")
    path = path.absolute()  # workers have other current folders
    return StreamedRows(
        features=StoredFeatures(path, reader.SCHEMA, "features", numbers, width),
        logits=content.logits[chosen],
        y=content.label[chosen].astype(np.int64),
        groups=np.array(content.group, dtype=str)[chosen],
        n_classes=len(content.classes),
        block_rows=room.block_rows,
        sample_rows=room.sample_rows,
        cache=cache,
    )


def _baseline_rows(content: Embeddings, usable: np.ndarray, rows: Rows, path: Path) -> dict[str, Rows]:
    """Return the usable rows with each feature set of baselines.h5, in memory or streamed as `rows` are."""
    records.check_artifact(path, schema=baseline_features.SCHEMA)
    is_streamed = isinstance(rows, StreamedRows)
    baselines = baseline_features.read_baselines(path, with_features=not is_streamed)
    ids = [name for name, is_usable in zip(content.tile_id, usable, strict=True) if is_usable]
    at = baselines.rows_of(ids, content.sha256[usable], path=path)
    in_order = at.tolist() == list(range(len(baselines.tile_id)))
    found: dict[str, Rows] = {}
    for name, matrix in baselines.features().items():
        features: Any = matrix if in_order else matrix[at]
        if is_streamed:
            width = width_of(path, baseline_features.SCHEMA, name)
            features = StoredFeatures(path.absolute(), baseline_features.SCHEMA, name, at, width)
        found[name] = dataclasses.replace(rows, features=features)
    return found


def _check_splits(rows: Mapping[str, Rows], path: Path, config: FitConfig) -> None:
    for name, own in rows.items():
        if not len(own.y):
            raise BadInput(f"{path}: no usable {name} rows: run prepare with other fractions or more tiles")
    if len(np.unique(rows[config.fit_split].y)) < 2:
        raise BadInput(
            f"{path}: the {config.fit_split} rows hold one class only, no head can be fitted on them (prepare again)"
        )
