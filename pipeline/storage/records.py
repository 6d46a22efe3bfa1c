"""Write and read the record of an artefact: what it was made from, how and by which code (P8).

An artefact is a file that another stage or a person reads. Its record `<artefact>.json` is next to it: schema,
sha256, inputs by hash, options, versions. Companion files of the same step (figures, tables) are listed in the
record of their artefact, under `outputs`.
"""

import dataclasses
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypedDict

from pipeline.errors import BadArtifact
from pipeline.names import FILES, RunFile
from pipeline.storage.atomic import sha256_file, to_json, write_text
from pipeline.storage.environment import git_state, versions


def relative_name(path: Path, folder: Path) -> str:
    """Return a file's name relative to `folder`; links are resolved, because `..` of a link is another folder."""
    return Path(os.path.relpath(path.parent.resolve() / path.name, folder.resolve())).as_posix()


def file_hashes(paths: Iterable[Path], folder: Path, known: Mapping[Path, str]) -> dict[str, str]:
    """Return the hash of each file by its name relative to `folder`; a known hash is not computed again."""
    return {relative_name(path, folder): known[path] if path in known else sha256_file(path) for path in paths}


class Record(TypedDict):
    """The content of a record."""

    schema: str
    stage: str
    artifact: str
    sha256: str
    bytes: int
    inputs: dict[str, str]
    """Name relative to the artefact's folder -> SHA-256."""

    outputs: dict[str, str]
    """Names of companion files -> SHA-256."""

    options: dict[str, Any]
    details: dict[str, Any]
    seed: int | None
    device: str | None
    created_utc: str
    command: list[str]
    versions: dict[str, str | None]
    git: dict[str, Any] | None


CONTENT: dict[str, type | tuple[type, ...]] = {
    "schema": str,
    "stage": str,
    "sha256": str,
    "inputs": dict,
    "outputs": dict,
    "options": dict,
    "details": dict,
    "seed": (int, type(None)),
}
"""Entries that readers rely on, and their types. Whoever can write a file can also write a record that fits it."""

ARTIFACTS = (
    (RunFile.MANIFEST, "manifest/1.0", "prepare"),
    (RunFile.MODEL, "model/1.0", "train"),
    (RunFile.EMBEDDINGS, "embeddings/1.1", "extract"),
    (RunFile.BASELINES, "baselines/1.0", "baselines"),
    *((file, "head/1.0", "fit_heads") for file in FILES.values()),
    (RunFile.PREDICTIONS, "predictions/1.0", "fit_heads"),
    (RunFile.RANDOM_CONTROL, "predictions/1.0", "fit_heads"),
    (RunFile.ROBUSTNESS, "robustness/1.0", "robustness"),
    (RunFile.COMPARISON, "comparison/1.2", "report"),
    (RunFile.RUNS, "compare/1.1", "compare"),
)
"""The artefacts of a run, their schemas, and the stages that make them, in the order of the work."""

SCHEMAS = {file: schema for file, schema, _ in ARTIFACTS}
"""File of a run -> its schema."""

ON_REQUEST = (
    ("checklist-claim.md", "checklist/1.0", "report"),
    ("checklist-tripod-ai.md", "checklist/1.0", "report"),
    ("checklist-stard-ai.md", "checklist/1.0", "report"),
    ("README.md", "export/1.0", "export"),
    ("ro-crate-metadata.json", "export/1.0", "export"),
)
"""Descriptions of a run that a user may ask for, with their schemas and commands."""


def record_path(artifact: Path) -> Path:
    """Return the path of an artefact's record."""
    return artifact.with_name(artifact.name + ".json")


def existing_table(path: Path) -> Path:
    """Return `path`, or the path with suffix .parquet if that file or its record exists.

    A table of predictions has one of the two formats, by its size (`storage.predictions`).
    """
    large = path.with_suffix(".parquet")
    return large if large.is_file() or record_path(large).is_file() else path


