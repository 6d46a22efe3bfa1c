"""Write and read baselines.h5, schema 1.0: features that need no training, one row per tile of the manifest.

| data set | shape, dtype | |
|---|---|---|
| `/tile_id` | (N,) fixed-length UTF-8 | unique |
| `/sha256` | (N, 32) uint8 | hash of the tile's pixels; zeros where /status is not 0 |
| `/status` | (N,) uint8 | as in embeddings.h5: 0 = a row of features; else a row of zeros |
| `/colour_histogram` | (N, 512) float32 | square roots of shares |
| `/handcrafted` | (N, D) float32 | columns: the attribute `names` |
| `/untrained` | (N, 2048) float32 | a network with random weights |

Root attributes: schema, schema_version, names (JSON list), px (side of the untrained network's input), seed (of its
weights), arch, and complete, written last. Readers refuse a file that breaks a rule.
"""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from pipeline.errors import BadArtifact, StaleInput
from pipeline.names import RunFile
from pipeline.storage import atomic
from pipeline.storage.embeddings.reader import CHANGED, OK, UNREADABLE
from pipeline.storage.hdf5 import DatasetSpec, as_utf8, created, finish, opened, read_dataset, write_attributes
from pipeline.storage.protocol import FOLDER
from pipeline.storage.records import SCHEMAS

SCHEMA = SCHEMAS[RunFile.BASELINES]

FEATURES = ("colour_histogram", "handcrafted", "untrained")
"""Names of the feature sets, and of their data sets."""

DATASETS = {
    "tile_id": DatasetSpec(1),
    "sha256": DatasetSpec(2, ("|u1",)),
    "status": DatasetSpec(1, ("|u1",)),
    **dict.fromkeys(FEATURES, DatasetSpec(2, ("<f4",))),
}


@dataclasses.dataclass(frozen=True)
class Baselines:
    """The content of a baselines file."""

    tile_id: list[str]
    sha256: np.ndarray
    """(N, 32) uint8 hashes of the tiles' pixels."""

    status: np.ndarray
    """(N,) uint8: 0 = a row of features; else a row of zeros."""

    colour_histogram: np.ndarray
    """(N, 512) float32."""

    handcrafted: np.ndarray
    """(N, D) float32."""

    untrained: np.ndarray
    """(N, 2048) float32."""

    names: list[str]
    """The D columns of `handcrafted`."""

    px: int
    """Side in px of the untrained network's input."""

    seed: int
    """Seed of the untrained network's weights."""

    arch: str

    def features(self) -> dict[str, np.ndarray]:
        """Return feature set -> its rows (N, D) float32."""
        return {name: getattr(self, name) for name in FEATURES}

    def rows_of(self, tile_id: Sequence[str], sha256: np.ndarray, *, path: Path) -> np.ndarray:
        """Return the row number of each tile of a list, (M,) int64.

        Args:
            tile_id: names of M tiles.
            sha256: (M, 32) uint8 hashes of their pixels.
            path: path of this file, for the message.

        Raises:
            StaleInput: a tile is missing, could not be read, or had other pixels; names it.
        """
        number = {name: row for row, name in enumerate(self.tile_id)}
        rows = np.array([number.get(name, -1) for name in tile_id], dtype=np.int64)
        same = (rows >= 0) & (self.status[rows] == OK) & (self.sha256[rows] == sha256).all(axis=1)
        if not same.all():
            first = tile_id[int(np.argmin(same))]
            raise StaleInput(
                f"{path}: {int((~same).sum())} tile(s) are missing in it or had other pixels, such as {first}: run "
                "`python -m pipeline.baselines --restart`"
            )
        return rows


def find_baselines(run: Path) -> Path | None:
    """Return baselines.h5 of the run, or of the plan of which the run is a part; None without one."""
    places = [run, *([run.parent.parent] if run.parent.name == FOLDER else [])]
    return next((place / RunFile.BASELINES for place in places if (place / RunFile.BASELINES).is_file()), None)


def row_type(*, colour_histogram: int, handcrafted: int, untrained: int) -> np.dtype:
    """Return the layout of one row from the widths of the feature sets."""
    widths = {"colour_histogram": colour_histogram, "handcrafted": handcrafted, "untrained": untrained}
    return np.dtype(
        [("sha256", "u1", (32,)), ("status", "u1"), *((name, "<f4", (width,)) for name, width in widths.items())]
    )


