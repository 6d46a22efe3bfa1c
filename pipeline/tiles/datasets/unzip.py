"""A zip file becomes a folder, completely or not at all, and nothing in it is trusted.

unpack_zip(Path("tiles.zip"), Path("data/tiles"), max_bytes=10**9, max_files=20_000)
"""

import errno
import os
import re
import shutil
import stat
import struct
import unicodedata
import zipfile
import zlib
from pathlib import Path

from pipeline.errors import BadInput
from pipeline.runtime.progress import progress
from pipeline.tiles.datasets.download import disk_error

BLOCK_BYTES = 1 << 16

_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    ValueError,
    struct.error,
)
"""What zipfile raises on damaged archives (NotImplementedError: a version or method it does not know)."""


def unpack_zip(archive: Path, folder: Path, *, max_bytes: int, max_files: int, max_ratio: float = 200.0) -> None:
    """Unpack `archive` into the new folder `folder`, which appears under its name only when complete.

    The work is done in `<folder>.partial`; what a dead run left there is removed first, so only one
    process may do this at a time (the caller holds the lock). Sizes are counted while reading, for
    headers may lie. The ratio is that of the whole archive: one tile of plain glass may rightly shrink a
    thousandfold, while a single huge member is stopped by `max_bytes`.

    Args:
        archive: zip file, members stored or deflated.
        folder: path that must not exist yet.
        max_bytes: limit for the sum of the unpacked bytes.
        max_files: limit for the number of entries, folders included.
        max_ratio: limit for unpacked bytes per byte of the archive.

    Raises:
        BadInput: `folder` exists; not a zip, truncated, or damaged; or a member that must not be unpacked:
            a name that is absolute, climbs (`..`), holds a drive, a backslash or control characters, or
            collides with another (also but for case or Unicode form); a link or special file; encrypted;
            compressed otherwise; or beyond one of the limits.
        DiskFull: no space left; the temporary folder is removed.
    """
    if folder.exists():
        raise BadInput(f"{folder} exists already; delete it to unpack {archive} again")
    partial = folder.with_name(folder.name + ".partial")
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
            _check_members(members, archive, max_bytes=max_bytes, max_files=max_files)
            _remove(partial)
            partial.mkdir(parents=True)
            try:
                limit = min(max_bytes, int(max_ratio * archive.stat().st_size))
                _write_members(opened, members, partial, limit=limit)
                _settle()
                partial.replace(folder)
            except BaseException:
                _remove(partial)
                raise
    except _DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadInput(f"{archive} is no zip file or is damaged ({reason}); get it again") from error
    except OSError as error:
        if error.errno == errno.EINVAL:  # zipfile went to an impossible place named by a damaged directory
            raise BadInput(f"{archive} is damaged (wrong offsets); get it again") from error
        raise disk_error(error, Path(error.filename) if error.filename else folder) from error


def _check_members(members: list[zipfile.ZipInfo], archive: Path, *, max_bytes: int, max_files: int) -> None:
    """Refuse the archive by its directory alone, before anything is written."""
    if len(members) > max_files:
        raise BadInput(f"{archive} holds {len(members)} entries, more than the {max_files} allowed")
    spelled: dict[str, tuple[str, bool]] = {}
    declared = 0
    for member in members:
        fault = _fault(member) or _collision(member.orig_filename, spelled)
        declared += member.file_size
        if not fault and declared > max_bytes:
            fault = f"passes the limit of {max_bytes} unpacked bytes"
        if fault:
            raise BadInput(f"{archive}: member {member.orig_filename!r} {fault}; nothing was unpacked")


def _fault(member: zipfile.ZipInfo) -> str | None:
    """Say why a member must not be unpacked; None if it may."""
    # orig_filename is the name as it stands in the archive: `filename` is already cut and mended.
    name = member.orig_filename
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return "has an absolute name"
    if "\\" in name:
        return "has a backslash in its name"
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
        return "has control characters in its name"
    if any(part in ("", ".", "..") for part in name.removesuffix("/").split("/")):
        return "has a name that leaves its folder or is not in plain form"
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a special file"
    if member.flag_bits & 0x1:
        return "is encrypted"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is compressed neither as stored nor as deflated"
    return None


def _collision(name: str, spelled: dict[str, tuple[str, bool]]) -> str | None:
    """Enter `name` and the folders above it into `spelled`; say so if one of them cannot stand there.

    `spelled` maps the form in which file systems may compare a path (case and Unicode form folded,
    blanks and dots at the end of a part dropped) to its spelling and whether it is a folder.
    """
    parts = name.removesuffix("/").split("/")
    for depth in range(1, len(parts) + 1):
        spelling = "/".join(parts[:depth])
        is_folder = depth < len(parts) or name.endswith("/")
        folded = unicodedata.normalize("NFC", spelling).casefold()
        key = "/".join(part.rstrip(" .") for part in folded.split("/"))
        present = spelled.get(key)
        spelled[key] = (spelling, is_folder)
        # A folder may be named often, by itself and by all that stands in it; a file only once.
        if present and (present != (spelling, is_folder) or not is_folder):
            return f"collides with {present[0]!r}"
    return None


def _write_members(opened: zipfile.ZipFile, members: list[zipfile.ZipInfo], folder: Path, *, limit: int) -> None:
    """Write every member below `folder`, counting bytes; modes and times are not taken over."""
    written = 0
    with progress(len(members), unit="file", label="unpack") as bar:
        for member in members:
            bar.update(1)
            path = folder / member.orig_filename
            if member.is_dir():
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            before = written
            with opened.open(member) as source, path.open("xb") as target:
                while block := source.read(BLOCK_BYTES):
                    written += len(block)
                    if written > limit:
                        raise BadInput(
                            f"{opened.filename}: member {member.orig_filename!r} passes the limit of {limit} "
                            "unpacked bytes for this archive; it is no data set"
                        )
                    target.write(block)
            if written - before != member.file_size:
                raise BadInput(
                    f"{opened.filename}: member {member.orig_filename!r} holds {written - before} bytes "
                    f"instead of the {member.file_size} it declares; get it again"
                )


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def _settle() -> None:
    """Bring the files to disk before the folder gets its name: one sync instead of thousands of fsyncs."""
    if hasattr(os, "sync"):
        os.sync()
