"""The record beside every artefact: what it was made from, how and by which code (P8).

An artefact is a file that another stage or a person reads. Beside it stands its record `<artefact>.json`: schema,
sha256, inputs by hash, options, versions. Companion files of the same step (figures, tables) are listed in the
record of the artefact they belong to, under `outputs`.
"""

import functools
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from pipeline import __version__
from pipeline.errors import BadArtifact, StaleInput
from pipeline.storage.artifacts import sha256_file, to_json, write_text

PACKAGES = ("torch", "torchvision", "scikit-learn", "scikit-image", "xgboost", "numpy", "pandas", "joblib", "h5py")
"""Packages whose versions stand in every record."""


def relative_name(path: Path, folder: Path) -> str:
    """Return a file's name relative to `folder`; links are resolved, for `..` would go astray."""
    return Path(os.path.relpath(path.parent.resolve() / path.name, folder.resolve())).as_posix()


def _hashes(paths: Iterable[Path], folder: Path, known: Mapping[Path, str] | None = None) -> dict[str, str]:
    """Return the hash of each file by its name relative to `folder`."""
    known = known or {}
    return {relative_name(path, folder): known[path] if path in known else sha256_file(path) for path in paths}


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
"""What readers rely on in a record, and its types. Whoever can write a file can write a record that vouches for it."""

ARTIFACTS = (
    ("manifest.csv", "manifest/1.0", "prepare"),
    ("model.safetensors", "model/1.0", "train"),
    ("embeddings.h5", "embeddings/1.0", "extract"),
    ("floors.h5", "floors/1.0", "floors"),
    ("heads/svm.skops", "head/1.0", "fit_heads"),
    ("heads/xgboost.ubj", "head/1.0", "fit_heads"),
    ("predictions.csv", "predictions/1.0", "fit_heads"),
    ("predictions-random.csv", "predictions/1.0", "fit_heads"),
    ("stress.csv", "stress/1.0", "stress"),
    ("comparison.csv", "comparison/1.1", "report"),
)
"""The artefacts of a run, their schemas, and the stages that make them, in the order of the work."""


def record_path(artifact: Path) -> Path:
    """Return the path of an artefact's record."""
    return artifact.with_name(artifact.name + ".json")


def standing(path: Path) -> Path:
    """Return what stands in place of predictions.csv: itself, or predictions.parquet where that, or its record, is.

    A table has one of the two forms, by its size (`storage.predictions`).
    """
    large = path.with_suffix(".parquet")
    return large if large.is_file() or record_path(large).is_file() else path


def versions() -> dict[str, str | None]:
    """Return the versions of this package and of those it computes with, without importing them."""
    found: dict[str, str | None] = {"histoheads": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # another build of it, such as xgboost-cpu
            found[name] = None
    return found


@functools.cache
def git_state() -> dict[str, Any] | None:
    """Return commit and dirtiness of the checkout this code runs from, or None outside a checkout.

    Commands ask when they start; the answer is kept, for the checkout may move on while a long stage runs.
    """
    root = Path(__file__).resolve().parents[2]
    git = shutil.which("git")
    if git is None or not (root / ".git").exists():
        return None

    def ask(*words: str) -> str | None:
        done = subprocess.run([git, "-C", str(root), *words], capture_output=True, text=True, check=False)  # noqa: S603
        return done.stdout.strip() if done.returncode == 0 else None

    commit = ask("rev-parse", "HEAD")
    changed = ask("status", "--porcelain", "--untracked-files=no", "--", "pipeline")
    return None if commit is None else {"commit": commit, "dirty": bool(changed)}


def write_record(
    artifact: Path,
    *,
    schema: str,
    stage: str,
    options: Mapping[str, Any],
    inputs: Iterable[Path] = (),
    outputs: Iterable[Path] = (),
    details: Mapping[str, Any] | None = None,
    seed: int | None = None,
    device: str | None = None,
    known: Mapping[Path, str] | None = None,
) -> None:
    """Write `<artefact>.json`, last: an artefact without a matching record counts as not there.

    Args:
        artifact: the finished file.
        schema: its schema and version, e.g. "embeddings/1.0".
        stage: the command that made it.
        options: the resolved options that decide its content (not where or on which machine).
        inputs: artefacts it was made from; stored relative to the artefact's folder, by hash.
        outputs: companion files of the same step, likewise.
        details: facts about the content that readers need (plain JSON).
        seed: the seed, where one was used.
        device: "cpu" or the accelerator's name, where it matters.
        known: hashes of inputs and outputs that were just computed, or of inputs that lie elsewhere.
    """
    record: dict[str, Any] = {
        "schema": schema,
        "stage": stage,
        "artifact": artifact.name,
        "sha256": sha256_file(artifact),
        "bytes": artifact.stat().st_size,
        "inputs": _hashes(inputs, artifact.parent, known),
        "outputs": _hashes(outputs, artifact.parent, known),
        "options": dict(options),
        "details": dict(details or {}),
        "seed": seed,
        "device": device,
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "versions": versions(),
        "git": git_state(),
    }
    record = json.loads(to_json(record))  # as it will be read: tuples are lists then, and keys are sorted as text
    record["record_sha256"] = hashlib.sha256(to_json(record).encode()).hexdigest()
    write_text(record_path(artifact), to_json(record))


def read_record(artifact: Path) -> dict[str, Any]:
    """Return the record of an artefact that is there; see `read_record_alone`."""
    if not artifact.is_file():
        raise BadArtifact(f"{artifact}: not there: run the stage that makes it first")
    return read_record_alone(artifact)


def read_record_alone(artifact: Path) -> dict[str, Any]:
    """Return an artefact's record, whole and unedited; the artefact itself may have been left behind.

    Raises:
        BadArtifact: there is none, or it was changed or damaged.
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
    return record


def _is_usable(record: Mapping[str, Any]) -> bool:
    """Tell whether a record holds what readers rely on."""
    if not all(isinstance(record.get(name, ()), kind) for name, kind in CONTENT.items()):
        return False
    hashes = [record["sha256"], *record["inputs"].values(), *record["outputs"].values()]
    return all(isinstance(value, str) for value in hashes) and record["stage"].isidentifier()


def check_artifact(artifact: Path, *, schema: str) -> dict[str, Any]:
    """Return the record of an artefact whose bytes are those that its producer wrote.

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


def check_fresh(artifact: Path, record: Mapping[str, Any]) -> None:
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
