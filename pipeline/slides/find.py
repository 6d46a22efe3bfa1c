"""List the slides that a command line names: files, folders, tables of slides."""

import dataclasses
import math
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import BadInput
from pipeline.runtime.console import list_names, log
from pipeline.slides.scale import GivenMpp
from pipeline.storage.user_tables import SUFFIXES as TABLES
from pipeline.storage.user_tables import UserTable, decimal, read_user_table
from pipeline.tiles.datasets.files import refuse_unwritable, walk
from pipeline.tiles.datasets.groups import GROUP_NAMES
from pipeline.tiles.datasets.names import spellings

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
"""Suffixes that a folder is searched for."""

COMPANIONS = ("-truth.png", "-thumbnail.png", "-overlay.png")
"""Ends of the names of files that commands write next to slides."""

PARTS = {".vms": (".jpg", ".jpeg"), ".vmu": (".jpg", ".jpeg")}
"""Suffix of a slide in several files -> suffixes of its parts next to it."""

RESULTS = {f"{name}.csv.json" for name in ("manifest", "grid", "predictions", "slides")}
"""Records of our commands: folders below one of them hold figures and maps, no slides."""

COLUMNS = {
    "slide": ("path", "file", "filename", "file_name", "slide_path", "image", "wsi"),
    "mpp": ("um_per_px", "microns_per_pixel"),
    "group": tuple(name for name in GROUP_NAMES if name != "slide"),
}
"""Columns of a table of slides, with other names for each."""


@dataclasses.dataclass(frozen=True)
class SlideEntry:
    """One slide before it is opened."""

    path: Path
    name: str
    """Name of its folder in the run and of its rows' group; unique."""

    mpp: GivenMpp | None = None
    """Scale by the user."""

    group: str | None = None
    """Source or patient by the user."""

    problem: str = ""
    """Why there is no such slide, where that is known already, or ""."""


def find_slides(words: Sequence[str], *, mpp: GivenMpp | None, group: str | None) -> list[SlideEntry]:
    """Return the slides that words name, in order; a slide that is named twice is listed once.

    Args:
        words: files, folders (searched for slides, also below), or tables with the columns slide and, if wanted, mpp
            and group; their paths count from the table's folder. A folder without slides among several words is an
            entry with a problem.
        mpp: scale of the slides for which a table has none.
        group: source or patient of the slides for which a table has none.

    Raises:
        BadInput: nothing there, a table that cannot be used, or names that cannot be distinguished.
    """
    found: list[SlideEntry] = []
    for word in words:
        path = Path(word)
        if path.is_dir():
            inside = _in_folder(path)
            problem = "" if inside else f"{path}: no slides in this folder or below ({', '.join(SUFFIXES)})"
            if problem and len(words) == 1:
                raise BadInput(problem)
            found += [SlideEntry(file, "", mpp, group) for file in inside]
            found += [SlideEntry(path, str(path), problem=problem)] if problem else []
        elif path.suffix.lower() in TABLES:
            found += _in_table(path, mpp, group)
        else:
            found.append(SlideEntry(path, "", mpp, group))
    return with_names(found)


def _once(found: Sequence[SlideEntry]) -> list[SlideEntry]:
    """Return entries without repetitions.

    Raises:
        BadInput: a slide is named twice, with different facts.
    """
    by_path: dict[str, SlideEntry] = {}
    for entry in found:
        first = by_path.setdefault(os.path.normpath(Path.cwd() / entry.path), entry)
        scales = [one.mpp.mpp if one.mpp else None for one in (first, entry)]
        if scales[0] != scales[1] or first.group != entry.group:
            raise BadInput(f"{entry.path}: named twice with different mpp or group: name it once")
    return list(by_path.values())


