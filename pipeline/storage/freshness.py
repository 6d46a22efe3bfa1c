"""Decide whether an artefact is current."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import BadArtifact, StaleInput
from pipeline.runtime.console import log
from pipeline.storage.atomic import sha256_file
from pipeline.storage.records import (
    Artifact,
    Record,
    check_artifact,
    file_hashes,
    read_record,
    read_record_alone,
    record_path,
    save_record,
)


def check_inputs_unchanged(artifact: Path, record: Mapping[str, Any]) -> None:
    """Check that the inputs of an artefact, and their inputs, are unchanged.

    Training a model again does not change embeddings.h5 and predictions.csv, so the whole chain is compared.
    If an input is missing (heavy files are not committed), its record has the hash; without a record, nothing is
    compared.

    Raises:
        StaleInput: the hash of an input changed; names both and the stage to run again.
    """
    left, seen = [(artifact, record)], {artifact}
    while left:
        artifact, record = left.pop()
        for name, expected in record["inputs"].items():
            path = artifact.parent / name
            recorded = record_path(path).is_file()
            if not path.is_file() and not recorded:
                continue
            found = sha256_file(path) if path.is_file() else read_record_alone(path)["sha256"]
            if found != expected:
                raise StaleInput(
                    f"{artifact} was made from {Path(name).name} {expected[:12]}, but {found[:12]} is there now: "
                    f"run `python -m pipeline.{record['stage']}` again, or pass --force to use it as it is"
                )
            place = path.parent.resolve() / path.name
            if recorded and place not in seen:  # a hostile record may name itself, or its input's input
                seen.add(place)
                left.append((path, read_record_alone(path)))


def checked_record(path: Path, *, schema: str, force: bool) -> Record:
    """Return the record of an artefact that is whole and, unless `force`, made from the inputs of now.

    Raises:
        BadArtifact, StaleInput: as `check_artifact` and `check_inputs_unchanged`.
    """
    record = check_artifact(path, schema=schema)
    if not force:
        check_inputs_unchanged(path, record)
    return record


def reusable_record(artifact: Artifact, *, restart: bool = False) -> Record | None:
    """Return the record of an artefact that is current; None if the artefact has to be made.

    Every stage calls it before it works, and logs the result.

    Args:
        artifact: how the artefact would be made now.
        restart: make it again although it is current or protected (`--restart`).

    Raises:
        StaleInput: a protected artefact was made with other options or inputs.
        BadArtifact: a protected artefact is damaged.
    """
    if restart:
        return None
    record = current_record(artifact)
    if record is None:
        check_replaceable(artifact)
    else:
        log.info(f"{artifact.stage}: current, {artifact.path}")
    return record


def current_record(artifact: Artifact) -> Record | None:
    """Return the record of an artefact that is whole and has these options, inputs and seed; None without one.

    A slide, a table or weights that were moved are the same input: the record then names their new place.
    """
    try:
        record = check_artifact(artifact.path, schema=artifact.schema)
    except BadArtifact:
        return None
    inputs = file_hashes(artifact.inputs, artifact.path.parent, artifact.known)
    same = record["options"] == _as_recorded(artifact.options) and record["seed"] == artifact.seed
    has_moved = record["inputs"] != inputs
    if has_moved and not _are_moved(record["inputs"], inputs, artifact.path.parent):
        return None
    if not same or damaged_outputs(artifact.path, record):
        return None
    if has_moved:
        record["inputs"] = inputs
        save_record(artifact.path, record)
    return record


def _are_moved(before: Mapping[str, str], now: Mapping[str, str], folder: Path) -> bool:
    """Return whether inputs differ by the folders of files that are no artefacts, not by file names or content.

    Args:
        before: path relative to `folder` -> hash, by the record.
        now: the same of now.
        folder: folder of the artefact.
    """
    gone, came = dict(before.items() - now.items()), dict(now.items() - before.items())
    if gone.keys() & came.keys() or any(record_path(folder / name).is_file() for name in came):
        return False
    facts = [sorted((Path(name).name, digest) for name, digest in files.items()) for files in (gone, came)]
    return facts[0] == facts[1]


def check_replaceable(artifact: Artifact) -> None:
    """Check that nothing protected is replaced; a missing artefact, or one without a record, may be made.

    Raises:
        StaleInput: the artefact was made with other options or inputs; names them.
        BadArtifact: its record is damaged, or it or a companion is not what the record states; names the file.
    """
    path, protects = artifact.path, artifact.protects
    if protects == "nothing" or not path.is_file() or not record_path(path).is_file():
        return
    try:
        record = read_record(path)
    except BadArtifact as error:
        raise BadArtifact(f"{error} with --restart") from None
    _check_options(artifact, record)
    if protects == "everything":
        _check_inputs(artifact, record)
    changed = damaged_outputs(path, record) if protects == "everything" else []
    if protects != "options" and sha256_file(path) != record["sha256"]:
        changed.append(path.name)
    if changed:
        raise BadArtifact(
            f"{path.parent / changed[0]}: missing or changed since {record['stage']} wrote it: restore it, or pass "
            f"--restart to make {path.name} again"
        )


def differing(now: Mapping[str, Any], before: Mapping[str, Any]) -> list[str]:
    """Return the names whose values differ; a name that only one of both has counts, whatever its value is."""
    return [name for name in {**now, **before} if (name in now, now.get(name)) != (name in before, before.get(name))]


def differences(before: Mapping[str, Any], now: Mapping[str, Any], *, word: str = "now") -> str:
    """Return the values that differ, such as "epochs=3, now 4"; "" if all are equal.

    Args:
        before: name -> value; of values that are mappings in both, the entries are compared.
        now: the same to compare with.
        word: word before each value of `now`.
    """
    found = []
    for name in differing(now, before):
        one, other = before.get(name), now.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found.append(differences(one, other, word=word))
        else:
            was, is_now = (repr(each[name]) if name in each else "not set" for each in (before, now))
            found.append(f"{name}={was}, {word} {is_now}")
    return ", ".join(found)


def _check_options(artifact: Artifact, record: Mapping[str, Any]) -> None:
    """Check that a record has the options and the seed of now."""
    now = _as_recorded(artifact.options) | {"seed": artifact.seed}
    before = record["options"] | {"seed": record["seed"]}
    if changed := differences(before, now):
        raise StaleInput(
            f"{artifact.path} was made with {changed}: give the same options, another --run, or --restart to replace it"
        )


def _check_inputs(artifact: Artifact, record: Mapping[str, Any]) -> None:
    """Check that the inputs of now are those of a record, each in its place or moved."""
    folder, before = artifact.path.parent, record["inputs"]
    now = file_hashes(artifact.inputs, folder, artifact.known)
    if changed := differing(now, before):
        if _are_moved(before, now, folder):
            return
        name = changed[0]
        was, found = (files.get(name, "none")[:12] for files in (before, now))
        raise StaleInput(
            f"{artifact.path} was made from another {Path(name).name} ({was}, now {found}): restore "
            "that file, give another --run, or --restart to replace it"
        )


def _as_recorded(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as they are read from a record, where a tuple is a list."""
    recorded: dict[str, Any] = json.loads(json.dumps(dict(options)))
    return recorded


