"""Append rows as they are computed, so that an extraction survives kill -9 at any moment.

An unfinished HDF5 file is unreadable, raw rows are not. embeddings.h5 is built from the finished rows at the end.
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
from pipeline.storage import atomic, freshness

BLOCK_ROWS = 256
"""Rows that are read at once, so that memory does not grow with N."""


def row_type(n_features: int, n_classes: int) -> np.dtype:
    """Return the layout of one row; `crc` is the checksum of the bytes before it."""
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
    """Return the checksum of an identity, in the form that is read back."""
    return zlib.crc32(atomic.to_json(json.loads(atomic.to_json(identity))).encode())


class PartialRows:
    """Append rows to a file, and continue the file of a killed process.

    Args:
        target: the final `embeddings.h5`; the partial rows are next to it.
        row: `row_type(...)`.
        identity: everything that rows depend on (hashes of model and manifest, precision, batch size): plain JSON.
        batch: size of the batches that rows are computed in, from row 0. A continued run starts with a whole batch, so
            that it computes the same batches as an uninterrupted run.
    """

    def __init__(self, target: Path, *, row: np.dtype, identity: Mapping[str, Any], batch: int) -> None:
        self.path = target.with_name(target.name + ".partial")
        self.header = header_path(target)
        self.row, self.identity, self.batch = row, dict(identity), batch

    def open(self, *, restart: bool) -> int:
        """Start or continue; return the number of finished rows, a multiple of `batch`.

        Raises:
            StaleInput: the stored rows were computed with another model, manifest or setting.
            BadArtifact: the file of rows is a link; writing would overwrite its target.
        """
        atomic.check_no_link(self.path)
        if restart:
            self.remove()
        if self.header.is_file() and self.path.is_file():
            stored = self.stored_identity()
            if stored != self.identity:
                names = ", ".join(freshness.differing(self.identity, stored))
                raise StaleInput(
                    f"{self.path} has rows made with another {names}: pass --restart to compute them again"
                )
            return self.cut(self._n_valid_rows())
        self.path.unlink(missing_ok=True)  # the origin of rows without a header is unknown
        atomic.write_text(self.header, atomic.to_json(self.identity | {"crc": _crc(self.identity)}))
        return self.cut(0)

    def stored_identity(self) -> dict[str, Any]:
        """Return the identity of the stored rows; {} if it is missing or damaged."""
        try:
            identity = json.loads(self.header.read_bytes())
            whole = identity.pop("crc") == _crc(identity)  # parts go into the record of the embeddings
        except (FileNotFoundError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
            return {}
        return identity if whole else {}

    def cut(self, rows: int) -> int:
        """Keep only the whole batches within the first `rows` rows; return the number of rows kept."""
        kept = rows // self.batch * self.batch
        with atomic.disk_errors(self.path), self.path.open("ab") as file:
            file.truncate(kept * self.row.itemsize)
        return kept

    def _n_valid_rows(self) -> int:
        """Return the number of rows before the first wrong checksum; a power loss can leave zeros or torn rows."""
        n_valid = 0
        for rows in self.blocks():
            for row in rows:
                if zlib.crc32(row.tobytes()[:-4]) != int(row["crc"]):
                    return n_valid
                n_valid += 1
        return n_valid

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
        """Remove rows and header, the header last, so that no rows are left without a header."""
        self.path.unlink(missing_ok=True)
        self.header.unlink(missing_ok=True)
