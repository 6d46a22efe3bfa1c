"""protocol.json: the plan of a run, written before anything is trained, and the folders of its parts.

The file is a companion of manifest.csv, whose record holds its hash; it holds the hash of each part's manifest.csv.
"""

import dataclasses
import json
from pathlib import Path

from pipeline.errors import BadArtifact, StaleInput
from pipeline.storage import artifacts, records

NAME = "protocol.json"
FOLDER = "parts"
SCHEMA = "protocol/1.0"


@dataclasses.dataclass(frozen=True)
class PartEntry:
    """One part as protocol.json lists it."""

    name: str
    arm: str
    """grouped or random."""

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
    """What the user asked for: random, grouped or logo."""

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
        """Return the run folder of a part."""
        return self.run / FOLDER / part.name

    def predictions(self, arm: str) -> Path:
        """Return where the pooled predictions of an arm stand."""
        return self.run / ("predictions.csv" if arm == self.main_arm else f"predictions-{arm}.csv")


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
    path = protocol.run / NAME
    artifacts.write_text(path, artifacts.to_json(content))
    return path


def read_protocol(run: Path) -> Protocol | None:
    """Return the plan of a run, or None where the run is a single split.

    Raises:
        BadArtifact: the plan is not the one that `prepare` wrote.
    """
    path = run / NAME
    recorded = {}
    if (run / "manifest.csv").is_file() and records.record_path(run / "manifest.csv").is_file():
        recorded = records.read_record(run / "manifest.csv")["outputs"]
    if not path.is_file() and NAME not in recorded:
        return None
    if not path.is_file() or recorded.get(NAME) != artifacts.sha256_file(path):
        raise BadArtifact(f"{path}: missing, or not the plan that prepare wrote: restore it, or run prepare --restart")
    content = json.loads(path.read_text(encoding="utf-8"))
    return Protocol(
        run=run,
        protocol=content["protocol"],
        n_folds=content["folds"],
        seeds=content["seeds"],
        n_inner=content["inner"],
        parts=[PartEntry(**part) for part in content["parts"]],
    )


def check_part(protocol: Protocol, part: PartEntry) -> None:
    """Check that a part's folder holds the tiles that the plan gave it.

    Raises:
        BadArtifact: its manifest.csv is missing.
        StaleInput: it is the manifest of another plan.
    """
    path = protocol.folder(part) / "manifest.csv"
    if not path.is_file():
        raise BadArtifact(f"{path}: missing, though the plan has this part: run prepare --restart, which keeps results")
    found = records.read_record(path)["sha256"]
    if found != part.manifest_sha256:
        raise StaleInput(
            f"{path} ({found[:12]}) is not the one of this plan ({part.manifest_sha256[:12]}): run prepare --restart, "
            "or give another --run"
        )
