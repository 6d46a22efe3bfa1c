"""Refuse compressed zip archives as weights of torch or heads of skops."""

import struct
import zipfile
from pathlib import Path

from pipeline.errors import BadArtifact

SLACK_BYTES = 1_000_000
"""Bytes that the members of an archive may have more than the file: texts may be compressed, arrays are not."""


def check_not_packed(path: Path) -> None:
    """Check that the members of an archive have about as many bytes as the file: they are read into memory.

    Both libraries write members uncompressed. A file that is no archive passes.

    Raises:
        BadArtifact: compressed, overlapping, or with a damaged directory.
    """
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, struct.error) as error:
        raise BadArtifact(f"{path}: a damaged archive ({' '.join(str(error).split())[:120]})") from None
    if unpacked > path.stat().st_size + SLACK_BYTES:
        raise BadArtifact(f"{path}: its members claim {unpacked} bytes, far more than the file has: it is compressed")
