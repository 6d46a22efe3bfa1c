"""The data set "Collection of textures in colorectal cancer histology" (Kather et al. 2016).

Reads nothing, the published zip, or an unpacked copy; gives the folder with the eight class folders:

    kather2016_folder(None, cache=Path("data/kather2016"))
"""

import os
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import BadInput
from pipeline.storage.lock import locked
from pipeline.tiles.datasets.download import disk_error, download, md5_of
from pipeline.tiles.datasets.unzip import unpack_zip

GROUP_REGEX = r"CRC-Prim-HE-(\d\d)"
"""The source of a tile, 01..10: the two digits after `HE-`. Beyond them names are irregular (`07_025`, `10c`,
`02_007b`, `_copy`, bare `07`). Ten sources in all: tiles of one source are not independent."""


@dataclass(frozen=True)
class Facts:
    """What is published about the data set; another instance stands for another copy (a mirror, a test)."""

    url: str = "https://zenodo.org/records/53169/files/Kather_texture_2016_image_tiles_5000.zip?download=1"
    md5: str = "0ddbebfc56344752028fda72602aaade"
    size_bytes: int = 258_000_000
    """Size of the zip, rounded."""
    max_bytes: int = 1_000_000_000
    """Limit for the unpacked bytes: 5000 tiles of about 70 kB are 350 MB."""
    max_files: int = 20_000
    """Limit for the entries of the zip: the tiles, their folders, and room for what packers add."""
    root: str = "Kather_texture_2016_image_tiles_5000"
    """Name of the folder, inside the zip, that holds the class folders."""
    classes: tuple[str, ...] = (
        "01_TUMOR",
        "02_STROMA",
        "03_COMPLEX",
        "04_LYMPHO",
        "05_DEBRIS",
        "06_MUCOSA",
        "07_ADIPOSE",
        "08_EMPTY",
    )
    per_class: int = 625
    suffix: str = ".tif"
    tile_px: int = 150
    mpp: float = 0.495
    """Micrometres per pixel."""
    licence: str = "CC BY 4.0"


KATHER2016 = Facts()

CREDIT = (
    "Kather JN, Zöllner FG, Bianconi F, Melchers SM, Schad LR, Gaiser T, Marx A, Weis CA: "
    "Collection of textures in colorectal cancer histology. Zenodo 2016, doi:10.5281/zenodo.53169, CC BY 4.0"
)
"""The line a report must carry when it shows tiles of this data set."""


def kather2016_folder(source: str | Path | None, *, cache: Path, facts: Facts = KATHER2016) -> Path:
    """Return the folder that holds the class folders, complete: each class with its number of tiles.

    The zip in `cache` is deleted once its tiles are unpacked and counted: its checksum has served, the
    tiles are the same bytes, and twice the disk space would bring nothing. A zip given as `source` stays.

    Args:
        source: None to download into `cache`; the published zip, to be unpacked into `cache`; or a folder,
            used where it is: the one with the class folders, or one above it by the name in `facts.root`.
        cache: folder of this data set, e.g. `data/kather2016`; a complete set in it is used again.
        facts: what to expect.

    Raises:
        BadInput: `source` does not exist or has another checksum, a class is missing or has another number
            of tiles, a folder stands among the classes that is none; or as `download` and `unpack_zip`.
        UsageError: the address in `facts` is not http or https.
        DiskFull: no space left.
        Locked: another process is filling `cache`.
    """
    given = None if source is None else Path(source).expanduser()
    try:
        if given is not None and not given.exists():
            raise BadInput(f"{given} does not exist; --source takes the zip of kather2016 or its unpacked folder")
        if given is not None and given.is_dir():
            return _checked(given, facts, hint="give a complete copy with --source")
        if given is not None:
            found = md5_of(given)
            if found != facts.md5:
                raise BadInput(
                    f"{given} has md5 {found} instead of {facts.md5}: not the published zip, or damaged; get it again"
                )
        return _from_cache(given, cache, facts)
    except OSError as error:
        raise disk_error(error, Path(error.filename) if error.filename else given or cache) from error


def _from_cache(archive: Path | None, cache: Path, facts: Facts) -> Path:
    """Return the unpacked set in `cache`, made from `archive` or from a download if it is not there yet."""
    tiles = cache / "tiles"
    hint = f"delete {tiles} and run again"
    if tiles.exists():  # it was renamed when complete: no lock is needed to read it
        return _checked(tiles, facts, hint=hint)
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache):
        if not tiles.exists():
            own = cache / f"{facts.root}.zip"
            if archive is None:
                download(facts.url, own, md5=facts.md5, size_hint=facts.size_bytes)
            unpack_zip(archive or own, tiles, max_bytes=facts.max_bytes, max_files=facts.max_files)
            folder = _checked(tiles, facts, hint=hint)
            if archive is None:
                own.unlink()
            return folder
        return _checked(tiles, facts, hint=hint)


def _checked(folder: Path, facts: Facts, *, hint: str) -> Path:
    """Return the folder with the class folders, at `folder` or below it, after counting every class."""
    # Two levels: the zip holds one folder, and copies unpacked into a folder of the same name are common.
    places = (folder, folder / facts.root, folder / facts.root / facts.root)
    found = [place for place in places if any((place / name).is_dir() for name in facts.classes)]
    if not found:
        raise BadInput(f"{folder} holds no class folder ({facts.classes[0]} to {facts.classes[-1]}); {hint}")
    place = found[0]
    for name in facts.classes:
        count = _tiles_in(place / name, facts.suffix)
        if count != facts.per_class:
            raise BadInput(
                f"{place}: class {name} has {count} {facts.suffix} tiles instead of {facts.per_class}; {hint}"
            )
    for entry in sorted(place.iterdir()):
        # Whoever reads the folder next would take it for a ninth class.
        if entry.name not in facts.classes and not entry.name.startswith((".", "__")) and entry.is_dir():
            raise BadInput(f"{entry} stands among the classes of kather2016 but is none; move it away")
    return place


def _tiles_in(folder: Path, suffix: str) -> int:
    """Count the tiles of a class; hidden files (`._name.tif` of macOS) are none."""
    if not folder.is_dir():
        return 0
    with os.scandir(folder) as entries:
        return sum(
            entry.name.lower().endswith(suffix) and not entry.name.startswith(".") and entry.is_file()
            for entry in entries
        )
