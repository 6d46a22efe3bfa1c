"""Find the tiles of a data set: the demo, Kather 2016, a folder of class folders, or a CSV file.

Every source ends as a `TileSet`: paths, labels, groups and, if the user gave them, splits, sorted by path.
"""

import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.errors import BadInput
from pipeline.runtime.console import visible
from pipeline.storage.user_tables import SPREADSHEETS, SUFFIXES, UserTable, read_user_table
from pipeline.tiles.audit.finding import Finding
from pipeline.tiles.datasets import kather2016
from pipeline.tiles.datasets.files import list_images
from pipeline.tiles.datasets.groups import GROUP_NAMES, parse_groups
from pipeline.tiles.datasets.layout import check_layout, labels_at
from pipeline.tiles.datasets.names import check_spellings, name_key
from pipeline.tiles.decoding import READABLE
from pipeline.tiles.synthetic import tiles as demo

SPLIT_NAMES = ("subset", "partition")
"""Other names of a table's column `split`."""

COLUMNS = {
    "path": ("file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "tile", "tile_path"),
    "label": ("class", "class_name", "category", "diagnosis", "target"),
    "group": GROUP_NAMES,
    "split": SPLIT_NAMES,
}
"""Columns of a CSV file that are read, with other names for each."""

SPLITS = {
    name: split
    for split, names in {
        "train": ("train", "training"),
        "val": ("val", "valid", "validation", "dev"),
        "test": ("test", "testing"),
    }.items()
    for name in names
}
"""Cells of the column `split`, as `name_key` writes them, and the splits they name."""

SAME_NAMES = "--allow-similar-names"
"""The option of `prepare` that takes two spellings of a name for two names."""


@dataclasses.dataclass(frozen=True)
class DataSource:
    """Which tiles to find."""

    data: str
    """demo, kather2016, a folder, or a CSV file."""

    data_dir: Path = Path("data")
    """Folder where the demo is made and Kather 2016 is unpacked."""

    source: str | None = None
    """For kather2016: a local zip or folder instead of the download."""

    url: str | None = None
    """For kather2016: another address of the zip."""

    group_regex: str | None = None
    """How a tile's path names its group; None: the data set's own; "": none."""

    class_level: int | None = None
    """Level of the folders that are the classes, 1 for the first; None: the first, if it looks like it."""

    allow_similar_names: bool = False
    """Take two spellings of a class or group for two."""

    demo_tiles: int = 1000
    demo_px: int = 150


@dataclasses.dataclass(frozen=True)
class TileSet:
    """Labelled tiles before any of them was opened."""

    name: str
    root: Path
    table: pd.DataFrame
    """Columns path (relative to root, POSIX), label, group ("" = unknown), split ("" = not given)."""

    ignored: list[str] = dataclasses.field(default_factory=list)
    """What was passed over, relative to root: files that are no images or are in no class folder, system folders, class
    folders without images; columns of a CSV file that are not known."""

    notes: list[str] = dataclasses.field(default_factory=list)
    """What was read other than as it is written, in a CSV file."""

    copies: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    """(copy, original) of files and folders with names of copies."""

    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What is known of the data set: credit, licence, mpp."""

    findings: list[Finding] = dataclasses.field(default_factory=list)
    """What the audit reports about the annotations that the tiles were cut from."""


def folder_tiles(
    folder: Path, *, name: str, group_regex: str, class_level: int | None = None, allow_similar_names: bool = False
) -> TileSet:
    """Return the tiles of a folder of class folders; a class folder may hold folders of its own.

    Raises:
        BadInput: no class folders, folders that are probably no classes (`check_layout`), no image in them, two
            spellings of a class or group, or a folder that cannot be read or is linked into itself.
    """
    files = list_images(folder)
    found = [path for path in files.images if "/" in path]
    if not found:
        raise BadInput(f"{folder}: no tiles found: one folder per class is expected, holding {READABLE} files")
    labels = labels_at(found, class_level or 1, where=folder)
    groups = parse_groups(found, group_regex) if group_regex else [""] * len(found)
    if not allow_similar_names:
        check_spellings(labels, what="classes", where=str(folder), option=SAME_NAMES)
        check_spellings(groups, what="groups", where=str(folder), option=SAME_NAMES)
    if class_level is None:
        check_layout(found, groups, where=folder)
    first_level = {path.split("/", 1)[0] for path in found}
    hollow = {f"{entry.name}/" for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")}
    hollow -= {f"{name}/" for name in first_level} | set(files.system)
    ignored = [*sorted(hollow), *files.system, *(path for path in files.images if "/" not in path), *files.others]
    table = pd.DataFrame({"path": found, "label": labels, "group": groups, "split": ""})
    return TileSet(name, folder, table, ignored=[visible(path) for path in ignored], copies=files.copies)


def plain_path(path: Path) -> Path:
    """Return a path without `.` and `..`, absolute, with one slash in front (POSIX lets two mean another place)."""
    return Path(re.sub("^//", "/", os.path.normpath(path.absolute())))


def csv_tiles(file: Path, *, group_regex: str, allow_similar_names: bool = False) -> TileSet:
    """Return the tiles that a CSV file lists: columns path, label and, if given, group and split.

    Relative paths count from the CSV's folder. `group_regex` is searched in the paths as they are written there.

    Raises:
        BadInput: as `read_user_table`; empty or repeated cells, an unknown split, two spellings of a class or group, or
            groups by a column and by `group_regex` at once.
    """
    listing = read_user_table(file, COLUMNS, needed=("path", "label"))
    table = listing.table
    for column in COLUMNS:
        empty = table[column] == "" if column in table else pd.Series(dtype=bool)
        if empty.any() and (column in ("path", "label") or not empty.all()):
            rule = "every tile needs one" if column in ("path", "label") else "fill it in for every tile or for none"
            raise BadInput(f"{listing.where(int(empty.to_numpy().argmax()))}: empty '{column}'; {rule}")
    full = [plain_path(path) for path in listing.paths("path")]
    repeated = pd.Series(full).duplicated().to_numpy()
    if repeated.any():
        row = int(repeated.argmax())
        raise BadInput(f"{listing.where(row)}: {table['path'].iloc[row]} is in the table twice")
    splits = read_splits(listing)
    if group_regex:
        if "group" in table and (table["group"] != "").any():
            raise BadInput(f"{file}: it has a column 'group': leave --group-regex out, or the column")
        table["group"] = parse_groups(list(table["path"]), group_regex)
    for column, what in (("label", "classes"), ("group", "groups")):
        if column in table and not allow_similar_names:
            check_spellings(table[column], what=what, where=str(file), option=SAME_NAMES)
    root = Path(os.path.commonpath([path.parent for path in full]))
    tiles = pd.DataFrame(
        {
            "path": [path.relative_to(root).as_posix() for path in full],
            "label": table["label"],
            "group": table.get("group", ""),
            "split": splits,
        }
    ).sort_values("path", ignore_index=True)
    ignored = [f"column '{name}'" for name in listing.unknown]
    return TileSet(file.stem, root, tiles, ignored=ignored, notes=listing.notes)


def read_splits(listing: UserTable) -> list[str]:
    """Return train, val or test of each row, "" where the table has no such column; other spellings are noted.

    Raises:
        BadInput: a cell that names no split.
    """
    if "split" not in listing.table:
        return [""] * len(listing.table)
    splits, read = [], set()
    for row, text in enumerate(listing.table["split"]):
        split = SPLITS.get(name_key(text)) if text else ""
        if split is None:
            raise BadInput(f"{listing.where(row)}: split '{text}'; use train, val, test, or leave the column out")
        if split != text:
            read.add(f"split '{text}' is read as {split}")
        splits.append(split)
    listing.notes.extend(sorted(read))
    return splits


def find_tiles(source: DataSource, *, seed: int) -> TileSet:
    """Return the tiles of a data set.

    Args:
        source: which.
        seed: seed of the demo's pixels.

    Raises:
        BadInput: nothing usable there.
    """
    regex = source.group_regex
    if source.data in ("demo", "kather2016"):
        regex = kather2016.GROUP_REGEX if regex is None else regex
        if source.data == "demo":
            folder = source.data_dir / "demo" / f"{source.demo_tiles}x{source.demo_px}px-seed{seed}"
            demo.make_demo(folder, n_tiles=source.demo_tiles, tile_px=source.demo_px, seed=seed)
            facts = {"licence": "MIT (synthetic)", "mpp": kather2016.KATHER2016.mpp * 150 / source.demo_px}
        else:
            found = kather2016.KATHER2016
            found = found if source.url is None else dataclasses.replace(found, url=source.url)
            folder = kather2016.kather2016_folder(source.source, cache=source.data_dir / "kather2016", facts=found)
            facts = {"credit": kather2016.CREDIT, "licence": found.licence, "mpp": found.mpp}
        tiles = folder_tiles(folder, name=source.data, group_regex=regex, class_level=1)
        return dataclasses.replace(tiles, facts=facts, ignored=[] if source.data == "demo" else tiles.ignored)
    path = Path(source.data)
    if path.is_dir():
        return folder_tiles(
            path,
            name=path.resolve().name,
            group_regex=regex or "",
            class_level=source.class_level,
            allow_similar_names=source.allow_similar_names,
        )
    if path.suffix.lower() in (*SUFFIXES, *SPREADSHEETS) and path.is_file():
        return csv_tiles(path, group_regex=regex or "", allow_similar_names=source.allow_similar_names)
    if path.is_file():
        raise BadInput(f"{path}: a folder of class folders or a .csv file is needed (unpack archives first)")
    raise BadInput(f"--data {source.data}: no such folder or CSV file; known names: demo, kather2016")
