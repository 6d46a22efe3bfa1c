"""Decide whether an artefact is current."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import BadArtifact, StaleInput
from pipeline.storage.atomic import sha256_file
from pipeline.storage.records import _hashes, check_artifact, read_record, read_record_alone, record_path


def check_inputs_unchanged(artifact: Path, record: Mapping[str, Any]) -> None:
    """Check that what an artefact was made from, and what that was made from, still stands there unchanged.

    A model that is trained anew leaves embeddings.h5, and so predictions.csv, as they were: only the whole chain
    shows it. Of an input that is no longer there (heavy files are not committed) its record tells the hash; if that
    is gone too, nothing can be compared.

    Raises:
        StaleInput: an input has another hash now; names both and the stage to run again.
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
                    f"{artifact} was made from {Path(name).name} {expected[:12]}, but {found[:12]} stands there now: "
                    f"run `python -m pipeline.{record['stage']}` again, or pass --force to use it as it is"
                )
            place = path.parent.resolve() / path.name
            if recorded and place not in seen:  # a hostile record may name itself, or its input's input
                seen.add(place)
                left.append((path, read_record_alone(path)))


def is_current(
    artifact: Path,
    *,
    schema: str,
    options: Mapping[str, Any],
    inputs: Iterable[Path],
    seed: int | None,
    known: Mapping[Path, str] | None = None,
) -> bool:
    """Tell whether an artefact is whole and would come out the same: same inputs, options, seed, outputs intact.

    Hashes of inputs that were just computed (`known`) are not computed again.
    """
    try:
        record = check_artifact(artifact, schema=schema)
    except BadArtifact:
        return False
    now = _hashes(inputs, artifact.parent, known)
    same = record["options"] == json.loads(json.dumps(dict(options))) and record["seed"] == seed
    return same and record["inputs"] == now and not damaged_outputs(artifact, record)


def refuse_damage(artifact: Path, *, outputs: bool = True) -> None:
    """Refuse to make an artefact again only because a file of it was lost or changed, perhaps by hand.

    Args:
        artifact: the file; if it or its record is not there, nothing is refused.
        outputs: whether its companions are looked at too.

    Raises:
        BadArtifact: the artefact stands there, but it or a companion is not what its record says; names the file.
    """
    if not artifact.is_file() or not record_path(artifact).is_file():
        return
    record = read_record(artifact)
    changed = damaged_outputs(artifact, record) if outputs else []
    if sha256_file(artifact) != record["sha256"]:
        changed.append(artifact.name)
    if changed:
        raise BadArtifact(
            f"{artifact.parent / changed[0]}: missing or changed since {record['stage']} wrote it: restore it, or pass "
            f"--restart to make {artifact.name} anew"
        )


def damaged_outputs(artifact: Path, record: Mapping[str, Any]) -> list[str]:
    """Return the companion files of an artefact that are missing or changed."""
    folder = artifact.parent
    return [
        name
        for name, expected in record["outputs"].items()
        if not (folder / name).is_file() or sha256_file(folder / name) != expected
    ]


def refuse_other_options(
    artifact: Path, *, options: Mapping[str, Any], seed: int | None, inputs: Iterable[Path] = ()
) -> None:
    """Refuse to replace a costly artefact by one made with other options or inputs, unless the user says so.

    Args:
        artifact: the file; if it or its record is not there, nothing is refused.
        options: the resolved options asked for now.
        seed: the seed asked for now.
        inputs: inputs whose change must not cost the artefact without a word either.

    Raises:
        StaleInput: the artefact stands there, made with other options or inputs; names them.
        BadArtifact: its record is damaged, so that nobody knows how it was made.
    """
    if not artifact.is_file() or not record_path(artifact).is_file():
        return
    try:
        record = read_record(artifact)
    except BadArtifact as error:
        raise BadArtifact(f"{error} with --restart") from None
    asked = json.loads(json.dumps(dict(options))) | {"seed": seed}
    made = record["options"] | {"seed": record["seed"]}
    changed = [name for name in asked if asked[name] != made.get(name)]
    if changed:
        listing = ", ".join(f"{name}={made.get(name)!r}, now {asked[name]!r}" for name in changed)
        raise StaleInput(
            f"{artifact} was made with {listing}: give the same options, another --run, or --restart to replace it"
        )
    for name, found in _hashes(inputs, artifact.parent).items():
        if record["inputs"].get(name, found) != found:
            raise StaleInput(
                f"{artifact} was made from another {Path(name).name} ({record['inputs'][name][:12]}, now {found[:12]})"
                ": restore that file, give another --run, or --restart to replace it"
            )


@dataclasses.dataclass(frozen=True)
class Input:
    """An artefact whose bytes were those of its record when `check_input` looked."""

    path: Path
    record: Mapping[str, Any]
    stamp: tuple[int, ...]
    """What the file system said of it before it was hashed."""

    @property
    def known(self) -> dict[Path, str]:
        """Its hash, for `freshness.is_current` and `records.write_record`."""
        return {self.path: self.record["sha256"]}

    def check_unchanged(self) -> None:
        """Check that what was read since is what was hashed; before a record names that hash as its input.

        The file is hashed again only where the file system says that it was touched.

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
        BadArtifact: not there, damaged, or of another schema (`records.check_artifact`).
    """
    stamp = _stamp(path) if path.is_file() else ()  # before: what is replaced while it is hashed must not look the same
    return Input(path, check_artifact(path, schema=schema), stamp)


def _stamp(path: Path) -> tuple[int, ...]:
    """Return numbers of which one changes with every replacement and every write; the last is not for users to set."""
    told = path.stat()
    return told.st_ino, told.st_size, told.st_mtime_ns, told.st_ctime_ns
