"""Join embeddings of another program with a table of labels, and write them as embeddings.h5.

The pixels were not seen: /sha256 is zero, and nothing shows that a label belongs to the tile of a row but its name.
"""

import collections
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.errors import BadInput
from pipeline.names import IMPORTED, SPLITS
from pipeline.storage import environment
from pipeline.storage.embeddings.foreign import Foreign
from pipeline.storage.embeddings.partial_rows import row_type
from pipeline.storage.embeddings.writer import check_classes, write_embeddings
from pipeline.storage.user_tables import UserTable, read_user_table

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "tile_id": ("tile", "id"),
    "slide": ("slide_id",),
    "x": (),
    "y": (),
    "label": ("class",),
    "group": ("patient", "patient_id", "case", "case_id", "subject", "subject_id", "source"),
    "split": ("set", "subset"),
    "row": (),
}
"""Columns of the table of labels -> other names that are taken for them."""

BLOCK_ROWS = 1024

LEAST_OF_CLASS = 3
"""With fewer rows of a class, one value in each class can be chance."""


@dataclasses.dataclass(frozen=True)
class Labelled:
    """Embeddings with what the labels' table holds for them."""

    foreign: Foreign
    table: pd.DataFrame
    """(N,) tile_id, path, group, label, split; a tile without a label has empty texts."""

    extra: list[str]
    """Names in the labels' table that no row has."""

    has_splits: bool
    notes: list[str]
    """What was read other than as it is written, and columns without a meaning."""

    @property
    def n_unlabelled(self) -> int:
        """Number of rows without a label."""
        return int((self.table["label"] == "").sum())


def join_labels(foreign: Foreign, source: Path, file: Path) -> Labelled:
    """Return the rows with labels, groups and splits.

    Args:
        foreign: the rows.
        source: where they are from, for messages.
        file: CSV with label, and tile_id or slide, x, y; group and split if known.

    Raises:
        BadInput: names are there twice, do not fit, or contradict; a row is not finite.
    """
    user = read_user_table(file, COLUMNS, needed=("label",))
    keys = _keys(user)
    _refuse_doubles(keys, file)
    ids = keys if foreign.tile_id is None else foreign.tile_id
    if foreign.tile_id is None:
        _check_order(user, len(foreign.features), source)
    _refuse_doubles(ids, source)
    if (bad := np.flatnonzero(~np.isfinite(foreign.features).all(axis=1))).size:
        raise BadInput(f"{source}: {bad.size} rows are not finite, first {ids[bad[0]]}: embed those tiles again")
    place = {name: row for row, name in enumerate(keys)}
    rows = [place.get(name, -1) for name in ids]
    if max(rows) < 0:
        raise BadInput(f"{file}: names none of the {len(ids)} tiles of {source} ({keys[0]} here, {ids[0]} there)")

    def column(name: str) -> list[str]:
        texts = [*user.table[name], ""] if name in user.table else [""] * (len(keys) + 1)
        return [texts[row] for row in rows]

    table = pd.DataFrame({"tile_id": ids, "path": foreign.slide or ids, "label": column("label")}, dtype=object)
    if unknown := sorted(set(column("split")) - {*SPLITS, ""}):
        raise BadInput(f"{file}: split '{unknown[0]}': {', '.join(SPLITS)} are known")
    slides = foreign.slide or column("slide")
    own = _groups(foreign.group or [""] * len(ids), column("group"), file, ids)
    known = _group_of_slide(slides, own, file)
    table["group"] = [group or known.get(slide, slide) for group, slide in zip(own, slides, strict=True)]
    table["split"] = [split if label else "" for split, label in zip(column("split"), table["label"], strict=True)]
    has_splits = bool((table["split"] != "").any())
    table.loc[(table["split"] == "") & has_splits, "label"] = ""
    named = set(ids)
    notes = user.notes + ([f"columns without a meaning: {', '.join(user.unknown)}"] if user.unknown else [])
    return Labelled(foreign, table, [key for key in keys if key not in named], has_splits, notes)


def _keys(user: UserTable) -> list[str]:
    """Return the name of the tile of each row of the labels' table."""
    if "tile_id" in user.table:
        return list(user.table["tile_id"])
    if not {"slide", "x", "y"} <= set(user.table):
        raise BadInput(f"{user.file}: no column tile_id, and not all of slide, x, y")
    keys = []
    for row, (slide, x, y) in enumerate(user.table[["slide", "x", "y"]].itertuples(index=False)):
        try:
            keys.append(f"{slide}_x{round(float(x))}_y{round(float(y))}")
        except (ValueError, OverflowError):
            raise BadInput(f"{user.where(row)}: '{x}', '{y}' is no place") from None
    return keys


