"""Where tiles come from: the demo, Kather 2016, a folder of class folders, or a CSV file.

Every source ends as a `TileSet`: paths, labels, groups and, if the user gave them, splits, sorted by path.
"""

import csv
import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.errors import BadInput
from pipeline.runtime.console import visible
from pipeline.tiles.datasets import kather2016
from pipeline.tiles.datasets.files import files_below, refuse_unwritable
from pipeline.tiles.datasets.groups import parse_groups
from pipeline.tiles.decoding import SUFFIXES
from pipeline.tiles.synthetic import tiles as demo

KNOWN_COLUMNS = ("path", "label", "group", "split")
"""Columns of a CSV file that are read."""

SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "test", "testing"}
"""Folder names that say split, not class."""


@dataclasses.dataclass(frozen=True)
class TileSet:
    """Labelled tiles before any of them was opened."""

    name: str
    root: Path
    table: pd.DataFrame
    """Columns path (relative to root, POSIX), label, group ("" = unknown), split ("" = not given)."""

    ignored: list[str]
    """What was passed over: files that are no tiles by name or stand in no class folder, relative to root; class
    folders without tiles; columns of a CSV file that are not known."""

    facts: Mapping[str, Any]
    """What is known of the set: credit, licence, mpp."""


def folder_tiles(folder: Path, *, name: str, group_regex: str, facts: Mapping[str, Any]) -> TileSet:
    """Return the tiles of a folder of class folders; a class folder may hold folders of its own.

    Raises:
        BadInput: no class folders, no image in them, or a folder that cannot be read or is linked into itself.
    """
    files = files_below(folder)
    found = [path for path in files if Path(path).suffix.lower() in SUFFIXES and "/" in path]
    ignored = [path for path in files if Path(path).suffix.lower() not in SUFFIXES or "/" not in path]
    refuse_unwritable(found, where=str(folder))
    ignored = [visible(path) for path in ignored]
    if not found:
        raise BadInput(
            f"{folder}: no tiles found: one folder per class is expected, holding {', '.join(SUFFIXES)} files"
        )
    labels = {path.split("/", 1)[0] for path in found}
    if {label.casefold() for label in labels} <= SPLIT_NAMES:
        raise BadInput(
            f"{folder}: {', '.join(sorted(labels))} are splits, not classes: give one folder per class, or a CSV file "
            "with path,label,split"
        )
    hollow = {entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")} - labels
    ignored += [f"{visible(name)}/" for name in sorted(hollow)]
    found.sort()
    table = pd.DataFrame({"path": found, "label": [path.split("/", 1)[0] for path in found]})
    table["group"] = parse_groups(found, group_regex) if group_regex else ""
    table["split"] = ""
    return TileSet(name=name, root=folder, table=table, ignored=ignored, facts=facts)


def csv_rows(file: Path) -> tuple[list[int], pd.DataFrame]:
    """Return each row's line number and the cells; blanks around header, label, group and split do not count."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.reader(handle, strict=True)
            numbered = [(reader.line_num, cells) for cells in reader if cells]
    except (ValueError, OSError, csv.Error) as error:
        reason = " ".join(str(error).split())
        raise BadInput(f"{file}: not a readable CSV file in UTF-8: {reason}") from None
    if not numbered:
        raise BadInput(f"{file}: no rows")
    header = [name.strip().casefold() for name in numbered[0][1]]
    doubled = [name for name in header if header.count(name) > 1]
    if doubled:
        raise BadInput(f"{file}: two columns are called '{visible(doubled[0])}'")
    for line, cells in numbered[1:]:
        if len(cells) != len(header):
            raise BadInput(f"{file}, line {line}: {len(cells)} cells, but the header names {len(header)} columns")
        refuse_unwritable(cells, where=f"{file}, line {line}")
    table = pd.DataFrame([cells for _, cells in numbered[1:]], columns=header, dtype=object)
    for column in table.columns.intersection(["label", "group", "split"]):
        table[column] = table[column].str.strip()
    return [line for line, _ in numbered[1:]], table


def _plain(path: Path) -> Path:
    """Return a path without `.` and `..`, absolute, with one slash in front (POSIX lets two mean another place)."""
    return Path(re.sub("^//", "/", os.path.normpath(path.absolute())))


def csv_tiles(file: Path, *, group_regex: str) -> TileSet:
    """Return the tiles that a CSV file lists: columns path, label and, if given, group and split.

    Relative paths count from the CSV's folder. `group_regex` is searched in the paths as they are written there.

    Raises:
        BadInput: not a CSV, missing columns, rows of another length, empty or doubled cells, an unknown split, or
            groups by a column and by `group_regex` at once.
    """
    lines, table = csv_rows(file)
    missing = [column for column in ("path", "label") if column not in table.columns]
    if missing:
        raise BadInput(f"{file}: no column '{missing[0]}'; needed: path,label and, if known, group,split (with commas)")
    if table.empty:
        raise BadInput(f"{file}: no rows")
    for column in KNOWN_COLUMNS:
        empty = table[column] == "" if column in table else pd.Series(dtype=bool)
        if empty.any() and (column in ("path", "label") or not empty.all()):
            line = lines[int(empty.to_numpy().argmax())]
            rule = "every tile needs one" if column in ("path", "label") else "fill it in for every tile or for none"
            raise BadInput(f"{file}, line {line}: empty '{column}'; {rule}")
    full = [_plain(file.parent / path) for path in table["path"]]
    doubled = pd.Series(full).duplicated()
    if doubled.any():
        row = int(doubled.to_numpy().argmax())
        raise BadInput(f"{file}, line {lines[row]}: {table['path'].iloc[row]} stands in the table twice")
    unknown = ~table.get("split", pd.Series("", index=table.index)).isin(["", "train", "val", "test"])
    if unknown.any():
        row = int(unknown.to_numpy().argmax())
        found = table["split"].iloc[row]
        raise BadInput(f"{file}, line {lines[row]}: split '{found}'; use train, val, test, or leave the column out")
    if group_regex:
        if "group" in table and (table["group"] != "").any():
            raise BadInput(f"{file}: it has a column 'group': leave --group-regex out, or the column")
        table["group"] = parse_groups(list(table["path"]), group_regex)
    root = Path(os.path.commonpath([path.parent for path in full]))
    tiles = pd.DataFrame(
        {
            "path": [path.relative_to(root).as_posix() for path in full],
            "label": table["label"],
            "group": table.get("group", ""),
            "split": table.get("split", ""),
        }
    ).sort_values("path", ignore_index=True)
    passed_over = [f"column '{visible(name)}'" for name in table.columns if name not in KNOWN_COLUMNS]
    return TileSet(name=file.stem, root=root, table=tiles, ignored=passed_over, facts={})


def find_tiles(
    data: str,
    *,
    source: str | None,
    data_dir: Path,
    group_regex: str | None,
    url: str | None,
    demo_tiles: int,
    demo_px: int,
    seed: int,
) -> TileSet:
    """Return the tiles that `--data` names: demo, kather2016, a folder, or a CSV file.

    Args:
        data: the name or path.
        source: for kather2016: a local zip or folder instead of the download.
        data_dir: where the demo is made and Kather 2016 is unpacked.
        group_regex: how a tile's path names its group; None: the set's own; "": none.
        url: another address of the kather2016 zip.
        demo_tiles: number of demo tiles.
        demo_px: their side.
        seed: seed of the demo's pixels.

    Raises:
        BadInput: nothing usable there.
    """
    if data == "demo":
        folder = data_dir / "demo" / f"{demo_tiles}x{demo_px}px-seed{seed}"
        demo.make_demo(folder, n_tiles=demo_tiles, tile_px=demo_px, seed=seed)
        regex = kather2016.GROUP_REGEX if group_regex is None else group_regex
        facts = {"licence": "MIT (synthetic)", "mpp": kather2016.KATHER2016.mpp * 150 / demo_px}
        tiles = folder_tiles(folder, name="demo", group_regex=regex, facts=facts)
        return dataclasses.replace(tiles, ignored=[])
    if data == "kather2016":
        set_facts = kather2016.KATHER2016 if url is None else dataclasses.replace(kather2016.KATHER2016, url=url)
        folder = kather2016.kather2016_folder(source, cache=data_dir / "kather2016", facts=set_facts)
        regex = kather2016.GROUP_REGEX if group_regex is None else group_regex
        facts = {"credit": kather2016.CREDIT, "licence": set_facts.licence, "mpp": set_facts.mpp}
        return folder_tiles(folder, name="kather2016", group_regex=regex, facts=facts)
    path = Path(data)
    if path.is_dir():
        return folder_tiles(path, name=path.resolve().name, group_regex=group_regex or "", facts={})
    if path.suffix.lower() == ".csv" and path.is_file():
        return csv_tiles(path, group_regex=group_regex or "")
    if path.is_file():
        raise BadInput(f"{path}: a folder of class folders or a .csv file is needed (unpack archives first)")
    raise BadInput(f"--data {data}: no such folder or CSV file; known names: demo, kather2016")
