"""Compare a data set with the manifest that an earlier run of prepare made."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.errors import BadArtifact, StaleInput
from pipeline.names import RunFile
from pipeline.storage import atomic, records
from pipeline.tiles.datasets.sources import TileSet
from pipeline.tiles.manifest import Manifest


def same_words(options: Mapping[str, Any], listing: list[Path], run: Path, *, names: Collection[str]) -> dict[str, Any]:
    """Return the options with the earlier words for the place of the tiles.

    A batch job gives the path of the same folder in another way, and the place is no option that decides the result:
    `check_same_tiles` and `check_same_table` refuse other tiles.

    Args:
        options: resolved options of now.
        listing: the files that list the tiles, if there are some; earlier ones must have the same bytes.
        run: the run folder.
        names: data sets that are given by name, not by path; the first is the default.
    """
    path = run / RunFile.MANIFEST
    if not records.record_path(path).is_file():
        return dict(options)
    try:
        record = records.read_record(path)
    except BadArtifact:  # `freshness` names it
        return dict(options)
    earlier, words = record["options"], {"data_dir", "source", "url"}
    is_named = not {options["data"], earlier.get("data", next(iter(names)))}.isdisjoint(names)
    if not is_named and sorted(record["inputs"].values()) == sorted(map(atomic.sha256_file, listing)):
        words.add("data")
    return {**options, **{name: earlier[name] for name in words & set(earlier)}}


def is_in_place(manifest: Manifest, root: Path | None) -> bool:
    """Return whether the tiles of a manifest are in the folder `root`; None: whether the run still has each file."""
    if root is None:
        return all((manifest.root / name).is_file() for name in manifest.readable["path"])
    return manifest.root.is_dir() and manifest.root.samefile(root)


def check_same_tiles(manifest: Manifest, tiles: TileSet) -> None:
    """Check that a manifest lists the tiles that are there now.

    Raises:
        StaleInput: tiles were added, removed or renamed since; counts them and names one.
    """
    listed, there = set(manifest.table["path"]), set(tiles.table["path"])
    if listed != there:
        raise StaleInput(
            f"{tiles.root}: {len(there - listed)} tile(s) came and {len(listed - there)} went since {manifest.path} "
            f"was made (such as {min(listed ^ there)}): pass --restart to prepare again, or give another --run"
        )


def check_same_annotations(manifest: Manifest, listing: Sequence[Path], slides: Mapping[str, str]) -> None:
    """Check that a manifest was made of the annotation files and slides that are there now.

    Args:
        manifest: of an earlier run.
        listing: the table and the annotation files.
        slides: path of each slide below the folder of all -> its SHA-256.

    Raises:
        StaleInput: files were added or removed since, which would deal the slides to other splits, or a slide changed.
    """
    made_of = records.read_record(manifest.path)["inputs"]
    if sorted(made_of.values()) != sorted(atomic.sha256_file(file) for file in listing):
        raise StaleInput(
            f"{manifest.path} was made of {len(made_of)} files of annotations and lists, now there are {len(listing)} "
            "or other ones: pass --restart to prepare again, or give another --run"
        )
    made_from = manifest.details.get("slide_sha256")
    if changed := [
        name for name, digest in slides.items() if not isinstance(made_from, dict) or made_from.get(name) != digest
    ]:
        raise StaleInput(
            f"{changed[0]}: not the slide that {manifest.path} was made from ({len(changed)} of {len(slides)} slides "
            "differ): pass --restart to prepare again, or give another --run"
        )


def check_same_table(manifest: Manifest, table: pd.DataFrame, root: Path) -> None:
    """Check that the tiles in another place are those of a manifest, pixel by pixel.

    Raises:
        StaleInput: a tile differs; names the first.
    """
    columns = ["path", "label", "group", "sha256"]
    differs = (manifest.table[columns].to_numpy() != table[columns].to_numpy()).any(axis=1)
    if differs.any():
        raise StaleInput(
            f"{root}: {int(differs.sum())} tile(s) are not those that {manifest.path} lists (such as "
            f"{table['path'][differs].iloc[0]}): give another --run, or --restart to replace it"
        )
