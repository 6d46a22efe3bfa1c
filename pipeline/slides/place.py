"""Decide where the results of a slide or a folder of tiles are in a run, and keep those of another one of its name."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import BadArtifact, StaleInput
from pipeline.runtime.console import log
from pipeline.storage import atomic, records

if TYPE_CHECKING:  # commands import this module: their --help needs no HDF5
    from pipeline.storage.embeddings.slide_info import SlideInfo


def results_folder(run: Path, kind: str, name: str) -> Path:
    """Return the folder in a run for the results of a slide or a folder of tiles.

    Args:
        run: the run folder.
        kind: `atomic.SLIDES` or `atomic.MAPS`.
        name: name of the slide or folder, without suffix.

    Raises:
        BadArtifact: the folder is a link, which may lead out of the run.
    """
    folder = run / kind / name
    atomic.check_no_link(folder.parent)
    atomic.check_no_link(folder)
    return folder


def grid_path(run: Path, name: str) -> Path:
    """Return the path of the grid of a slide in a run; raises as `results_folder`."""
    return results_folder(run, atomic.SLIDES, name) / "grid.csv"


def slide_of(embeddings: Path, record: records.Record, info: "SlideInfo") -> Path:
    """Return the path of the slide that embeddings were made from."""
    return Path(os.path.normpath(embeddings.parent / str(record["details"].get("content", info.slide))))


def content_facts(source: Path, sha256: str, folder: Path) -> dict[str, str]:
    """Return what a record keeps of the slide or folder of tiles, for `check_same_content`."""
    return {"content": records.relative_name(source, folder), "content_sha256": sha256}


def check_same_content(artifact: Path, source: Path, *, sha256: str, restart: bool) -> None:
    """Check that an artefact is free or holds results of the same slide or folder of tiles, by its hash.

    Args:
        artifact: the file that is about to be written; its record is read.
        source: the slide or the folder of tiles.
        sha256: hash of its content.
        restart: the user wants to replace results of another content.

    Raises:
        StaleInput: it holds results of another content; names both.
    """
    try:
        record = records.read_record_alone(artifact)
        old_name, old_hash = str(record["details"]["content"]), str(record["details"]["content_sha256"])
    except (BadArtifact, KeyError):
        return  # nothing there, or nobody can use it
    if old_hash == sha256:
        return
    old = os.path.normpath(artifact.parent / old_name)
    if restart:
        log.info(f"{artifact}: replaced: it was made from {old} ({old_hash[:12]}), not {source} ({sha256[:12]})")
        return
    is_same_file = os.path.realpath(old) == os.path.realpath(source)
    found = (
        f"{source} changed since {artifact} was made from it ({old_hash[:12]}, now {sha256[:12]})"
        if is_same_file
        else f"{artifact} was made from {old} ({old_hash[:12]}), and {source} ({sha256[:12]}) has the same name but "
        "another content"
    )
    raise StaleInput(
        f"{found}: give another --run, rename it, or run `python -m pipeline.{record['stage']}` with --restart to "
        "replace the results"
    )
