"""Get the ten 5000 x 5000 images of "Collection of textures in colorectal cancer histology" (Kather et al. 2016).

They come from the same ten sources as the tiles. They are downloaded, or read from the zip or an unpacked copy:

    large_images(None, cache=Path("data/kather2016-large"), url=None)
"""

import json
import os
import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import BadInput
from pipeline.slides.find import SlideEntry
from pipeline.slides.scale import GivenMpp
from pipeline.tiles.datasets.download import BY_HAND, TIMEOUT_S, download
from pipeline.tiles.datasets.kather2016 import GROUP_REGEX, KATHER2016
from pipeline.tiles.datasets.unzip import unpacked_folder

SUFFIX = "_APPLICATION.tif"
"""End of the images' names: `CRC-Prim-HE-<source>_APPLICATION.tif`."""

N_IMAGES = 10

MOST_LIST_BYTES = 4_000_000
"""Most bytes that are read of the record's list of files."""

MAX_BYTES, MAX_FILES = 2_000_000_000, 100
"""Most bytes and files that are unpacked: ten images of 75 MB, and files that packers add."""


@dataclass(frozen=True)
class Record:
    """Where the images are published; a mirror or a test has another instance."""

    api: str = "https://zenodo.org/api/records/53169"
    """Address of the record's list of files with their checksums."""

    name: str = "Kather_texture_2016_larger_images_10.zip"


ZENODO = Record()


@dataclass(frozen=True)
class Published:
    """Address, checksum and size of the zip."""

    url: str
    md5: str
    size_bytes: int


def published(record: Record) -> Published:
    """Return address, checksum and size of the zip by the record.

    Raises:
        BadInput: no connection, or a list without the zip.
    """
    request = urllib.request.Request(record.api, headers={"User-Agent": "histoheads"})  # noqa: S310 -- https, above
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310 -- https, above
            text = response.read(MOST_LIST_BYTES)
        files: list[Any] = json.loads(text)["files"]
        entry = next(file for file in files if file["key"] == record.name)
        kind, _, md5 = entry["checksum"].partition(":")
        found = Published(str(entry["links"]["self"]), md5, int(entry["size"]))
    except (OSError, urllib.error.URLError) as error:
        reason = getattr(error, "reason", error)
        raise BadInput(f"{record.api}: the list of files cannot be downloaded ({reason}); {BY_HAND}") from None
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration):
        raise BadInput(f"{record.api}: its list of files does not hold {record.name}; {BY_HAND}") from None
    if kind != "md5" or not re.fullmatch("[0-9a-f]{32}", md5):
        raise BadInput(f"{record.api}: it gives no MD5 of {record.name}; {BY_HAND}")
    return found


def large_images(
    source: Path | None, *, cache: Path, url: str | None = None, record: Record = ZENODO
) -> list[SlideEntry]:
    """Return the ten images with their scale and sources.

    Args:
        source: None to download into `cache`; the published zip, to be unpacked there; or a folder, used where it is.
        cache: e.g. `data/kather2016-large`; a complete copy in it is used again.
        url: another address of the zip; its checksum must be the record's.
        record: source of the checksum.

    Raises:
        BadInput: `source` does not exist or holds other files; or as `published`, `download` and `unpacked_folder`.
        DiskFull: no space left.
        Locked: another process is filling `cache`.
    """
    given = None if source is None else source.expanduser()

    def fetch(path: Path) -> None:
        facts = published(record)
        download(url or facts.url, path, md5=facts.md5, size_hint=facts.size_bytes)

    place = cache / "images"
    folder = unpacked_folder(given, place, fetch, max_bytes=MAX_BYTES, max_files=MAX_FILES)
    return _entries(
        folder, hint=f"delete {place} and run again" if folder == place else "give a complete copy with --source"
    )


def _entries(folder: Path, *, hint: str) -> list[SlideEntry]:
    """Return the images in a folder or in the one folder below it.

    Raises:
        BadInput: another number than ten, or a name without a source.
    """
    found: list[Path] = []
    for top, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        found += [Path(top) / name for name in sorted(files) if name.endswith(SUFFIX) and not name.startswith(".")]
    if len(found) != N_IMAGES:
        raise BadInput(f"{folder} holds {len(found)} images *{SUFFIX} instead of {N_IMAGES}; {hint}")
    sources = [re.search(GROUP_REGEX, path.name) for path in found]
    unknown = [path.name for path, source in zip(found, sources, strict=True) if source is None]
    if unknown:
        raise BadInput(f"{folder}: {unknown[0]} has no source in its name (CRC-Prim-HE-NN); {hint}")
    mpp = GivenMpp(KATHER2016.mpp, "kather2016", overrules=True)
    return [
        SlideEntry(path, path.stem, mpp, source[1])
        for path, source in zip(found, sources, strict=True)
        if source is not None
    ]
