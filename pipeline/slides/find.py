"""Which slides a command is to work on: files, folders, a CSV file, or the large images of Kather 2016."""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import BadInput
from pipeline.runtime.console import list_names, log
from pipeline.storage.user_tables import GROUP_NAMES, decimal, read_user_table
from pipeline.storage.user_tables import SUFFIXES as TABLES
from pipeline.tiles.datasets.files import refuse_unwritable

SUFFIXES = (
    ".bif",
    ".jpeg",
    ".jpg",
    ".mrxs",
    ".ndpi",
    ".png",
    ".scn",
    ".svs",
    ".svslide",
    ".tif",
    ".tiff",
    ".vms",
    ".vmu",
    ".webp",
)
"""File names that a folder is searched for."""

COMPANIONS = ("-truth.png", "-thumbnail.png", "-overlay.png")
"""How files end that commands write beside slides and that are none."""

COLUMNS = {
    "slide": ("path", "file", "filename", "file_name", "slide_path", "image", "wsi"),
    "mpp": ("um_per_px", "microns_per_pixel"),
    "group": tuple(name for name in GROUP_NAMES if name != "slide"),
}
"""Columns of a CSV file of slides, with other names for each."""


@dataclasses.dataclass(frozen=True)
class SlideEntry:
    """One slide before it is opened."""

    path: Path
    name: str
    """Of its folder in the run and of its rows' group; different for each."""

    mpp: float | None = None
    """As the user gives it, um/px."""

    group: str | None = None
    """Its source or patient, as the user gives it."""


def find_slides(words: Sequence[str], *, mpp: float | None, group: str | None) -> list[SlideEntry]:
    """Return the slides that words name, in order.

    Args:
        words: files, folders (searched for slides, not below), or .csv files with the columns slide and, if wanted, mpp
            and group, paths counting from the CSV's folder.
        mpp: for those for which a CSV says none.
        group: likewise.

    Raises:
        BadInput: nothing there, a CSV that cannot be used, or names that cannot be told apart.
    """
    found: list[tuple[Path, float | None, str | None]] = []
    for word in words:
        path = Path(word)
        if path.is_dir():
            inside = [
                file
                for file in sorted(path.iterdir())
                if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
            ]
            inside = [file for file in inside if not file.name.endswith(COMPANIONS)]
            if not inside:
                raise BadInput(f"{path}: no slides in this folder ({', '.join(SUFFIXES)})")
            found += [(file, mpp, group) for file in inside]
        elif path.suffix.lower() in TABLES:
            found += [(file, own or mpp, name or group) for file, own, name in _listed(path)]
        else:
            found.append((path, mpp, group))
    refuse_unwritable([path.name for path, _, _ in found], where="slides")
    stems = Counter(path.stem for path, _, _ in found)
    entries = [
        SlideEntry(path, path.stem if stems[path.stem] == 1 else path.name, own, name) for path, own, name in found
    ]
    doubled = [name for name, n in Counter(entry.name for entry in entries).items() if n > 1]
    if doubled:
        raise BadInput(f"{len(doubled)} name(s) of slides stand twice: {list_names(doubled)}: rename one of each")
    if hidden := [entry.name for entry in entries if entry.name.startswith(".")]:
        raise BadInput(f"slides must not begin with a dot: {list_names(hidden)}: rename them")
    return entries


def _listed(file: Path) -> list[tuple[Path, float | None, str | None]]:
    """Return path, mpp and group of each row of a CSV file.

    Raises:
        BadInput: no column slide, an empty cell in it, or an mpp that is no scale.
    """
    listing = read_user_table(file, COLUMNS, needed=("slide",))
    table = listing.table
    paths = listing.paths("slide")
    rows: list[tuple[Path, float | None, str | None]] = []
    for i, (path, row) in enumerate(zip(paths, table.to_dict("records"), strict=True)):
        if not row["slide"]:
            raise BadInput(f"{listing.where(i)}: empty 'slide'")
        text = str(row.get("mpp", ""))
        try:
            mpp = decimal(text) if text else None
        except ValueError:
            mpp = math.nan
        if mpp is not None and not 0 < mpp < math.inf:
            raise BadInput(f"{listing.where(i)}: mpp '{text}': micrometres per pixel are needed, or nothing")
        rows.append((path, mpp, str(row.get("group", "")) or None))
    if listing.notes:
        log.info(f"{file} is read with: {'; '.join(listing.notes)}")
    if listing.unknown:
        log.warning(
            f"{file}: unknown columns are passed over: {', '.join(listing.unknown)}; known: {', '.join(COLUMNS)}"
        )
    return rows
