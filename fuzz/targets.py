"""One function per kind of file: it may end in content or in a PipelineError of one line, nothing else."""

import os
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.storage import records
from pipeline.storage.embeddings import read_embeddings
from pipeline.storage.floors import read_floors
from pipeline.tiles.datasets import csv_tiles
from pipeline.tiles.decoding import decode_tile
from pipeline.tiles.manifest import SCHEMA, read_manifest

DETAILS = {"root": ".", "dataset": "made up", "protocol": "random"}


def check(read: Callable[[Path], object], path: Path) -> None:
    """Read a file; let a PipelineError pass if it is one line."""
    try:
        read(path)
    except PipelineError as error:
        if len(str(error).splitlines()) != 1:
            raise AssertionError(f"not one line: {str(error)!r}") from error


def tile(data: bytes, folder: Path) -> None:
    """Decode a tile."""
    path = folder / "tile.png"
    path.write_bytes(data)
    check(decode_tile, path)


def hdf5(data: bytes, folder: Path) -> None:
    """Read embeddings and floors."""
    path = folder / "file.h5"
    path.write_bytes(data)
    check(read_embeddings, path)
    check(read_floors, path)


def manifest(data: bytes, folder: Path) -> None:
    """Read a list of tiles as a user gives it, and a manifest with a record that vouches for it."""
    path = folder / "manifest.csv"
    path.write_bytes(data)
    check(lambda file: csv_tiles(file, group_regex=""), path)
    records.write_record(path, schema=SCHEMA, stage="prepare", options={}, details=DETAILS)
    check(read_manifest, path)


TARGETS: dict[str, Callable[[bytes, Path], None]] = {"tile": tile, "hdf5": hdf5, "manifest": manifest}


def quicken() -> None:
    """Leave out what only costs time here: nothing of a fuzzer's files must survive a loss of power."""
    os.fsync = lambda _: None  # type: ignore[assignment]