def _refuse_doubles(names: Sequence[str], file: Path) -> None:
    if "" in names:
        raise BadInput(f"{file}: row {list(names).index('') + 1} has no tile_id: give each tile a name")
    doubled = [name for name, n in collections.Counter(names).items() if n > 1]
    if doubled:
        raise BadInput(f"{file}: {len(doubled)} tiles are there twice, first {doubled[0]}: leave one of each out")


def _check_order(user: UserTable, n_rows: int, source: Path) -> None:
    """Check what can be checked where rows have no names: their number, and a column `row` that counts from 0."""
    if len(user.table) != n_rows:
        raise BadInput(f"{source}: {n_rows} rows without names, but {user.file} has {len(user.table)}: give one each")
    if "row" in user.table and list(user.table["row"]) != [str(row) for row in range(n_rows)]:
        raise BadInput(f"{user.file}: another order than {source}: the column row must count from 0 without gaps")


def _groups(found: Sequence[str], given: Sequence[str], file: Path, ids: Sequence[str]) -> list[str]:
    """Return the groups of the labels' table, or where it has none those of the source.

    Raises:
        BadInput: a tile has another group in the source.
    """
    for name, own, other in zip(ids, given, found, strict=True):
        if own and other and own != other:
            raise BadInput(f"{file}: tile {name} has the group '{own}', but its embedding has '{other}'")
    return [own or other for own, other in zip(given, found, strict=True)]


def _group_of_slide(slides: Sequence[str], groups: Sequence[str], file: Path) -> dict[str, str]:
    """Return slide -> group, of the slides and groups that are known.

    Raises:
        BadInput: a slide has two groups.
    """
    known: dict[str, str] = {}
    for slide, group in zip(slides, groups, strict=True):
        if slide and group and known.setdefault(slide, group) != group:
            raise BadInput(f"{file}: slide {slide} has tiles of two groups, '{known[slide]}' and '{group}'")
    return known


def copies_across_splits(labelled: Labelled) -> list[tuple[str, str]]:
    """Return pairs of tiles with the same features in two splits: copies of one tile, which is a leak."""
    splits, ids = list(labelled.table["split"]), list(labelled.table["tile_id"])
    seen: dict[bytes, int] = {}
    found = []
    for row, features in enumerate(labelled.foreign.features):
        if splits[row]:
            first = seen.setdefault(features.tobytes(), row)
            if splits[first] != splits[row]:
                found.append((ids[first], ids[row]))
    return found


def label_features(labelled: Labelled) -> list[int]:
    """Return the numbers of features with one value in each class, and not the same in all: they hold the label."""
    features, labels = labelled.foreign.features, labelled.table["label"].to_numpy(object)
    values = []
    for name in sorted(set(labels) - {""}):
        own = features[labels == name]
        if len(own) < LEAST_OF_CLASS:
            return []
        low = own.min(axis=0)
        values.append(np.where(low == own.max(axis=0), low, np.nan))
    if not values:
        return []
    is_one_value = np.isfinite(values).all(axis=0)
    return [int(i) for i in np.flatnonzero(is_one_value & (np.ptp(values, axis=0) > 0))]


class MemoryRows:
    """Rows in memory, in the layout of `write_embeddings`; they have no logits and no hashes."""

    def __init__(self, features: np.ndarray, path: Path) -> None:
        self.features, self.path = features, path
        self.row = row_type(features.shape[1], 0)

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield all rows in order."""
        for start in range(0, len(self.features), BLOCK_ROWS):
            part = self.features[start : start + BLOCK_ROWS]
            rows = np.zeros(len(part), self.row)
            rows["features"] = part
            yield rows


def write_imported(path: Path, labelled: Labelled, *, labels_sha256: str) -> None:
    """Write embeddings.h5; the caller writes the record.

    Raises:
        BadInput: too many classes, or names that are too long.
        DiskFull: no room.
    """
    classes = sorted(set(labelled.table["label"]) - {""})
    check_classes(classes)
    attrs: dict[str, Any] = {
        "classes": classes,
        "preprocess": {},
        "encoder": IMPORTED,
        "layer": "unknown",
        "model_sha256": "",
        "manifest_sha256": labels_sha256,
        "versions": environment.versions(),
        "engine": IMPORTED,
        "precision": "unknown",
        "views": 1,
    }
    features = labelled.foreign.features
    write_embeddings(path, MemoryRows(features, path), labelled.table, attrs=attrs, dtype=features.dtype.name)
