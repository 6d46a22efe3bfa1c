"""Create and open the HDF5 files of a run: with a schema, and `complete` as the last attribute.

A reader checks the shape of a data set before it allocates memory, and follows no link out of the file.
"""

import contextlib
import errno
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from pipeline.errors import BadArtifact

MOST_COLUMNS, MOST_ROWS = 65_536, 2_000_000_000
"""Largest shape of a data set; a file with a larger one counts as damaged."""

SYSTEM_ERRORS = (
    *(errno.EACCES, errno.EPERM, errno.EIO, errno.EAGAIN, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOTCONN),
    *(errno.ETIMEDOUT, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP),
)
"""Errors of the system while reading that do not mean that the file is damaged."""

Refuse = Callable[[str], BadArtifact]
"""Function of the rule that a file breaks; returns the error, which names the file and what to do."""


class DatasetSpec(NamedTuple):
    """The rank and the types that a data set must have."""

    rank: int
    dtypes: Sequence[str] = ()
    """numpy's codes of the allowed types; empty: fixed-length UTF-8."""


class _ErrorKeepingFile:
    """Keep write errors of a new HDF5 file: HDF5 would end the process on them (h5py issue 2160).

    After an error nothing more is written, and the file is unusable; `created` raises the error.
    """

    def __init__(self, file: FileIO) -> None:
        self.file = file
        self.error: OSError | None = None
        self.read, self.readinto, self.seek, self.tell = file.read, file.readinto, file.seek, file.tell

    def write(self, data: memoryview) -> None:
        """Write all bytes at the current position."""
        left = memoryview(data).cast("B")
        try:
            while len(left) and self.error is None:
                left = left[self.file.write(left) :]
        except OSError as error:
            self.error = error

    def truncate(self, size: int) -> None:
        """Cut or extend the file."""
        try:
            self.file.truncate(size)
        except OSError as error:
            self.error = self.error or error

    def flush(self) -> None:
        """Do nothing: the file is not buffered."""


@contextlib.contextmanager
def created(path: Path) -> Iterator[h5py.File]:
    """Yield a new HDF5 file, to be written in the block.

    Raises:
        OSError: it could not be written, most often because the disk is full; the file is unusable.
    """
    with path.open("w+b", buffering=0) as raw:
        target = _ErrorKeepingFile(raw)
        try:
            with h5py.File(target, "w") as file:
                yield file
        except Exception:
            if target.error is None:
                raise
        if target.error is not None:
            raise target.error


@contextlib.contextmanager
def opened(path: Path, schema: str, refuse: Refuse) -> Iterator[tuple[h5py.File, dict[str, Any]]]:
    """Open a finished file of a schema; yield it with its single-valued root attributes as plain Python.

    Args:
        path: the file.
        schema: "name/version"; the name and the major version must agree.
        refuse: makes the error.

    Raises:
        BadArtifact: not HDF5, of another schema, unfinished, or unreadable; also while the block reads.
    """
    name, version = schema.split("/")
    major = version.split(".")[0]
    try:
        with h5py.File(path, "r", locking=False) as file:  # the file is complete and never changed
            attrs = _attributes(file)
            if attrs.get("schema") != name or str(attrs.get("schema_version", "")).split(".")[0] != major:
                found = f"{attrs.get('schema')} {attrs.get('schema_version')}"
                raise refuse(f"schema {found}, {name} {major}.x is needed")
            if attrs.get("complete") is not True:
                raise refuse("the attribute 'complete' is missing: the file is unfinished")
            yield file, attrs
    except OSError as error:
        if error.errno is None or error.errno not in SYSTEM_ERRORS:
            raise refuse(f"not a readable HDF5 file ({' '.join(str(error).split())[:120]})") from None
        demanded = "lock file" in str(error) and "; HDF5_USE_FILE_LOCKING demands a lock: unset it"
        raise BadArtifact(f"{path}: cannot be read ({os.strerror(error.errno)}){demanded or ''}") from None
    except (RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:
        raise refuse(f"not a readable HDF5 file ({' '.join(str(error).split())[:120]})") from None


def _attributes(file: h5py.File) -> dict[str, Any]:
    """Return the root attributes that are one number, flag or fixed-length text, as plain Python; no schema has others.

    Lists and texts of variable length are not read: they are in a heap, where several may point to the same bytes.
    With some damaged heaps the HDF5 library (2.0.0) never returns.
    """
    found = {}
    for name in file.attrs:
        stored = file.attrs.get_id(name)
        if stored.shape == () and stored.dtype.kind in "biufS":
            value = file.attrs[name]
            found[name] = value.decode() if isinstance(value, bytes) else value.item()
    return found


def write_attributes(file: h5py.File | h5py.Dataset, attrs: Mapping[str, Any]) -> None:
    """Write attributes: numbers, flags, texts as fixed-length UTF-8, lists and objects as JSON."""
    for name, value in attrs.items():
        if isinstance(value, list | dict):
            value = json.dumps(value, sort_keys=True, ensure_ascii=False)
        file.attrs[name] = as_utf8([value]).reshape(()) if isinstance(value, str) else value


def finish(file: h5py.File, schema: str) -> None:
    """Mark a file as finished: its schema ("name/version"), and `complete`, last."""
    name, version = schema.split("/")
    write_attributes(file, {"schema": name, "schema_version": version, "complete": True})


def read_dataset(file: h5py.File, name: str, spec: DatasetSpec, refuse: Refuse) -> np.ndarray:
    """Return one data set as an array; see `open_dataset`."""
    return open_dataset(file, name, spec, refuse)[()]


def open_dataset(file: h5py.File, name: str, spec: DatasetSpec, refuse: Refuse) -> h5py.Dataset:
    """Return one data set, to be read block by block, after checking its rank, type and size.

    Raises:
        BadArtifact: missing, a link, of another rank or type, or far larger than the file.
    """
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise refuse(f"/{name} is missing or a link")
    data = file[name]
    if not isinstance(data, h5py.Dataset) or data.is_virtual or data.external:
        raise refuse(f"/{name} is not a data set of this file")
    shape = data.shape
    if len(shape) != spec.rank or shape[0] > MOST_ROWS or any(side > MOST_COLUMNS for side in shape[1:]):
        raise refuse(f"/{name} has shape {shape}")
    if spec.dtypes:
        if data.dtype.str not in spec.dtypes:
            raise refuse(f"/{name} is {data.dtype}, {' or '.join(spec.dtypes)} is needed")
    elif data.dtype.kind != "S":
        raise refuse(f"/{name} is {data.dtype}, fixed-length UTF-8 is needed")
    chunk = math.prod(data.chunks or (0,)) * data.dtype.itemsize  # a chunk is always read as a whole
    if max(data.nbytes, chunk) > max(10 * file.id.get_filesize(), 1_000_000):
        raise refuse(f"/{name} claims {max(data.nbytes, chunk)} bytes, far more than the file has")
    return data


def as_utf8(texts: Sequence[str]) -> np.ndarray:
    """Return N texts as (N,) fixed-length UTF-8, wide enough for the longest."""
    encoded = [text.encode() for text in texts]
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", max(1, *map(len, encoded), 1)))
