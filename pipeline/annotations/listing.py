"""List annotated slides: a table with columns slide and annotations, or a folder with `x.svs` next to `x.geojson`."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import BadInput
from pipeline.runtime.console import list_names
from pipeline.slides import find
from pipeline.slides.find import SlideEntry
from pipeline.storage.user_tables import SUFFIXES, read_user_table
from pipeline.tiles.datasets.groups import parse_groups
from pipeline.tiles.datasets.sources import SPLIT_NAMES, read_splits

COLUMNS = {
    **find.COLUMNS,
    "annotations": ("annotation", "annotation_file", "annotation_files", "geojson"),
    "split": SPLIT_NAMES,
}
"""Columns of a table of annotated slides, with other names for each."""

BETWEEN_FILES = ";"
"""Separator of several annotation files in a cell; later ones win where they overlap."""

GEOJSON = ".geojson"

PICTURES = (".png", ".jpg", ".jpeg")
"""Tiles, and the maps of `predict`, in a folder; a table can name such a slide."""


@dataclasses.dataclass(frozen=True)
class AnnotatedSlide:
    """A slide with its annotation files."""

    entry: SlideEntry
    files: Sequence[Path]
    """At least one; later ones win where they overlap."""

    group: str
    """Patient or other group by the user, else the slide's name."""

    split: str = ""
    """train, val or test by the user; "": `prepare` decides."""


@dataclasses.dataclass(frozen=True)
class Listing:
    """Annotated slides before any of them was opened."""

    name: str
    slides: list[AnnotatedSlide]
    inputs: list[Path]
    """The table and all annotation files."""

    notes: list[str]
    """What was read other than as it is written."""

    ignored: list[str]
    """Columns without a meaning, and slides without annotations."""


def is_annotated(data: Path) -> bool:
    """Return whether `--data` is a table with a column annotations, or a folder with a slide next to its GeoJSON."""
    if data.is_dir():
        return any(_slides_of(file) for file in data.rglob(f"*{GEOJSON}"))
    if not (data.is_file() and data.suffix.lower() in SUFFIXES):
        return False
    try:
        table = read_user_table(data, {**COLUMNS, "label": ("class",)}, needed=()).table
        return "annotations" in table and "label" not in table  # a list of tiles can have a column of that name
    except BadInput:  # the reader of tiles reports it
        return False


def list_annotated(data: Path, *, group_regex: str) -> Listing:
    """Return the annotated slides of a table or folder.

    Args:
        data: as for `is_annotated`.
        group_regex: finds the group in the path of the slide below the folder or as the table writes it; "": none.

    Raises:
        BadInput: a slide or an annotation file is missing or named twice, or a group is missing.
    """
    found = _in_folder(data) if data.is_dir() else _in_table(data)
    if group_regex:
        if any(slide.group for slide in found.slides):
            raise BadInput(f"{data}: it has a column 'group': leave --group-regex out, or the column")
        base = data if data.is_dir() else data.parent
        names = [_below(slide.entry.path, base) for slide in found.slides]
        groups = parse_groups(names, group_regex)
        found = dataclasses.replace(
            found,
            slides=[dataclasses.replace(slide, group=group) for slide, group in zip(found.slides, groups, strict=True)],
        )
    entries = find.with_names([slide.entry for slide in found.slides])
    if len(entries) < len(found.slides):
        raise BadInput(
            f"{data}: a slide is named twice: name it once, with its annotation files between '{BETWEEN_FILES}'"
        )
    paths = [path for slide in found.slides for path in (slide.entry.path, *slide.files)]
    if missing := [str(path) for path in paths if not path.is_file()]:
        raise BadInput(f"{data}: {len(missing)} file(s) are not there: {list_names(missing)}")
    slides = [
        dataclasses.replace(slide, entry=entry, group=slide.group or entry.name)
        for entry, slide in zip(entries, found.slides, strict=True)
    ]
    return dataclasses.replace(found, slides=slides)


def _below(path: Path, base: Path) -> str:
    """Return the path relative to a folder, or as it is if it is elsewhere."""
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else path.as_posix()


def _slides_of(file: Path) -> list[Path]:
    """Return the slides with the name of an annotation file, next to it."""
    return sorted(
        path
        for path in file.parent.glob("*")
        if path.stem == file.stem and path.suffix.lower() in find.SUFFIXES and path.suffix.lower() not in PICTURES
    )


def _in_folder(folder: Path) -> Listing:
    """Return the slides of a folder, also below it, that have a GeoJSON file of their name.

    Raises:
        BadInput: two slides for one file.
    """
    slides, inputs = [], []
    for file in sorted(folder.rglob(f"*{GEOJSON}")):
        found = _slides_of(file)
        if len(found) > 1:
            raise BadInput(f"{file}: {len(found)} slides have its name: rename all but one, or list them in a table")
        if found:
            slides.append(AnnotatedSlide(SlideEntry(found[0], ""), [file], ""))
            inputs.append(file)
    ignored = [
        file.relative_to(folder).as_posix() for file in sorted(folder.rglob(f"*{GEOJSON}")) if file not in inputs
    ]
    return Listing(folder.resolve().name, slides, inputs, [], ignored)


def _in_table(file: Path) -> Listing:
    """Return the slides of a table.

    Raises:
        BadInput: an empty cell where one is needed, or an mpp that is not a scale.
    """
    listing = read_user_table(file, COLUMNS, needed=("slide", "annotations"))
    table = listing.table
    for column in ("slide", "annotations", "group", "split"):
        empty = (table[column] == "").to_numpy() if column in table else None
        if empty is not None and empty.any() and not (column in ("group", "split") and empty.all()):
            raise BadInput(f"{listing.where(int(empty.argmax()))}: empty '{column}'; every slide needs one")
    groups = table["group"] if "group" in table else [""] * len(table)
    files = listing.path_lists("annotations", separator=BETWEEN_FILES)
    rows = zip(listing.paths("slide"), files, groups, read_splits(listing), strict=True)
    slides = [
        AnnotatedSlide(SlideEntry(path, "", find.mpp_in(listing, row)), own, str(group), split)
        for row, (path, own, group, split) in enumerate(rows)
    ]
    inputs = list(dict.fromkeys([file, *(path for slide in slides for path in slide.files)]))
    ignored = [f"column '{name}'" for name in listing.unknown]
    return Listing(file.stem, slides, inputs, listing.notes, ignored)
