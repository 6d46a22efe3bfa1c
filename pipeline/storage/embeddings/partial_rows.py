"""Append rows as they are computed, so that an extraction survives kill -9 at any moment.

A torn HDF5 file is lost as a whole, raw rows are not. embeddings.h5 is built from the finished rows at the end.
"""

import errno
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import StaleInput
from pipeline.storage import atomic

BLOCK_ROWS = 256
"""Rows that are read at once: memory stays flat whatever N."""


def row_type(n_features: int, n_classes: int) -> np.dtype:
    """Return the layout of one scratch row; `crc` covers the bytes before it."""
    return np.dtype(
        [
            ("features", "<f4", (n_features,)),
            ("logits", "<f4", (n_classes,)),
            ("sha256", "u1", (32,)),
            ("status", "u1"),
            ("crc", "<u4"),
        ]
    )


def header_path(target: Path) -> Path:
    """Return the path of the header of the rows that are computed for a file; it is there until the file is written."""
    return target.with_name(target.name + ".partial.json")


def _crc(identity: Mapping[str, Any]) -> int:
    """Return the checksum of an identity as it will be read."""
    return zlib.crc32(atomic.to_json(json.loads(atomic.to_json(identity))).encode())


class PartialRows:
    """Rows appended as they are computed; survives kill -9 at any moment.

    Args:
        target: the final `embeddings.h5`; the partial rows are next to it.
        row: `row_type(...)`.
        identity: what rows depend on (hashes of model and manifest, precision, batch size): plain JSON.
        batch: rows are computed in batches of this size counted from row 0; a continued run starts at a batch's
            beginning, so that it computes the very batches of an uninterrupted one.
    """

    def __init__(self, target: Path, *, row: np.dtype, identity: Mapping[str, Any], batch: int) -> None:
        self.path = target.with_name(target.name + ".partial")
        self.header = header_path(target)
        self.row, self.identity, self.batch = row, dict(identity), batch

    def open(self, *, restart: bool) -> int:
        """Begin or continue; return the number of rows that are already there, a multiple of `batch`.

        Raises:
            StaleInput: the rows there were computed by another model, manifest or setting.
            BadArtifact: the file of rows is a link, and its target would be overwritten.
        """
        atomic.refuse_link(self.path)
        if restart:
            self.remove()
        if self.header.is_file() and self.path.is_file():
            theirs = self.begun()
            if theirs != self.identity:
                names = [name for name in {**self.identity, **theirs} if self.identity.get(name) != theirs.get(name)]
                raise StaleInput(
                    f"{self.path} holds rows made with another {', '.join(names)}: pass --restart to compute them again"
                )
            return self.cut(self._good_rows())
        self.path.unlink(missing_ok=True)  # rows without a header could be anything's
        atomic.write_text(self.header, atomic.to_json(self.identity | {"crc": _crc(self.identity)}))
        return self.cut(0)

    def begun(self) -> dict[str, Any]:
        """Return the identity that the rows there were begun with, {} if there is none or it is damaged."""
        try:
            identity = json.loads(self.header.read_bytes())
            whole = identity.pop("crc") == _crc(identity)  # parts of it go into the embeddings' record
        except (FileNotFoundError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
            return {}
        return identity if whole else {}

    def cut(self, rows: int) -> int:
        """Keep only the whole batches within the first `rows` rows; return the number of rows kept."""
        kept = rows // self.batch * self.batch
        with atomic.disk_errors(self.path), self.path.open("ab") as file:
            file.truncate(kept * self.row.itemsize)
        return kept

    def _good_rows(self) -> int:
        """Count the leading rows whose checksums hold (power loss can leave zeros or torn rows at the end)."""
        good = 0
        for rows in self.blocks():
            for row in rows:
                if zlib.crc32(row.tobytes()[:-4]) != int(row["crc"]):
                    return good
                good += 1
        return good

    def append(self, rows: np.ndarray) -> None:
        """Append rows (B,) of the row type; fills in their checksums."""
        for i in range(len(rows)):
            rows["crc"][i] = zlib.crc32(rows[i].tobytes()[:-4])
        with atomic.disk_errors(self.path), self.path.open("ab", buffering=0) as file:
            data = rows.tobytes()
            if file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield all whole rows in order, at most `BLOCK_ROWS` at once."""
        with self.path.open("rb") as file:
            while len(rows := np.fromfile(file, dtype=self.row, count=BLOCK_ROWS)):
                yield rows

    def remove(self) -> None:
        """Remove the scratch, header last, so that no rows are ever left without one."""
        self.path.unlink(missing_ok=True)
        self.header.unlink(missing_ok=True)
