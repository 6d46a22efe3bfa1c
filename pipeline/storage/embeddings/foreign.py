"""Read embeddings that other programs wrote: HDF5, AnnData, Parquet, CSV, and NumPy arrays.

Layouts: CLAM and TRIDENT (`features`, `coords`), STAMP (`feats`, `coords`), raw2features (exports in these layouts),
anndata's on-disk format (`X` or `obsm`), tables with a column `tile_id` and numbered columns f0, f1 ... Nothing here
runs code of a file: NumPy arrays are read without pickles.
"""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from pipeline.errors import BadInput, PipelineError
from pipeline.runtime.extras import import_library

FEATURES = ("features", "feats")
"""Names of the data set of features in HDF5 files of slides: CLAM and TRIDENT, STAMP."""

HDF5 = (".h5", ".hdf5")
COLUMN = re.compile(r"f[0-9]+")
"""Columns of features in a table."""

DOUBLED = re.compile(r"f[0-9]+\.[0-9]+")
"""How pandas calls a column of features that is there twice."""

MOST_COORD = 2**53
"""Coordinates of a slide are below it; floats of this size are whole numbers."""

DTYPES = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64))


@dataclasses.dataclass(frozen=True)
class Foreign:
    """Embeddings of tiles as another program wrote them."""

    features: np.ndarray
    """(N, D) float32 or float16."""

    tile_id: list[str] | None
    """None: the rows have no names, and are in the order of the labels."""

    slide: list[str]
    """Name of each row's slide; empty if rows are not of slides."""

    coords: np.ndarray | None
    """(N, 2) int64, as in the file, for rows of slides."""

    group: list[str] | None
    """Group of each row, where the file holds it."""

    encoder: str
    """The encoder's name, where the file holds it."""


def read_foreign(files: Sequence[Path], *, key: str = "") -> Foreign:
    """Return the rows of one file, or of one file for each slide, in the order of the files.

    Args:
        files: of one format.
        key: name of the features in the file, such as obsm/X_uni; "": the usual names.

    Raises:
        BadInput: a file cannot be read, or files have other widths; names the file.
    """
    parts = [_read(file, key) for file in files]
    widths = {part.features.shape[1]: file for part, file in zip(parts, files, strict=True)}
    if len(widths) > 1:
        (a, one), (b, other) = list(widths.items())[:2]
        raise BadInput(f"{other}: {b} features, but {one} has {a}: import files of one encoder")
    kinds = {(part.tile_id is None, part.coords is None, part.group is None) for part in parts}
    if len(kinds) > 1 or (len(parts) > 1 and parts[0].tile_id is None):
        raise BadInput(
            f"{files[0].parent}: files of several formats, or without names of their rows: import one format"
        )
    first = parts[0]
    dtypes = {part.features.dtype for part in parts}
    stacked = np.concatenate([part.features for part in parts])
    return Foreign(
        features=stacked if len(dtypes) == 1 else stacked.astype(np.float32),
        tile_id=None if first.tile_id is None else [name for part in parts for name in part.tile_id or ()],
        slide=[name for part in parts for name in part.slide],
        coords=None if first.coords is None else np.concatenate([p.coords for p in parts if p.coords is not None]),
        group=None if first.group is None else [name for part in parts for name in part.group or ()],
        encoder=", ".join(dict.fromkeys(part.encoder for part in parts if part.encoder)),
    )


def _read(file: Path, key: str) -> Foreign:
    suffix = file.suffix.lower()
    try:
        if suffix in HDF5:
            return _slide(file, key)
        if suffix == ".h5ad":
            return _anndata(file, key or "X")
        if suffix == ".npy":
            array = np.load(file, allow_pickle=False)
            return Foreign(_checked(file, array), None, [], None, None, "")
        if suffix in (".parquet", ".csv"):
            return _table(file, _parquet(file) if suffix == ".parquet" else _csv(file))
    except PipelineError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, EOFError, MemoryError) as error:
        raise BadInput(f"{file}: cannot be read ({' '.join(str(error).split())[:160]})") from None
    raise BadInput(f"{file}: no format that is known: .h5, .h5ad, .parquet, .csv and .npy are")


def _checked(file: Path, array: Any) -> np.ndarray:
    """Return features as (N, D) float32 or float16.

    Raises:
        BadInput: another shape or type, or no rows.
    """
    found = np.asarray(array)
    found = found.astype(found.dtype.newbyteorder("="), copy=False)
    if found.ndim == 3 and found.shape[0] == 1:  # CLAM and TRIDENT may write a batch of one slide
        found = found[0]
    if found.ndim != 2 or not found.size or found.dtype not in DTYPES:
        raise BadInput(f"{file}: features have shape {found.shape} of {found.dtype}, (N, D) floats are needed")
    with np.errstate(over="ignore"):  # such rows are refused as not finite
        return found if found.dtype == np.float16 else found.astype(np.float32)


