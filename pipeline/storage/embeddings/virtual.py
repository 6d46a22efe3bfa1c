"""Features that lie in several files: a virtual HDF5 data set for everyone's readers, the files themselves for ours.

HDF5 gives the fill value for every row whose file is missing, without a word. So the fill value is NaN, and our
readers ask the files that the attribute `virtual` names, never the virtual data set: what is missing is an error.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np

from pipeline.errors import BadArtifact, UsageError
from pipeline.storage.hdf5 import Claim, open_dataset, opened

MOST_FILES = 500
"""HDF5 keeps every file of a virtual data set open, and a process may often have no more than 1024."""

MOST_NAME_BYTES = 60_000
"""The list of names is one attribute, which HDF5 limits to 64 kB."""


def names_below(folder: Path, files: Sequence[Path]) -> list[str]:
    """Return the files' names relative to the folder of the virtual file, in POSIX form.

    Raises:
        UsageError: one lies elsewhere, has a name that HDF5 reads otherwise, or there are too many.
    """
    names = []
    for file in files:
        place, root = file.parent.resolve() / file.name, folder.resolve()
        if not place.is_relative_to(root) or "%" in str(place.relative_to(root)):
            raise UsageError(
                f"--virtual: {file} does not lie in the folder of --out or below it, or has a % in its name: put it "
                f"below {folder}, so that both can be moved together, or leave --virtual"
            )
        names.append(place.relative_to(root).as_posix())
    if len(names) > MOST_FILES or len(json.dumps(names).encode()) > MOST_NAME_BYTES:
        raise UsageError(f"--virtual: {len(names)} files are more than HDF5 keeps open: leave --virtual")
    return names


def create_virtual(
    file: h5py.File, *, names: Sequence[str], lengths: Sequence[int], width: int, dtype: np.dtype[Any]
) -> None:
    """Make `/features` a virtual data set: the rows of `/features` of several files, one below the other.

    Args:
        file: to be written.
        names: of the files, relative to this file's folder.
        lengths: their numbers of rows.
        width: columns.
        dtype: of all of them.
    """
    layout = h5py.VirtualLayout((sum(lengths), width), dtype)
    start = 0
    for name, n in zip(names, lengths, strict=True):
        layout[start : start + n] = h5py.VirtualSource(name, "features", (n, width), dtype)
        start += n
    file.create_virtual_dataset("features", layout, fillvalue=np.nan)


class Stacked:
    """The rows of `/features` of several files as one data set to be indexed by rows; one file is open at a time.

    Args:
        path: the virtual file.
        names: what its attribute `virtual` says.
        schema: of the files.
        claim: what `/features` must be in each.

    Raises:
        BadArtifact: a name leads elsewhere; a file is missing, damaged, or another kind of file.
    """

    def __init__(self, path: Path, names: Any, *, schema: str, claim: Claim) -> None:
        if not isinstance(names, list) or not 0 < len(names) <= MOST_FILES or not all(map(_leads_below, names)):
            raise BadArtifact(f"{path}: the attribute 'virtual' is no list of files below its folder: merge it again")
        self.files = [path.parent / name for name in names]
        self.path, self.schema, self.claim = path, schema, claim
        shapes, dtypes = [], set()
        for file in self.files:
            if not file.is_file():
                raise BadArtifact(f"{path}: its features lie in {file}, which is not there: {self._advice}")
            with opened(file, schema, self._refusal(file)) as (handle, _):
                features = open_dataset(handle, "features", claim, self._refusal(file))
                shapes.append(features.shape)
                dtypes.add(features.dtype)
        if len(dtypes) != 1 or len({width for _, width in shapes}) != 1:
            raise BadArtifact(f"{path}: the features of its files are of several widths or types: {self._advice}")
        self.lengths = [n for n, _ in shapes]
        self.shape = sum(self.lengths), shapes[0][1]
        self.dtype: np.dtype[Any] = dtypes.pop()

    _advice = "restore that file, or extract that shard and run `python -m pipeline.merge` again"

    def _refusal(self, file: Path) -> Any:
        return lambda rule: BadArtifact(f"{self.path}: its features lie in {file}: {rule}: {self._advice}")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: "slice | np.ndarray") -> np.ndarray:
        """Return some rows, (n, D): a slice, or rising row numbers (n,)."""
        wanted = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else rows
        found = np.empty((len(wanted), self.shape[1]), self.dtype)
        first = 0
        for file, n in zip(self.files, self.lengths, strict=True):
            begin, end = np.searchsorted(wanted, (first, first + n))
            if begin < end:
                own = wanted[begin:end] - first
                in_turn = own[-1] - own[0] == len(own) - 1  # which HDF5 reads much faster
                with opened(file, self.schema, self._refusal(file)) as (handle, _):
                    features = open_dataset(handle, "features", self.claim, self._refusal(file))
                    found[begin:end] = features[own[0] : own[-1] + 1] if in_turn else features[own]
            first += n
        return found


def names_in(attrs: Mapping[str, Any]) -> Any:
    """Return the files that hold the features, None if the file itself does; `attrs` are as they stand in the file."""
    return json.loads(attrs["virtual"]) if "virtual" in attrs else None


def open_features(path: Path, file: h5py.File, names: Any, *, schema: str, claim: Claim, refuse: Any) -> Any:
    """Return /features to be indexed by rows: the file's own data set, or what the files named hold of it.

    Args:
        path: the file.
        file: the same, open.
        names: of the files that hold the features, or None.
        schema: of all of them.
        claim: what /features must be.
        refuse: makes the error for a rule that the file breaks.

    Raises:
        BadArtifact: a file breaks the schema or is missing.
    """
    if names is None:
        return open_dataset(file, "features", claim, refuse)
    return Stacked(path, names, schema=schema, claim=claim)


def _leads_below(name: Any) -> bool:
    """Tell whether a name is a relative path that climbs nowhere."""
    if not isinstance(name, str) or not name or "\0" in name:
        return False
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts
