"""What every HDF5 file of a run has in common: a schema, `complete` as its last mark, and data sets of its own.

A reader looks at what a data set claims to be before any memory is asked for, and follows no link out of the file.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from pipeline.errors import BadArtifact

MOST_COLUMNS, MOST_ROWS = 65_536, 2_000_000_000
"""Larger shapes in a file are taken for damage."""

Refuse = Callable[[str], BadArtifact]
"""The rule that a file breaks -> the error, which names the file and what to do."""


class Claim(NamedTuple):
    """What a data set must be."""

    rank: int
    dtypes: Sequence[str] = ()
    """numpy's codes of the allowed types; none: fixed-length UTF-8."""


@contextlib.contextmanager
def opened(path: Path, schema: str, refuse: Refuse) -> Iterator[tuple[h5py.File, dict[str, Any]]]:
    """Open a finished file of a schema; yield it with its root attributes as plain Python.

    Args:
        path: the file.
        schema: "name/version": its name and the first number of its version must agree.
        refuse: makes the error.

    Raises:
        BadArtifact: not HDF5, of another schema, never finished; or whatever reading in the block raises.
    """
    name, version = schema.split("/")
    major = version.split(".")[0]
    try:
        with h5py.File(path, "r") as file:
            stored = dict(file.attrs)
            attrs = {key: value.item() if isinstance(value, np.generic) else value for key, value in stored.items()}
            if attrs.get("schema") != name or str(attrs.get("schema_version", "")).split(".")[0] != major:
                found = f"{attrs.get('schema')} {attrs.get('schema_version')}"
                raise refuse(f"schema {found}, {name} {major}.x is needed")
            if attrs.get("complete") is not True:
                raise refuse("the attribute 'complete' is missing: it was never finished")
            yield file, attrs
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise refuse(f"not a readable HDF5 file ({' '.join(str(error).split())[:120]})") from None


def read_dataset(file: h5py.File, name: str, claim: Claim, refuse: Refuse) -> np.ndarray:
    """Return one data set as an array after looking at what it claims to be.

    Raises:
        BadArtifact: missing, a link, of another rank or type, or far larger than the file.
    """
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise refuse(f"/{name} is missing or a link")
    data = file[name]
    if not isinstance(data, h5py.Dataset) or data.is_virtual or data.external:
        raise refuse(f"/{name} is not a data set of this file")
    shape = data.shape
    if len(shape) != claim.rank or shape[0] > MOST_ROWS or any(side > MOST_COLUMNS for side in shape[1:]):
        raise refuse(f"/{name} has shape {shape}")
    if claim.dtypes:
        if data.dtype.str not in claim.dtypes:
            raise refuse(f"/{name} is {data.dtype}, {' or '.join(claim.dtypes)} is needed")
    elif data.dtype.kind != "S":
        raise refuse(f"/{name} is {data.dtype}, fixed-length UTF-8 is needed")
    if data.nbytes > max(10 * file.id.get_filesize(), 1_000_000):
        raise refuse(f"/{name} claims {data.nbytes} bytes, far more than the file holds")
    return data[()]


def as_utf8(texts: Sequence[str]) -> np.ndarray:
    """Return N texts as (N,) fixed-length UTF-8, wide enough for the longest."""
    encoded = [text.encode() for text in texts]
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", max(1, *map(len, encoded), 1)))