def with_names(found: Sequence[SlideEntry]) -> list[SlideEntry]:
    """Return entries with unique names: the stem, or the whole file name where stems are equal.

    Raises:
        BadInput: names that are equal, also but for their spelling, or that no folder may have.
    """
    once = _once(found)
    refuse_unwritable([entry.path.name for entry in once], where="slides")
    stems = Counter(entry.path.stem for entry in once if not entry.problem)
    entries = [
        entry
        if entry.problem
        else dataclasses.replace(entry, name=entry.path.stem if stems[entry.path.stem] == 1 else entry.path.name)
        for entry in once
    ]
    places: dict[str, list[str]] = {}
    for entry in entries:
        places.setdefault(entry.name, []).append(str(entry.path))
    if doubled := [" and ".join(paths) for paths in places.values() if len(paths) > 1]:
        raise BadInput(
            f"{len(doubled)} name(s) of slides occur twice: {list_names(doubled)}: rename one of each, or give them to "
            "runs of their own"
        )
    if similar := [" and ".join(places[name][0] for name in names) for names in spellings(places)]:
        raise BadInput(
            f"names of slides differ only in case, blanks or the coding of accents: {list_names(similar)}: rename one "
            "of each"
        )
    if hidden := [entry.name for entry in entries if entry.name.startswith(".")]:
        raise BadInput(f"names of slides must not begin with a dot: {list_names(hidden)}: rename them")
    return entries


def _in_folder(folder: Path) -> list[Path]:
    """Return the slides in a folder and below it, sorted; log the number of other files.

    Hidden files, system folders and results of our commands are left out.

    Raises:
        BadInput: a folder cannot be read, or is linked into itself.
    """
    found: list[Path] = []
    others: Counter[str] = Counter()
    for here, folders, files, _ in walk(folder):
        is_mirax_data = Path(f"{here}.mrxs").is_file()
        if is_mirax_data or not RESULTS.isdisjoint(files):
            folders.clear()
            if here != folder:
                continue
        parts = {part for name in files for part in PARTS.get(Path(name).suffix.lower(), ())}
        for name in files:
            suffix = Path(name).suffix.lower()
            if name.endswith(COMPANIONS) or suffix in parts:
                continue
            if suffix in SUFFIXES:
                found.append(here / name)
            else:
                others[suffix or name] += 1
    if others:
        listed = list_names([f"{suffix} {n}" for suffix, n in sorted(others.items())])
        log.info(f"{folder}: {len(found)} slides; other files are passed over: {listed}")
    return sorted(found)


def mpp_in(listing: UserTable, row: int) -> GivenMpp | None:
    """Return the scale in a row of a table of slides, None without one.

    Raises:
        BadInput: not a scale.
    """
    text = str(listing.table["mpp"].iloc[row]) if "mpp" in listing.table else ""
    if not text:
        return None
    try:
        value = decimal(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise BadInput(f"{listing.where(row)}: mpp '{text}': micrometres per pixel are needed, or nothing")
    return GivenMpp(value, listing.where(row), overrules=True)


def _in_table(file: Path, mpp: GivenMpp | None, group: str | None) -> list[SlideEntry]:
    """Return an entry without a name for each row of a table of slides.

    Raises:
        BadInput: no column slide, an empty cell in it, or an mpp that is not a scale.
    """
    listing = read_user_table(file, COLUMNS, needed=("slide",))
    rows: list[SlideEntry] = []
    for i, (path, row) in enumerate(zip(listing.paths("slide"), listing.table.to_dict("records"), strict=True)):
        if not row["slide"]:
            raise BadInput(f"{listing.where(i)}: empty 'slide'")
        own = mpp_in(listing, i) or mpp
        rows.append(SlideEntry(path, "", own, str(row.get("group", "")) or group))
    if listing.notes:
        log.info(f"{file} is read with: {'; '.join(listing.notes)}")
    if listing.unknown:
        log.warning(
            f"{file}: unknown columns are passed over: {', '.join(listing.unknown)}; known: {', '.join(COLUMNS)}"
        )
    return rows
