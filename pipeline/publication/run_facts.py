"""Read the records and tables of a finished run, each checked by its hash: all that checklists and cards may state."""

import csv
import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.comparison.run_files import OWNERS
from pipeline.comparison.scores import SCHEMA, Score
from pipeline.errors import BadArtifact
from pipeline.names import BASELINES, MAIN, RunFile
from pipeline.storage import freshness, records
from pipeline.storage.atomic import sha256_file
from pipeline.storage.protocol import Protocol, read_protocol

RECORDED = (RunFile.MANIFEST, RunFile.BASELINES, RunFile.PREDICTIONS, RunFile.ROBUSTNESS, RunFile.COMPARISON)
"""Artefacts of the run folder whose records are read; those of the network are in the folder of a part of a plan."""

OF_NETWORK = (RunFile.MODEL, RunFile.EMBEDDINGS)

LARGE = "predictions.parquet.json"
"""Record of the predictions where they are a Parquet table."""


@dataclasses.dataclass(frozen=True)
class RunFacts:
    """The records, JSON files and scores of a run."""

    run: Path
    content: Mapping[str, Mapping[str, Any]]
    """File, relative to the run folder -> its JSON content. Records are there as `<artefact>.json`."""

    scores: list[Score]
    """The rows of comparison.csv."""

    protocol: Protocol | None
    """The cross-validation plan; None for a single split."""

    of_network: str
    """Folder of the network's files, relative to the run, with a slash at the end; empty for a single split."""

    files: list[Path]
    """The report's table and the JSON files: the inputs of what is written from these facts."""

    def get(self, file: str, *keys: str) -> Any:
        """Return a value of a JSON file by its path of keys; None where the file or a key is absent."""
        value: Any = self.content.get(file)
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def network(self, file: str, *keys: str) -> Any:
        """Return a value of a JSON file of the network; for a plan of that of its first part."""
        return self.get(self.of_network + file, *keys)

    @property
    def encoder(self) -> Mapping[str, Any] | None:
        """The frozen encoder; None for a network that was trained on the tiles."""
        found = self.network(RunFile.MODEL_FACTS, "encoder")
        return found if isinstance(found, dict) else None

    @property
    def heads(self) -> list[str]:
        """The main heads that were compared, in the order of every table."""
        found = {score.head for score in self.scores}
        return [head for head in MAIN if head in found]

    @property
    def baselines(self) -> list[str]:
        """The baselines that were evaluated."""
        found = {score.head for score in self.scores}
        return [head for head in BASELINES if head in found]

    @property
    def level(self) -> float:
        """Coverage of the intervals."""
        return float(self.get(f"{RunFile.COMPARISON}.json", "details", "level") or math.nan)

    def score(self, head: str, metric: str, split: str = "test") -> Score | None:
        """Return a row of comparison.csv; None without one."""
        wanted = (head, split, metric)
        return next((score for score in self.scores if (score.head, score.split, score.metric) == wanted), None)


def read_facts(run: Path, *, force: bool = False) -> RunFacts:
    """Return the facts of a run that has a report.

    Heavy artefacts (model, embeddings) may be missing, as in a clone; then their records are read alone.

    Args:
        run: the run folder.
        force: use a report although an input of it has changed since.

    Raises:
        BadArtifact: no report, or a file is not what its record states.
        StaleInput: the report was made from files that have changed since.
    """
    table = run / RunFile.COMPARISON
    record = freshness.checked_record(table, schema=SCHEMA, force=force)
    content: dict[str, Mapping[str, Any]] = {f"{RunFile.COMPARISON}.json": dict(record)}
    protocol = read_protocol(run)
    of_network = ""
    if protocol is not None:
        of_network = protocol.folder(protocol.parts[0]).relative_to(run).as_posix() + "/"
    for name in (*RECORDED, *(of_network + each for each in OF_NETWORK)):
        path = records.existing_table(run / name)
        if records.record_path(path).is_file():
            content[records.record_path(path).relative_to(run).as_posix()] = dict(records.read_record_alone(path))
    if LARGE in content:  # one name for both forms of the table
        content[f"{RunFile.PREDICTIONS}.json"] = content[LARGE]
    owned = {run / name: (run / owner, name) for name, owner in OWNERS.items() if name.endswith(".json")}
    owned[run / of_network / RunFile.MODEL_FACTS] = (run / of_network / RunFile.MODEL, RunFile.MODEL_FACTS)
    owned = {path: owner for path, owner in owned.items() if path.is_file()}
    for path, (owner, name) in owned.items():
        content[path.relative_to(run).as_posix()] = _owned(path, records.existing_table(owner), name)
    return RunFacts(run, content, _read_scores(table), protocol, of_network, [table, *owned])


def _owned(path: Path, owner: Path, name: str) -> Mapping[str, Any]:
    """Return the content of a companion file after checking it against the record of its artefact."""
    expected = records.read_record_alone(owner)["outputs"].get(name)
    if expected != sha256_file(path):
        raise BadArtifact(f"{path}: not the file that was written: make {owner.name} again")
    found = json.loads(path.read_bytes())
    if not isinstance(found, dict):
        raise BadArtifact(f"{path}: its content breaks the schema: make {owner.name} again")
    return found


def _read_scores(path: Path) -> list[Score]:
    def number(text: str) -> float:
        return float(text) if text else math.nan

    def count(text: str) -> int | None:
        return int(text) if text else None

    with path.open(encoding="utf-8", newline="") as file:
        return [
            Score(
                row["head"],
                row["split"],
                row["metric"],
                number(row["value"]),
                number(row["low"]),
                number(row["high"]),
                count(row["n"]),
                count(row["n_groups"]),
            )
            for row in csv.DictReader(file)
        ]
