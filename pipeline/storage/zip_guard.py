"""Refuse packed archives among the files of libraries that are zip archives: torch's weights, skops' heads."""

import struct
import zipfile
from pathlib import Path

from pipeline.errors import BadArtifact

SLACK_BYTES = 1_000_000
"""What the members of an archive may have more than the file itself: texts may be packed, arrays are not."""


def refuse_packed(path: Path) -> None:
    """Refuse an archive whose members have far more bytes than the file: they would be unpacked into memory.

    Both libraries write members as they are, not compressed. A file that is no archive passes.

    Raises:
        BadArtifact: packed, overlapping, or with a damaged directory.
    """
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, struct.error) as error:
        raise BadArtifact(f"{path}: a damaged archive ({' '.join(str(error).split())[:120]})") from None
    if unpacked > path.stat().st_size + SLACK_BYTES:
        raise BadArtifact(f"{path}: its members claim {unpacked} bytes, far more than the file has: it is packed")
