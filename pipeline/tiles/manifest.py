"""Read and write manifest.csv: one row per tile, in a fixed order; every later stage starts from it.

Columns: tile_id, path (relative to the image root, which is in the record as `details.root` relative to the
manifest's folder), label, group, split, sha256 (of the RGB pixels), width, height, problem (empty, or why the tile
could not be read: such a row stays in the table, without split and hash).
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.errors import BadArtifact
from pipeline.names import SPLITS, RunFile
from pipeline.storage import atomic, records
from pipeline.storage.csv_files import read_table

SCHEMA = records.SCHEMAS[RunFile.MANIFEST]
SIDE = r"[0-9]{1,9}"
"""A width or height as it is written."""

COLUMNS = ("tile_id", "path", "label", "group", "split", "sha256", "width", "height", "problem")


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The tiles of a run."""

    path: Path
    """manifest.csv itself."""

    table: pd.DataFrame
    """One row per tile, columns `COLUMNS`, index 0..N-1."""

    root: Path
    """Folder that the column `path` is relative to."""

    details: Mapping[str, Any]
    """From the record: data set's name, protocol, credit, mpp."""

    @property
    def classes(self) -> list[str]:
        """Class names in the order of their codes (sorted)."""
        return sorted(self.table["label"].unique())

    @property
    def readable(self) -> pd.DataFrame:
        """The rows whose tiles can be read."""
        return self.table[self.table["problem"] == ""]


def tile_ids(paths: list[str]) -> list[str]:
    """Return a unique name for each relative path: without its suffix, unless two names would be equal."""
    stems = pd.Series([path.removesuffix(Path(path).suffix) for path in paths], dtype=object)
    ids = stems.where(~stems.duplicated(keep=False), pd.Series(paths, dtype=object))
    return list(paths) if ids.duplicated().any() else list(ids)  # a.png, a.jpg, a.png.png: stems are not unique


def write_manifest(
    path: Path,
    table: pd.DataFrame,
    *,
    root: Path,
    options: Mapping[str, Any],
    details: Mapping[str, Any],
    outputs: list[Path],
    seed: int,
    inputs: Sequence[Path] = (),
) -> None:
    """Write manifest.csv and its record.

    Args:
        path: the final name.
        table: columns `COLUMNS`.
        root: folder that the tiles' paths are relative to.
        options: resolved options of `prepare`.
        details: facts for later stages; `root` is added.
        outputs: the audit and its figures.
        seed: seed of the split.
        inputs: the CSV file with the tiles, if there is one.
    """
    atomic.write_text(path, table[list(COLUMNS)].to_csv(index=False, lineterminator="\n"))
    # resolved: `..` after a linked run folder is another folder
    relative = Path(os.path.relpath(root.resolve(), path.parent.resolve())).as_posix()
    records.write_record(
        records.Artifact(path, SCHEMA, "prepare", options, inputs, seed),
        outputs=outputs,
        details={**details, "root": relative},
    )


def read_manifest(path: Path) -> Manifest:
    """Read manifest.csv after checking it against its record.

    Raises:
        BadArtifact: missing, damaged or edited, or a column or value that the schema does not know.
    """

    def refuse(rule: str) -> BadArtifact:
        return BadArtifact(f"{path}: {rule}: run `python -m pipeline.prepare --restart`")

    record = records.check_artifact(path, schema=SCHEMA)
    details = record["details"]
    for name in ("root", "dataset", "protocol"):
        if not isinstance(details.get(name), str):
            raise refuse(f"its record does not name the {name}")
    table = read_table(path, texts=COLUMNS, refuse=refuse)
    if tuple(table.columns) != COLUMNS:
        raise refuse(f"columns {', '.join(table.columns)}, not {', '.join(COLUMNS)}")
    for name in ("width", "height"):
        if not table[name].str.fullmatch(SIDE).all():
            raise refuse(f"a {name} is not a number of px")
        table[name] = table[name].astype(int)
    for name in table["path"]:
        if not is_below(name):
            raise refuse(f"the path '{name}' leads out of the image root")
    good = table["problem"] == ""
    if not table.loc[good, "split"].isin(SPLITS).all() or table["tile_id"].duplicated().any():
        raise refuse(f"a split is not one of {', '.join(SPLITS)}, or a tile_id is there twice")
    return Manifest(path=path, table=table, root=path.parent / details["root"], details=details)


def is_below(name: str) -> bool:
    """Return whether a relative path, joined to a root, stays below the root."""
    return not name.startswith("/") and ".." not in name.split("/")
