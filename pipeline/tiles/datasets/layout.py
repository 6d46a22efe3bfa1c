"""Check that the folders of a data set are its classes: not splits, patients, organs or parts of another data set."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pipeline.errors import BadInput
from pipeline.runtime.console import list_names
from pipeline.tiles.datasets.names import name_key

SPLIT_FOLDER = re.compile(
    r"(?:[\d_. -]*)(?:train|training|val|valid|validation|dev|test|testing|holdout|hold[ _-]?out|fold|split|cv)"
    r"(?:[ _.-]*(?:set|data|dataset|images?|imgs?|tiles?|patches|split|fold|cv|[a-d]|\d+))*",
)
"""Folder names, as `name_key` writes them, that mean a split and no class."""

NESTED = 0.9
"""Share of tiles in folders below the class folders, from which the layout is checked."""

MANY_CLASSES, FEW_TILES = 50, 20
"""More classes than the one, with fewer tiles than the other in the median class, may be patients."""


def labels_at(paths: Sequence[str], level: int, *, where: Path) -> list[str]:
    """Return the folder of each path at a level, 1 for the first.

    Raises:
        BadInput: some tiles are above that level; names the first dozen.
    """
    shallow = [path for path in paths if path.count("/") < level]
    if shallow:
        raise BadInput(
            f"{where}: {len(shallow)} tile(s) are in fewer than {level} folders, so that --class-level {level} gives "
            f"them no class: {list_names(shallow)}"
        )
    return [path.split("/")[level - 1] for path in paths]


def check_layout(paths: Sequence[str], groups: Sequence[str], *, where: Path) -> None:
    """Refuse a folder whose first level is probably not the class.

    Args:
        paths: paths of the tiles, relative to the folder, each in at least one folder; (N,).
        groups: group of each tile, "" where none is known; (N,). Folders that are the groups cannot be the classes.
        where: the folder, for messages.

    Raises:
        BadInput: the first level holds splits, one folder only, or folders with folders that look like classes.
    """
    parts = [path.split("/")[:-1] for path in paths]
    first = sorted({folders[0] for folders in parts})
    if len(first) == 1:
        raise BadInput(f"{where}: holds one folder of tiles, '{first[0]}': {_below(parts, where)}")
    splits = [name for name in first if SPLIT_FOLDER.fullmatch(name_key(name))]
    inside_splits = {_second(folders) for folders in parts if folders[0] in splits} - {""}
    if len(splits) > 1 or len(inside_splits) > 1:
        raise BadInput(
            f"{where}: {list_names(splits)} are splits, not classes: give one folder per class, or a CSV file with the "
            "columns path,label,split; --class-level 1 takes them as classes"
        )
    if sum(len(folders) > 1 for folders in parts) < NESTED * len(parts):
        return
    table = pd.DataFrame({"first": [f[0] for f in parts], "second": [_second(f) for f in parts], "group": groups})
    second = sorted(set(table["second"]) - {""})
    if len(second) < 2 or _are_groups(table):
        return
    shared = table[table["second"] != ""].groupby("second")["first"].nunique()
    recurring = list(shared.index[shared > 1])
    inner_splits = [name for name in recurring if SPLIT_FOLDER.fullmatch(name_key(name))]
    if len(inner_splits) > 1:
        raise BadInput(
            f"{where}: the class folders hold splits ({list_names(inner_splits)}), which would be mixed: give a CSV "
            "file with the columns path,label,split, or mix them by --class-level 1"
        )
    if recurring:
        raise BadInput(
            f"{where}: are its folders ({list_names(first)}) classes? Each holds no tiles, but folders of the same "
            f"names: {list_names(recurring)}. {_advice(first, second)}"
        )
    if not any(re.search(r"\d", name) for name in second):
        raise BadInput(
            f"{where}: are its folders ({list_names(first)}) classes, or the folders in them ({list_names(second)})? "
            f"{_advice(first, second)}"
        )


def _advice(first: list[str], second: list[str]) -> str:
    """Return what to do where either of two levels could be the class."""
    return (
        f"Pass --class-level 1 if {first[0]} is a class, --class-level 2 if {second[0]} is one; or give a CSV file "
        "with the columns path,label,group"
    )


def _second(folders: list[str]) -> str:
    """Return the folder of a tile below the class folder, "" if it is in the class folder itself."""
    return folders[1] if len(folders) > 1 else ""


def _are_groups(table: pd.DataFrame) -> bool:
    """Return whether the folders of the second level are the groups: one group each, at least two in all."""
    nested = table[table["second"] != ""]
    if (nested["group"] == "").any() or nested["group"].nunique() < 2:
        return False
    is_first = nested.groupby("first")["group"].nunique().eq(1).all()
    return bool(nested.groupby("second")["group"].nunique().eq(1).all() and not is_first)


def _below(parts: list[list[str]], where: Path) -> str:
    """Return what to do with a folder that holds one folder of tiles."""
    depth = 0
    while len({tuple(folders[: depth + 1]) for folders in parts}) == 1 and all(len(f) > depth for f in parts):
        depth += 1
    inside = sorted({folders[depth] for folders in parts if len(folders) > depth})
    if len(inside) < 2:
        return "a comparison needs at least two classes, one folder each"
    place = where.joinpath(*parts[0][:depth])
    return f"give --data '{place}', whose folders are {list_names(inside)}"


def class_note(labels: Sequence[str]) -> str:
    """Return a warning where classes are so many and so small that they may be patients or slides; else ""."""
    counts = Counter(labels)
    median = sorted(counts.values())[len(counts) // 2]
    if len(counts) <= MANY_CLASSES or median >= FEW_TILES:
        return ""
    return (
        f"{len(counts)} classes, half of them with {median} tiles or fewer: are these classes, or patients or slides? "
        "--class-level 2 takes the folders in them as classes"
    )
