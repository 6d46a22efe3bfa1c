"""Write and read protocol.json, the plan of a run, and find the folders of its parts.

The record of manifest.csv has the hash of protocol.json, which has the hash of each part's manifest.csv.
"""

import dataclasses
import re
from pathlib import Path
from typing import Any

from pipeline.errors import BadArtifact, StaleInput
from pipeline.names import RunFile
from pipeline.storage import atomic, records

FOLDER = "parts"
SCHEMA = "protocol/1.0"

ARMS = ("grouped", "random", "given")
"""Arms of a plan; their names become names of files."""

PART_NAME = re.compile(rf"(?:{'|'.join(ARMS)})-seed[0-9]+-fold[0-9]+(?:-inner[0-9]+)?")
"""Names of parts, which become names of folders."""


@dataclasses.dataclass(frozen=True)
class PartEntry:
    """One part as protocol.json lists it."""

    name: str
    arm: str
    """grouped, random or given."""

    seed: int
    fold: int
    inner: int | None
    manifest_sha256: str
    n: dict[str, int]
    """Readable tiles by split."""

    test_groups: list[str]
    """Groups in test; empty where groups are not known or not kept whole."""

    absent: dict[str, list[str]]
    """Classes that a split lacks."""


@dataclasses.dataclass(frozen=True)
class Protocol:
    """The plan of a run."""

    run: Path
    protocol: str
    """random, grouped, logo, or given (the data's own split)."""

    n_folds: int
    seeds: list[int]
    n_inner: int
    parts: list[PartEntry]

    @property
    def main_arm(self) -> str:
        """The arm whose pooled predictions are the primary result."""
        return self.parts[0].arm

    @property
    def arms(self) -> list[str]:
        """The arms, the main one first."""
        return list(dict.fromkeys(part.arm for part in self.parts))

    def folder(self, part: PartEntry) -> Path:
        """Return the run folder of a part.

        Raises:
            BadArtifact: it is a link.
        """
        place = self.run / FOLDER / part.name
        atomic.check_no_link(place.parent)
        atomic.check_no_link(place)
        return place

    def predictions(self, arm: str) -> Path:
        """Return the path of the pooled predictions of an arm."""
        return self.run / (RunFile.PREDICTIONS if arm == self.main_arm else f"predictions-{arm}.csv")


def write_protocol(protocol: Protocol) -> Path:
    """Write protocol.json and return its path; the caller lists it in the manifest's record."""
    content = {
        "schema": SCHEMA,
        "protocol": protocol.protocol,
        "folds": protocol.n_folds,
        "seeds": protocol.seeds,
        "inner": protocol.n_inner,
        "parts": [dataclasses.asdict(part) for part in protocol.parts],
    }
    path = protocol.run / RunFile.PROTOCOL
    atomic.write_text(path, atomic.to_json(content))
    return path


def read_protocol(run: Path) -> Protocol | None:
    """Return the plan of a run, or None where the run is a single split.

    Raises:
        BadArtifact: the plan is not the one that `prepare` wrote.
    """
    path = run / RunFile.PROTOCOL
    recorded = {}
    if (run / RunFile.MANIFEST).is_file() and records.record_path(run / RunFile.MANIFEST).is_file():
        recorded = records.read_record(run / RunFile.MANIFEST)["outputs"]
    if not path.is_file() and RunFile.PROTOCOL not in recorded:
        return None
    if not path.is_file() or recorded.get(RunFile.PROTOCOL) != atomic.sha256_file(path):
        raise BadArtifact(f"{path}: missing, or not the plan that prepare wrote: restore it, or run prepare --restart")
    content = atomic.from_json(path)
    if not _is_plan(content):
        raise BadArtifact(f"{path}: its content is not what the schema states: restore it, or run prepare --restart")
    return Protocol(
        run=run,
        protocol=content["protocol"],
        n_folds=content["folds"],
        seeds=content["seeds"],
        n_inner=content["inner"],
        parts=[PartEntry(**part) for part in content["parts"]],
    )


def _is_plan(content: Any) -> bool:
    """Return whether the content of protocol.json is a plan whose names stay inside its own folder (P5)."""
    if not isinstance(content, dict) or not isinstance(content.get("protocol"), str):
        return False
    seeds, parts = content.get("seeds"), content.get("parts")
    if not all(isinstance(content.get(name), int) for name in ("folds", "inner")):
        return False
    if not _is_list_of(seeds, int) or not seeds or not _is_list_of(parts, dict) or not parts:
        return False
    return all(_is_part(part) for part in parts) and len({part["name"] for part in parts}) == len(parts)


def _is_part(part: dict[str, Any]) -> bool:
    """Return whether an entry of `parts` holds the fields of `PartEntry`."""
    if set(part) != {field.name for field in dataclasses.fields(PartEntry)}:
        return False
    name, n, absent = part["name"], part["n"], part["absent"]
    return (
        isinstance(name, str)
        and PART_NAME.fullmatch(name) is not None
        and part["arm"] in ARMS
        and all(isinstance(part[key], int) for key in ("seed", "fold"))
        and isinstance(part["inner"], int | None)
        and isinstance(part["manifest_sha256"], str)
        and isinstance(n, dict)
        and _is_list_of(list(n.values()), int)
        and _is_list_of(part["test_groups"], str)
        and isinstance(absent, dict)
        and all(_is_list_of(names, str) for names in absent.values())
    )


def _is_list_of(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)


def check_part(protocol: Protocol, part: PartEntry) -> None:
    """Check that the manifest of a part is the one of the plan.

    Raises:
        BadArtifact: its manifest.csv is missing.
        StaleInput: the manifest is of another plan.
    """
    path = protocol.folder(part) / RunFile.MANIFEST
    if not path.is_file():
        raise BadArtifact(f"{path}: missing, though the plan has this part: run prepare --restart, which keeps results")
    found = records.read_record(path)["sha256"]
    if found != part.manifest_sha256:
        raise StaleInput(
            f"{path} ({found[:12]}) is not the manifest of this plan ({part.manifest_sha256[:12]}): run prepare "
            "--restart, or give another --run"
        )
