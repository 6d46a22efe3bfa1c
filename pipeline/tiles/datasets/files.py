"""List the image files in a folder: what is an image by its name or by its first bytes, and what is passed over."""

import contextlib
import dataclasses
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pipeline.errors import BadInput
from pipeline.runtime.console import UNPRINTABLE, visible
from pipeline.storage.atomic import sha256_file
from pipeline.tiles.datasets.names import copies
from pipeline.tiles.decoding import READABLE

_READ = (
    "png apng jpg jpeg jpe jfif jif jfi tif tiff btf tf8 webp bmp dib gif jp2 j2k jpf jpx j2c jpc jpm mpo "
    "ppm pgm pbm pnm"
)
_NOT_READ = (
    "avif heic heif jxl jxr psd psb tga icb vda vst pcx sgi rgb rgba bw ico icns dds exr hdr xbm xpm ras pfm pam qoi "
    "dcm dicom nii mha mrc dng cr2 cr3 nef arw orf rw2 svs ndpi vms vmu scn mrxs svslide bif isyntax czi lsm nd2 lif "
    "vsi oir qptiff flex zvi"
)
IMAGES = frozenset(f".{suffix}" for suffix in f"{_READ} {_NOT_READ}".split())
"""Suffixes of images in lower case. An image of a format that is not read counts as a tile that cannot be read."""

FIRST_BYTES = (
    *(b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"GIF87a", b"GIF89a"),
    b"\0\0\0\x0cjP  ",
    b"\xff\x4f\xff\x51",
)
"""First bytes of images, for files with other names."""

SYSTEM_FOLDER = re.compile(
    r"@eadir|@tmp|@recycle|@recently-snapshot|@sharebin|#recycle|#snapshot|~snapshot|\.snapshot|\.trash.*|\.trashes"
    r"|\$recycle\.bin|\$extend|recycle[rd]|recycle bin|system volume information|found\.\d{3}|lost\+found|__macosx"
    r"|network trash folder|temporary items|__pycache__",
    re.IGNORECASE,
)
"""Folders that systems put among files: thumbnails, deleted files, snapshots."""


@dataclasses.dataclass(frozen=True)
class FolderFiles:
    """The files in a folder and in the folders below it, by relative POSIX path, sorted."""

    images: list[str]
    """Images by their names or first bytes, readable or not."""

    others: list[str]
    """All other files."""

    system: list[str]
    """System folders; their files are in none of the lists."""

    @property
    def copies(self) -> list[tuple[str, str]]:
        """(copy, original) of images and of their folders that are copies by their names."""
        inside: dict[str, dict[str, str]] = {}
        for image in self.images:
            path = PurePosixPath(image)
            inside.setdefault(str(path.parent), {}).setdefault(path.stem, image)
            for folder in list(path.parents)[:-1]:
                inside.setdefault(str(folder.parent), {})[folder.name] = f"{folder}/"
        return [(names[a], names[b]) for names in inside.values() for a, b in copies(list(names))]


def list_images(folder: Path) -> FolderFiles:
    """Return the images of a folder and of the folders below it; hidden files and folders are left out.

    Raises:
        BadInput: no such folder, a folder that cannot be read or is linked into itself, or a name that no table holds.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder of tiles")
    images: list[str] = []
    others: list[str] = []
    system: list[str] = []
    for top, _, files, found in walk(folder):
        here = top.relative_to(folder)
        system += [f"{(here / name).as_posix()}/" for name in found]
        for name in files:
            (images if is_image(top / name) else others).append((here / name).as_posix())
    refuse_unwritable(images, where=str(folder))
    return FolderFiles(sorted(images), sorted(others), sorted(system))


def walk(folder: Path) -> Iterator[tuple[Path, list[str], list[str], list[str]]]:
    """Yield each folder with the names of its folders, files and system folders, as `os.walk`, without hidden ones.

    System folders are passed over, and the folders that the caller removes from the list.

    Raises:
        BadInput: a folder cannot be read, or is linked into itself.
    """

    def refuse(error: OSError) -> None:  # os.walk would pass over the folder and all its tiles in silence
        raise BadInput(f"{error.filename}: the folder cannot be read ({error.strerror})") from None

    for top, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        here, system = Path(top), [name for name in folders if SYSTEM_FOLDER.fullmatch(name)]
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in system)
        yield here, folders, [name for name in files if not name.startswith(".")], system
        place = here.resolve()
        if loops := [name for name in folders if (here / name).resolve() in (place, *place.parents)]:
            raise BadInput(f"{here / loops[0]}: a link to a folder above it: remove it")


def is_image(path: Path) -> bool:
    """Return whether a file is an image by its name or, under another name, by its first bytes."""
    if path.suffix.lower() in IMAGES:
        return True
    try:
        if not path.is_file():  # a pipe would never begin
            return False
        with path.open("rb") as handle:
            return handle.read(16).startswith(FIRST_BYTES)
    except OSError:
        return False


def refuse_unwritable(names: list[str], *, where: str) -> None:
    """Raise BadInput if a name holds a line break, another control character, or bytes that are not UTF-8."""
    for name in names:
        if UNPRINTABLE.search(name):
            raise BadInput(f"{where}: the name '{visible(name)}' has a character that no table can hold: rename it")


def image_files(folder: Path) -> list[str]:
    """Return the images of a folder without labels, by relative path, sorted.

    Raises:
        BadInput: as `list_images`, or no image.
    """
    found = list_images(folder).images
    if not found:
        raise BadInput(f"{folder}: no tiles found: {READABLE} files are expected")
    return found


def files_digest(folder: Path, names: list[str]) -> str:
    """Return one SHA-256 of the names and bytes of files; one that cannot be opened counts by its name."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name}\n".encode())
        with contextlib.suppress(OSError):
            digest.update(sha256_file(folder / name).encode())
    return digest.hexdigest()