def write_baselines(
    path: Path,
    tile_id: Sequence[str],
    blocks: Iterable[np.ndarray],
    *,
    row: np.dtype,
    names: Sequence[str],
    px: int,
    seed: int,
    arch: str,
) -> None:
    """Write the file block by block as rows are computed, atomically; the caller writes the record.

    If the blocks raise an error (a stop, too many bad tiles), no new file is written and the former one is unchanged.

    Args:
        path: `baselines.h5`.
        tile_id: N names.
        blocks: arrays of rows of the type `row` in the tiles' order, N rows in all.
        row: `row_type(...)`.
        names: the columns of `handcrafted`.
        px: side of the untrained network's input.
        seed: seed of its weights.
        arch: its architecture.

    Raises:
        DiskFull: no room; no file is written.
        ValueError: not N rows, or a feature is not finite (a programmer's error).
    """
    n = len(tile_id)
    atomic.require_space(path.parent, n * (row.itemsize + 100))
    with atomic.atomic(path) as temporary, created(temporary) as file:
        for name in row.names or ():
            file.create_dataset(name, (n, *row[name].shape), row[name].base)
        start = 0
        for rows in blocks:
            stop = start + len(rows)
            if stop > n or not all(np.isfinite(rows[name]).all() for name in FEATURES):
                raise ValueError(f"rows {start} to {stop} of {n}: too many, or not finite")
            for name in row.names or ():
                file[name][start:stop] = rows[name]
            start = stop
        if start != n:
            raise ValueError(f"{start} rows for {n} tiles")
        file["tile_id"] = as_utf8(tile_id)
        write_attributes(file, {"names": list(names), "px": px, "seed": seed, "arch": arch})
        finish(file, SCHEMA)


def read_baselines(path: Path, *, with_features: bool = True) -> Baselines:
    """Read a baselines file into memory and check it against the schema; the caller checks its record.

    Args:
        path: the HDF5 file.
        with_features: read the feature sets, too; else they are (N, 0), and `StoredFeatures` reads them.

    Raises:
        BadArtifact: names the rule that the file breaks.
    """

    def refuse(rule: str) -> BadArtifact:
        return BadArtifact(f"{path}: {rule}: run `python -m pipeline.baselines --restart`")

    with opened(path, SCHEMA, refuse) as (file, attrs):
        if not isinstance(attrs.get("px"), int) or not isinstance(attrs.get("seed"), int):
            raise refuse("the attribute 'px' or 'seed' is not a whole number")
        if not isinstance(attrs.get("arch"), str):
            raise refuse("the attribute 'arch' is not text")
        names = json.loads(attrs.get("names", "null"))
        wanted_sets = {name: spec for name, spec in DATASETS.items() if with_features or name not in FEATURES}
        arrays = {name: read_dataset(file, name, spec, refuse) for name, spec in wanted_sets.items()}
        if not with_features:
            arrays |= {name: np.empty((len(arrays["status"]), 0), np.float32) for name in FEATURES}
        tile_id = [text.decode() for text in arrays.pop("tile_id")]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise refuse("the attribute 'names' is not a list of names")
    n = len(tile_id)
    wanted = {"sha256": (n, 32), "status": (n,), "handcrafted": (n, len(names) if with_features else 0)}
    for name, array in arrays.items():
        shape = wanted.get(name, (n, array.shape[-1]))
        if array.shape != shape:
            raise refuse(f"/{name} has shape {array.shape}, {shape} is needed")
    if len(set(tile_id)) != n:
        raise refuse("a tile_id occurs twice")
    if not np.isin(arrays["status"], (OK, UNREADABLE, CHANGED)).all():
        raise refuse("a code in /status is unknown")
    used = arrays["status"] == OK
    for name in FEATURES:
        if not np.isfinite(arrays[name]).all():
            raise refuse(f"a row of /{name} is not finite")
        if arrays[name][~used].any():
            raise refuse(f"a row of /{name} without a tile (/status not 0) is not zero")
    return Baselines(tile_id=tile_id, names=names, px=attrs["px"], seed=attrs["seed"], arch=attrs["arch"], **arrays)