@dataclasses.dataclass(frozen=True)
class Artifact:
    """Describe how an artefact is made; `freshness.reusable_record` decides whether it has to be made again."""

    path: Path
    schema: str
    """Schema and version, e.g. "embeddings/1.1"."""

    stage: str
    """The command that makes it."""

    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """The resolved options that decide its content, not its place or the machine."""

    inputs: Sequence[Path] = ()
    """Files it is made from; the record stores their names relative to the artefact's folder, and their hashes."""

    seed: int | None = None
    known: Mapping[Path, str] = dataclasses.field(default_factory=dict)
    """Hashes of inputs that are known already, or whose files are in another folder."""

    protects: Literal["nothing", "options", "file", "everything"] = "nothing"
    """What only `--restart` replaces: an artefact made with other options, also a damaged file, also an artefact that
    was made from other inputs or misses a companion file."""


def write_record(
    artifact: Artifact,
    *,
    outputs: Iterable[Path] = (),
    details: Mapping[str, Any] | None = None,
    device: str | None = None,
) -> None:
    """Write `<artefact>.json`, last: an artefact without a matching record counts as missing.

    Args:
        artifact: how the finished file was made.
        outputs: companion files of the same step.
        details: facts about the content that readers need (plain JSON).
        device: "cpu" or the accelerator's name, where it matters.
    """
    path = artifact.path
    record: dict[str, Any] = {
        "schema": artifact.schema,
        "stage": artifact.stage,
        "artifact": path.name,
        "sha256": sha256_file(path),
        "bytes": path.stat().st_size,
        "inputs": file_hashes(artifact.inputs, path.parent, artifact.known),
        "outputs": file_hashes(outputs, path.parent, artifact.known),
        "options": dict(artifact.options),
        "details": dict(details or {}),
        "seed": artifact.seed,
        "device": device,
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "versions": versions(),
        "git": git_state(),
    }
    record = json.loads(to_json(record))  # as it is read back: tuples are lists, and keys are sorted as text
    save_record(path, record)


def save_record(artifact: Path, record: Mapping[str, Any]) -> None:
    """Write a record with its own hash next to its artefact."""
    digest = hashlib.sha256(to_json(record).encode()).hexdigest()
    write_text(record_path(artifact), to_json({**record, "record_sha256": digest}))


def read_record(artifact: Path) -> Record:
    """Return the record of an existing artefact; see `read_record_alone`."""
    if not artifact.is_file():
        raise BadArtifact(f"{artifact}: not there: run the stage that makes it first")
    return read_record_alone(artifact)


def read_record_alone(artifact: Path) -> Record:
    """Return an artefact's record after checking that it is unedited; the artefact itself may be missing.

    Raises:
        BadArtifact: the record is missing, changed or damaged.
    """
    path = record_path(artifact)
    try:
        text = path.read_bytes().decode()
        record = json.loads(text)
        expected = record.pop("record_sha256")
        whole = hashlib.sha256(to_json(record).encode()).hexdigest() == expected
        whole = whole and text == to_json(record | {"record_sha256": expected})
    except FileNotFoundError:
        raise BadArtifact(f"{path}: the record of {artifact.name} is missing: make {artifact.name} again") from None
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        whole = False
    if not whole or not _is_usable(record):
        raise BadArtifact(f"{path}: the record is damaged or was edited: make {artifact.name} again")
    checked: Record = record
    return checked


def _is_usable(record: Mapping[str, Any]) -> bool:
    """Return whether a record has the entries that readers rely on."""
    if not all(isinstance(record.get(name, ()), kind) for name, kind in CONTENT.items()):
        return False
    hashes = [record["sha256"], *record["inputs"].values(), *record["outputs"].values()]
    return all(isinstance(value, str) for value in hashes) and record["stage"].isidentifier()


def check_artifact(artifact: Path, *, schema: str) -> Record:
    """Return the record of an artefact after checking its bytes against it.

    Raises:
        BadArtifact: damaged file or record, or a schema of another kind or major version.
    """
    record = read_record(artifact)
    kind, _, version = str(record["schema"]).partition("/")
    want_kind, _, want_version = schema.partition("/")
    if kind != want_kind or version.split(".")[0] != want_version.split(".")[0]:
        raise BadArtifact(f"{artifact}: schema {record['schema']}, but {schema} is needed: make it with this version")
    found = sha256_file(artifact)
    if found != record["sha256"]:
        raise BadArtifact(
            f"{artifact}: its bytes are not those that were written (sha256 {found[:12]}, recorded "
            f"{record['sha256'][:12]}): restore it or make it again"
        )
    return record
