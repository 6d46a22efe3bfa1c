"""An artefact that a long stage reads: its bytes are hashed once, before it is read, and the hash is handed on."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import StaleInput
from pipeline.storage.artifacts import sha256_file
from pipeline.storage.records import check_artifact


@dataclasses.dataclass(frozen=True)
class Input:
    """An artefact whose bytes were those of its record when `check_input` looked."""

    path: Path
    record: Mapping[str, Any]
    stamp: tuple[int, ...]
    """What the file system said of it before it was hashed."""

    @property
    def known(self) -> dict[Path, str]:
        """Its hash, for `records.is_current` and `records.write_record`."""
        return {self.path: self.record["sha256"]}

    def check_unchanged(self) -> None:
        """Check that what was read since is what was hashed; before a record names that hash as its input.

        The file is hashed again only where the file system says that it was touched.

        Raises:
            StaleInput: it was replaced, written to or removed meanwhile; names both hashes.
        """
        is_there, expected = self.path.is_file(), self.record["sha256"]
        if is_there and _stamp(self.path) == self.stamp:
            return
        found = sha256_file(self.path) if is_there else "none"
        if found != expected:
            raise StaleInput(
                f"{self.path}: was {expected[:12]} when it was taken as input and is {found[:12]} now: run the same "
                "command again"
            )


def check_input(path: Path, *, schema: str) -> Input:
    """Return an artefact with its record, after hashing it.

    Raises:
        BadArtifact: not there, damaged, or of another schema (`records.check_artifact`).
    """
    stamp = _stamp(path) if path.is_file() else ()  # before: what is replaced while it is hashed must not look the same
    return Input(path, check_artifact(path, schema=schema), stamp)


def _stamp(path: Path) -> tuple[int, ...]:
    """Return numbers of which one changes with every replacement and every write; the last is not for users to set."""
    told = path.stat()
    return told.st_ino, told.st_size, told.st_mtime_ns, told.st_ctime_ns