def damaged_outputs(artifact: Path, record: Mapping[str, Any]) -> list[str]:
    """Return the companion files of an artefact that are missing or changed."""
    folder = artifact.parent
    return [
        name
        for name, expected in record["outputs"].items()
        if not (folder / name).is_file() or sha256_file(folder / name) != expected
    ]


@dataclasses.dataclass(frozen=True)
class Input:
    """An artefact whose bytes matched its record when `check_input` hashed them."""

    path: Path
    record: Record
    stamp: tuple[int, ...]
    """Numbers of the file system before the file was hashed; see `_stamp`."""

    @property
    def known(self) -> dict[Path, str]:
        """Its hash, for `records.Artifact`."""
        return {self.path: self.record["sha256"]}

    def check_unchanged(self) -> None:
        """Check that the file is still the hashed one, before a record names that hash as its input.

        The file is hashed again only if its size, inode or times changed.

        Raises:
            StaleInput: it was replaced, written to or removed meanwhile; names both hashes.
        """
        is_there, expected = self.path.is_file(), self.record["sha256"]
        if is_there and _stamp(self.path) == self.stamp:
            return
        found = sha256_file(self.path) if is_there else "none"
        if found != expected:
            raise StaleInput(
                f"{self.path}: was {expected[:12]} when it was taken as input and is {found[:12]} now: run the same "
                "command again"
            )


def check_input(path: Path, *, schema: str) -> Input:
    """Return an artefact with its record, after hashing it.

    Raises:
        BadArtifact: missing, damaged, or of another schema (`records.check_artifact`).
    """
    stamp = _stamp(path) if path.is_file() else ()  # taken before hashing, to detect a replacement during it
    return Input(path, check_artifact(path, schema=schema), stamp)


def _stamp(path: Path) -> tuple[int, ...]:
    """Return inode, size and times of a file; every replacement or write changes one of these numbers."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
