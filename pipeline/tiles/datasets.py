"""Where tiles come from: the demo, Kather 2016, a folder of class folders, or a CSV file.

Every source ends as a `TileSet`: paths, labels, groups and, if the user gave them, splits, sorted by path.
"""

import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.errors import BadInput, UsageError
from pipeline.tiles import demo, kather2016
from pipeline.tiles.decoding import SUFFIXES

NAMED = 12
"""How many file names one message lists before it counts the rest."""


@dataclasses.dataclass(frozen=True)
class TileSet:
    """Labelled tiles before any of them was opened."""

    name: str
    root: Path
    table: pd.DataFrame
    """Columns path (relative to root, POSIX), label, group ("" = unknown), split ("" = not given)."""

    ignored: list[str]
    """Files that are no tiles by their name, relative to root."""

    facts: Mapping[str, Any]
    """What is known of the set: credit, licence, mpp."""


def list_names(names: list[str]) -> str:
    """Return names for a one-line message: the first dozen, then a count."""
    rest = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {rest} more" if rest > 0 else "")


def parse_groups(paths: list[str], regex: str) -> list[str]:
    """Return the group of each tile: the first parenthesis of `regex`, searched in the tile's relative path.

    Raises:
        UsageError: not a regular expression, or it has no parenthesis.
        BadInput: some paths do not match; they are named and counted, never dropped.
    """
    try:
        pattern = re.compile(regex)
    except re.error as error:
        raise UsageError(f"--group-regex '{regex}': not a regular expression: {error}") from None
    if pattern.groups < 1:
        raise UsageError(f"--group-regex '{regex}': put the part that names the group into parentheses")
    matches = [pattern.search(path) for path in paths]
    lost = [path for path, match in zip(paths, matches, strict=True) if match is None or not match[1]]
    if lost:
        raise BadInput(
            f"{len(lost)} of {len(paths)} tile names do not tell their group by '{regex}': {list_names(lost)}: "
            "rename or remove them, or give another --group-regex ('' for none)"
        )
    return [match[1] for match in matches if match is not None]


def folder_tiles(folder: Path, *, name: str, group_regex: str, facts: Mapping[str, Any]) -> TileSet:
    """Return the tiles of a folder of class folders; a class folder may hold folders of its own.

    Raises:
        BadInput: no class folders, or no image in them.
    """
    found: list[str] = []
    ignored: list[str] = []
    for top, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        here = Path(top).relative_to(folder)
        for file in sorted(files):
            relative = (here / file).as_posix()
            is_tile = Path(file).suffix.lower() in SUFFIXES and here != Path()
            if not file.startswith("."):
                (found if is_tile else ignored).append(relative)
    if not found:
        raise BadInput(
            f"{folder}: no tiles found: one folder per class is expected, holding {', '.join(SUFFIXES)} files"
        )
    found.sort()
    table = pd.DataFrame({"path": found, "label": [path.split("/", 1)[0] for path in found]})
    table["group"] = parse_groups(found, group_regex) if group_regex else ""
    table["split"] = ""
    return TileSet(name=name, root=folder, table=table, ignored=ignored, facts=facts)


def csv_tiles(file: Path, *, group_regex: str) -> TileSet:
    """Return the tiles that a CSV file lists: columns path, label and, if given, group and split.

    Relative paths count from the CSV's folder.

    Raises:
        BadInput: not a CSV, missing columns, empty or doubled cells, an unknown split.
    """
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, OSError) as error:
        raise BadInput(f"{file}: not a readable CSV file: {' '.join(str(error).split())}") from None
    missing = [column for column in ("path", "label") if column not in table.columns]
    if missing:
        raise BadInput(f"{file}: no column '{missing[0]}'; needed: path,label and, if known, group,split")
    if table.empty:
        raise BadInput(f"{file}: no rows")
    for column in ("path", "label", "group", "split"):
        given = table.get(column)
        if given is not None and (given == "").any() and not (given == "").all():
            line = int((given == "").to_numpy().argmax()) + 2
            raise BadInput(f"{file}, line {line}: empty '{column}'; fill it in for every tile or for none")
    if (table["path"] == "").any() or (table["label"] == "").any():
        raise BadInput(f"{file}: the columns path and label are empty")
    full = [Path(os.path.normpath(file.parent / path)).absolute() for path in table["path"]]
    doubled = pd.Series(full).duplicated()
    if doubled.any():
        line = int(doubled.to_numpy().argmax()) + 2
        raise BadInput(f"{file}, line {line}: {table['path'].iloc[line - 2]} stands in the table twice")
    root = Path(os.path.commonpath([path.parent for path in full]))
    tiles = pd.DataFrame(
        {
            "path": [path.relative_to(root).as_posix() for path in full],
            "label": table["label"],
            "group": table.get("group", ""),
            "split": table.get("split", ""),
        }
    ).sort_values("path", ignore_index=True)
    if group_regex and (tiles["group"] == "").all():
        tiles["group"] = parse_groups(list(tiles["path"]), group_regex)
    unknown = sorted(set(tiles["split"]) - {"", "train", "val", "test"})
    if unknown:
        raise BadInput(f"{file}: split '{unknown[0]}'; use train, val, test, or leave the column out")
    return TileSet(name=file.stem, root=root, table=tiles, ignored=[], facts={})


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
    if source is not None and data != "kather2016":
        raise UsageError("--source goes with --data kather2016; for tiles of your own give the folder as --data")
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
