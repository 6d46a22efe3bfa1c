"""Describe the files of a run as a research object: ro-crate-metadata.json of RO-Crate 1.1.

Files, sizes, hashes, times and the steps that made each file come from the records of the run. The terms are those of
schema.org in the context of RO-Crate 1.1.
"""

import dataclasses
import mimetypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline import __version__
from pipeline.publication.checklist import YOU, state
from pipeline.publication.run_facts import RunFacts
from pipeline.publication.statement import MANIFEST
from pipeline.storage import records
from pipeline.storage.records import Record

FILE = "ro-crate-metadata.json"
"""Name of the metadata file, at the root of the crate."""

VERSION = "https://w3id.org/ro/crate/1.1"

FORMATS = {
    ".h5": "application/x-hdf5",
    ".jsonl": "application/jsonl",
    ".md": "text/markdown",
    ".parquet": "application/vnd.apache.parquet",
    ".skops": "application/zip",
}
"""Suffix -> media type, of files that Python does not know."""

SOFTWARE, LICENCE = "#histoheads", "#licence"
"""Identifiers of the program and of the licence."""

Entity = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Recorded:
    """An artefact that is there, with its record."""

    path: Path
    record: Record


def recorded_artifacts(run: Path) -> list[Recorded]:
    """Return every artefact below a run folder that has a record, but not the crate, in the order of their paths.

    Raises:
        BadArtifact: a record is damaged.
    """
    pairs = ((path, path.with_suffix("")) for path in sorted(run.rglob("*.json")))
    own = run / FILE
    return [
        Recorded(artifact, records.read_record_alone(artifact))
        for path, artifact in pairs
        if artifact.is_file() and not path.is_symlink() and not artifact.is_symlink() and artifact != own
    ]


def ro_crate(run: RunFacts, artifacts: list[Recorded]) -> Entity:
    """Return the metadata of the crate of a run.

    Args:
        run: the facts of the run.
        artifacts: its artefacts (`recorded_artifacts`).

    Raises:
        BadArtifact: a record breaks its schema.
    """
    hashes = dict(_hashes(run.run, artifacts))
    files = [_file(run.run, name, digest) for name, digest in sorted(hashes.items())]
    steps = [_step(run.run, each, set(hashes)) for each in artifacts]
    performance = state(run, "performance")
    descriptor: Entity = {
        "@id": FILE,
        "@type": "CreativeWork",
        "conformsTo": {"@id": VERSION},
        "about": {"@id": "./"},
    }
    root: Entity = {
        "@id": "./",
        "@type": "Dataset",
        "name": f"histoheads run {run.run.resolve().name}",
        "description": "Comparison of classifier heads on labelled tissue tiles. "
        + (performance.text if performance else ""),
        "datePublished": max(each.record["created_utc"] for each in artifacts),
        "license": {"@id": LICENCE},
        "hasPart": [{"@id": file["@id"]} for file in files],
        "mentions": [{"@id": step["@id"]} for step in steps],
    }
    licence: Entity = {
        "@id": LICENCE,
        "@type": "CreativeWork",
        "name": f"Licence of the run: {YOU}",
        "description": f"Licence of the data: {run.get(MANIFEST, 'details', 'licence') or 'not recorded'}",
    }
    software: Entity = {
        "@id": SOFTWARE,
        "@type": "SoftwareApplication",
        "name": "histoheads",
        "softwareVersion": __version__,
    }
    return {"@context": f"{VERSION}/context", "@graph": [descriptor, root, licence, software, *files, *steps]}


def _name(run: Path, path: Path) -> str:
    return path.relative_to(run).as_posix()


def _hashes(run: Path, artifacts: list[Recorded]) -> Iterator[tuple[str, str | None]]:
    """Yield name and SHA-256 of each artefact, its companions that are there, and its record (no hash)."""
    for each in artifacts:
        yield _name(run, each.path), each.record["sha256"]
        yield _name(run, records.record_path(each.path)), None
        for name, digest in each.record["outputs"].items():
            path = each.path.parent / name
            if path.is_file() and path.resolve().is_relative_to(run.resolve()):
                yield _name(run, path), digest


def _file(run: Path, name: str, digest: str | None) -> Entity:
    path = run / name
    kind = FORMATS.get(path.suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
    found: Entity = {"@id": name, "@type": "File", "name": name, "encodingFormat": kind}
    found["contentSize"] = str(path.stat().st_size)
    return found | ({"identifier": f"sha256:{digest}"} if digest else {})


def _step(run: Path, each: Recorded, names: set[str]) -> Entity:
    """Return the step that made an artefact, with those inputs and outputs that are files of the crate."""
    folder, record = each.path.parent, each.record
    inputs = (Path(folder / name).resolve() for name in record["inputs"])
    root = run.resolve()
    objects = [_name(root, path) for path in inputs if path.is_relative_to(root)]
    results = [_name(run, each.path), *(_name(run, folder / name) for name in record["outputs"])]
    return {
        "@id": f"#{record['stage']}-{_name(run, each.path)}",
        "@type": "CreateAction",
        "name": f"{record['stage']}: {each.path.name}",
        "endTime": record["created_utc"],
        "instrument": {"@id": SOFTWARE},
        **_links("object", [name for name in objects if name in names]),
        **_links("result", [name for name in results if name in names]),
    }


def _links(term: str, names: list[str]) -> Entity:
    """Return a property that names entities: a list of several, a value of one, nothing of none."""
    links = [{"@id": name} for name in names]
    return {term: links if len(links) > 1 else links[0]} if links else {}