def _dataset(file: Path, opened: h5py.File, name: str) -> h5py.Dataset:
    """Return a data set of the file itself: no link into another file is followed."""
    place: Any = opened
    for part in name.split("/"):
        if not isinstance(place, h5py.Group) or not isinstance(place.get(part, getlink=True), h5py.HardLink):
            raise BadInput(f"{file}: /{name} is missing or a link")
        place = place[part]
    if not isinstance(place, h5py.Dataset) or place.is_virtual or place.external:
        raise BadInput(f"{file}: /{name} is no data set of dense numbers in this file")
    return place


def _slide(file: Path, key: str) -> Foreign:
    """Return the rows of one slide: `features` or `feats`, and `coords`."""
    with h5py.File(file, "r") as opened:
        name = key or next((name for name in FEATURES if name in opened), FEATURES[0])
        data = _dataset(file, opened, name)
        features = _checked(file, data[()])
        coords = np.asarray(_dataset(file, opened, "coords")[()])
        encoder = data.attrs.get("encoder", opened.attrs.get("extractor", ""))
    coords = coords[0] if coords.ndim == 3 and coords.shape[0] == 1 else coords
    if coords.shape != (len(features), 2):
        raise BadInput(f"{file}: {len(features)} rows of features, but coords of shape {coords.shape}")
    if not ((coords > -MOST_COORD) & (coords < MOST_COORD)).all():
        raise BadInput(f"{file}: coords are not finite, or too large for a slide")
    coords = np.rint(coords).astype(np.int64)
    names = [f"{file.stem}_x{x}_y{y}" for x, y in coords.tolist()]
    return Foreign(features, names, [file.stem] * len(names), coords, None, _text(encoder))


def _anndata(file: Path, key: str) -> Foreign:
    """Return the rows of an .h5ad: `X` or a member of `obsm`, named by the index of `obs`."""
    with h5py.File(file, "r") as opened:
        features = _checked(file, _dataset(file, opened, key)[()])
        index = _text(opened["obs"].attrs["_index"])
        names = [_text(name) for name in _dataset(file, opened, f"obs/{index}")[()]]
        group = None
        if "group" in opened["obs"]:
            group = _texts(file, opened, "obs/group")
    return Foreign(features, names, [], None, group, "")


def _texts(file: Path, opened: h5py.File, name: str) -> list[str]:
    """Return a column of `obs`: texts, or codes and categories (-1: no text)."""
    if isinstance(opened.get(name), h5py.Dataset):
        return [_text(each) for each in _dataset(file, opened, name)[()]]
    known = [_text(each) for each in _dataset(file, opened, f"{name}/categories")[()]]
    return [known[code] if code >= 0 else "" for code in _dataset(file, opened, f"{name}/codes")[()].tolist()]


def _parquet(file: Path) -> pd.DataFrame:
    """Return a Parquet file as a table."""
    import_library("pyarrow", extra="large", needed_for="a Parquet file")
    return pd.read_parquet(file)


def _csv(file: Path) -> pd.DataFrame:
    """Return a CSV file as a table of texts: pandas' own fast parser is not exact in all versions."""
    return pd.read_csv(file, dtype=str, keep_default_na=False)


def _table(file: Path, table: pd.DataFrame) -> Foreign:
    """Return the rows of a table with the columns tile_id and f0, f1 ... (or a column of lists, `features`)."""
    if "tile_id" not in table:
        raise BadInput(f"{file}: no column tile_id")
    if "features" in table:
        lengths = {len(row) for row in table["features"]}
        if len(lengths) > 1:
            raise BadInput(f"{file}: rows of {min(lengths)} to {max(lengths)} features: import rows of one encoder")
        features = np.array(table["features"].tolist())
    else:
        columns = sorted((name for name in map(str, table) if COLUMN.fullmatch(name)), key=lambda name: int(name[1:]))
        doubled = any(DOUBLED.fullmatch(str(name)) for name in table)
        if doubled or columns != [f"f{i}" for i in range(len(columns))]:
            raise BadInput(f"{file}: the columns of features are not f0, f1, ... without gaps, each once")
        features = table[columns].to_numpy()
        features = features.astype(np.float64) if features.dtype not in DTYPES else features
    group = _cells(table["group"]) if "group" in table else None
    return Foreign(_checked(file, features), _cells(table["tile_id"]), [], None, group, "")


def _cells(column: pd.Series) -> list[str]:
    """Return the cells of a column as texts, "" for those without a value."""
    return ["" if pd.isna(cell) else str(cell) for cell in column]


def _text(value: Any) -> str:
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)
