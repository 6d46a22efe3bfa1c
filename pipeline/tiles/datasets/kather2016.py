"""Get the data set "Collection of textures in colorectal cancer histology" (Kather et al. 2016).

Downloads the published zip, or takes a copy; returns the folder with the eight class folders:

    kather2016_folder(None, cache=Path("data/kather2016"))
"""

from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import BadInput
from pipeline.tiles.datasets.download import download, md5_of
from pipeline.tiles.datasets.unzip import unpacked_folder

GROUP_REGEX = r"CRC-Prim-HE-(\d\d)"
"""The source of a tile, 01..10: the two digits after `HE-`. The rest of the names is irregular (`07_025`, `10c`,
`02_007b`, `_copy`, bare `07`). Tiles of one of the ten sources are not independent."""


@dataclass(frozen=True)
class Facts:
    """Published facts about the data set; a mirror or a test has another instance."""

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

    Args:
        source: None to download into `cache`; the published zip, to be unpacked into `cache`; or a folder, used where
            it is: the one with the class folders, or one above it by the name in `facts.root`.
        cache: folder of this data set, e.g. `data/kather2016`; a complete copy in it is used again.
        facts: what to expect.

    Raises:
        BadInput: `source` has another checksum, a class is missing or has another number of tiles, another folder is
            among the classes; or as `download` and `unpacked_folder`.
        UsageError: the address in `facts` is not http or https.
        DiskFull: no space left.
        Locked: another process is filling `cache`.
    """
    given = None if source is None else Path(source).expanduser()
    if given is not None and given.is_file() and (found := md5_of(given)) != facts.md5:
        raise BadInput(
            f"{given} has md5 {found} instead of {facts.md5}: not the published zip, or damaged; get it again"
        )

    def fetch(path: Path) -> None:
        download(facts.url, path, md5=facts.md5, size_hint=facts.size_bytes)

    place = cache / "tiles"
    folder = unpacked_folder(given, place, fetch, max_bytes=facts.max_bytes, max_files=facts.max_files)
    hint = f"delete {place} and run again" if folder == place else "give a complete copy with --source"
    return _checked(folder, facts, hint=hint)


def _checked(folder: Path, facts: Facts, *, hint: str) -> Path:
    """Return the folder with the class folders, at `folder` or below it, after counting every class."""
    # two levels: the zip holds one folder, and copies unpacked into a folder of the same name are common
    places = (folder, folder / facts.root, folder / facts.root / facts.root)
    found = [place for place in places if any((place / name).is_dir() for name in facts.classes)]
    if not found:
        raise BadInput(f"{folder} holds no class folder ({facts.classes[0]} to {facts.classes[-1]}); {hint}")
    place = found[0]
    for name in facts.classes:  # hidden files (`._name.tif` of macOS) are no tiles
        tiles = [path for path in (place / name).glob("*") if path.suffix.lower() == facts.suffix and path.is_file()]
        count = sum(not path.name.startswith(".") for path in tiles)
        if count != facts.per_class:
            raise BadInput(
                f"{place}: class {name} has {count} {facts.suffix} tiles instead of {facts.per_class}; {hint}"
            )
    for entry in sorted(place.iterdir()):
        if entry.name not in facts.classes and not entry.name.startswith((".", "__")) and entry.is_dir():
            raise BadInput(f"{entry} is among the classes of kather2016 but is none; move it away")
    return place
