"""Which files lie in a folder, and whether their names can stand in a table."""

import contextlib
import hashlib
import os
from pathlib import Path

from pipeline.errors import BadInput
from pipeline.runtime.console import UNPRINTABLE, visible
from pipeline.storage.atomic import sha256_file
from pipeline.tiles.decoding import SUFFIXES


def refuse_unwritable(names: list[str], *, where: str) -> None:
    """Raise BadInput if a name holds a line break, another control character, or bytes that are not UTF-8."""
    for name in names:
        if UNPRINTABLE.search(name):
            raise BadInput(f"{where}: the name '{visible(name)}' has a character that no table can hold: rename it")


def files_below(folder: Path) -> list[str]:
    """Return the files of a folder and the folders in it, by relative path, folder by folder; hidden ones are left out.

    Raises:
        BadInput: a folder that cannot be read or is linked into itself.
    """
    found: list[str] = []

    def refuse(error: OSError) -> None:  # os.walk would pass over the folder and all its tiles in silence
        raise BadInput(f"{error.filename}: the folder cannot be read ({error.strerror})") from None

    for top, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        place = Path(top).resolve()
        for name_below in folders:
            if (Path(top) / name_below).resolve() in (place, *place.parents):
                raise BadInput(f"{Path(top) / name_below}: a link to a folder above it: remove it")
        here = Path(top).relative_to(folder)
        found += [(here / file).as_posix() for file in sorted(files) if not file.startswith(".")]
    return found


def image_files(folder: Path) -> list[str]:
    """Return the tiles of a folder and the folders in it, whose names say nothing, by relative path, sorted.

    Raises:
        BadInput: as `files_below`, a name that no table can hold, or no image.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder of tiles")
    found = sorted(path for path in files_below(folder) if Path(path).suffix.lower() in SUFFIXES)
    refuse_unwritable(found, where=str(folder))
    if not found:
        raise BadInput(f"{folder}: no tiles found: {', '.join(SUFFIXES)} files are expected")
    return found


def files_digest(folder: Path, names: list[str]) -> str:
    """Return one SHA-256 of the names and bytes of files; one that cannot be opened counts by its name."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name}\n".encode())
        with contextlib.suppress(OSError):
            digest.update(sha256_file(folder / name).encode())
    return digest.hexdigest()
