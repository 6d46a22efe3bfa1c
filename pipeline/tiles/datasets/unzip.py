"""Unpack the zip file of a data set into a new folder, completely or not at all."""

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import BadInput
from pipeline.runtime.progress import progress
from pipeline.storage.lock import locked
from pipeline.tiles.datasets.download import disk_error


def unpack_zip(archive: Path, folder: Path, *, max_bytes: int, max_files: int) -> None:
    """Unpack `archive` into the new folder `folder`, which gets its name only when it is complete.

    The work is done in `<folder>.partial`; the caller holds a lock, as what a killed run left there is removed first.
    Python's zipfile keeps every member below the folder, makes no links, and writes no more than a member's declared
    size.

    Args:
        archive: zip file.
        folder: path that must not exist yet.
        max_bytes: limit for the sum of the unpacked bytes.
        max_files: limit for the number of entries, folders included.

    Raises:
        BadInput: `folder` exists; not a zip, damaged or encrypted; or beyond a limit.
        DiskFull: no space left; the temporary folder is removed.
    """
    if folder.exists():
        raise BadInput(f"{folder} exists already; delete it to unpack {archive} again")
    partial = folder.with_name(folder.name + ".partial")
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
            n_bytes = sum(member.file_size for member in members)
            if len(members) > max_files or n_bytes > max_bytes:
                raise BadInput(
                    f"{archive} holds {len(members)} entries of {n_bytes} bytes, more than the {max_files} entries or "
                    f"{max_bytes} bytes of this data set"
                )
            shutil.rmtree(partial, ignore_errors=True)
            with progress(len(members), unit="file", label="unpack") as bar:
                for member in members:
                    opened.extract(member, partial)
                    bar.update(1)
        os.sync()  # once, in place of thousands of fsyncs
        partial.replace(folder)
    except BadInput:
        raise
    except OSError as error:
        raise disk_error(error, Path(error.filename) if error.filename else folder) from error
    except Exception as error:  # zipfile raises whatever comes on damaged archives (BadZipFile, zlib.error ...)
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadInput(f"{archive} is no zip file or is damaged ({reason}); get it again") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def unpacked_folder(
    source: Path | None, place: Path, fetch: Callable[[Path], None], *, max_bytes: int, max_files: int
) -> Path:
    """Return the folder of a data set: `source` if it is a folder, else `place`.

    A complete `place` is used again. Its zip, if it was downloaded, is deleted after unpacking; a given one stays.

    Args:
        source: None for a download; the zip, to be unpacked into `place`; or an unpacked folder, used where it is.
        place: folder in the cache of the data set; only a complete one has this name.
        fetch: downloads the zip to a path.
        max_bytes: limit for the sum of the unpacked bytes.
        max_files: limit for the number of entries.

    Raises:
        BadInput: `source` does not exist; or as `unpack_zip`.
        DiskFull: no space left.
        Locked: another process is filling the cache.
    """
    if source is not None and not source.exists():
        raise BadInput(f"{source} does not exist; --source takes the published zip or its unpacked folder")
    if source is not None and source.is_dir():
        return source
    try:
        if not place.exists():
            with locked(place.parent):
                if not place.exists():  # another process may have been faster
                    own = place.with_suffix(".zip")
                    if source is None:
                        fetch(own)
                    unpack_zip(source or own, place, max_bytes=max_bytes, max_files=max_files)
                    if source is None:
                        own.unlink()
    except OSError as error:
        raise disk_error(error, Path(error.filename) if error.filename else place) from error
    return place
