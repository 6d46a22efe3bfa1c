"""Record what each command made of each slide, and list all slides of a run in slides/slides.csv.

`slides/<slide>/outcome.json` holds the latest outcome of every stage. slides.csv is made from all of these files, so
that commands on different slides of a run keep one another's rows.
"""

import dataclasses
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.errors import BadArtifact
from pipeline.storage import atomic, records
from pipeline.storage.csv_files import no_formula

TABLE_SCHEMA = "slides/1.1"
FILE = "outcome.json"
STAGES = ("extract", "tile")
"""Stages with outcomes; the first one that a slide has is its row in slides.csv."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of a stage for one slide."""

    slide: str
    tiles: int = 0
    skipped: int = 0
    """Tiles whose region cannot be decoded."""

    seconds: float = 0.0
    problem: str = ""
    """Why the slide was skipped, or ""."""


def record_outcome(folder: Path, stage: str, outcome: Outcome) -> None:
    """Write the outcome of a stage into the slide's folder."""
    facts = dataclasses.asdict(dataclasses.replace(outcome, seconds=round(outcome.seconds, 1)))
    atomic.write_text(folder / FILE, atomic.to_json({**_read(folder), stage: facts}))


def last_problem(folder: Path, stage: str) -> str:
    """Return why a stage skipped the slide last time, or ""."""
    return str(_read(folder).get(stage, {}).get("problem", ""))


def _read(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the outcomes in a slide's folder by stage; a damaged file counts as none, because commands repeat."""
    try:
        content = atomic.from_json(folder / FILE)
    except BadArtifact:
        return {}
    return {
        stage: facts
        for stage, facts in (content.items() if isinstance(content, dict) else ())
        if stage in STAGES and isinstance(facts, dict)
    }


def _rows(run: Path) -> pd.DataFrame:
    """Return a row for each slide of a run that has an outcome, sorted by name."""
    columns = [field.name for field in dataclasses.fields(Outcome)]
    rows = []
    for file in sorted((run / atomic.SLIDES).glob(f"*/{FILE}")):
        found = _read(file.parent)
        stage = next((stage for stage in STAGES if stage in found), None)
        if stage is not None:
            facts = {"slide": file.parent.name, **found[stage], "stage": stage}
            rows.append([facts.get(name, "") for name in (*columns, "stage")])
    table = pd.DataFrame(rows, columns=[*columns, "stage"])
    for column in ("slide", "problem"):
        table[column] = table[column].astype(str).map(no_formula)
    return table[["slide", "stage", *columns[1:]]]


def write_table(run: Path) -> None:
    """Write slides.csv, one row for each slide of a run, and its record.

    Two commands can do so at the same time. The one that writes last lists the slides once more afterwards, so that no
    row is lost in any order of their steps.
    """
    path = run / atomic.SLIDES / "slides.csv"
    while not path.parent.is_symlink():
        table = _rows(run)
        if table.empty and not path.exists():
            return
        text = table.to_csv(index=False, lineterminator="\n")
        counts = {"slides": len(table), "failed": int(table["problem"].ne("").sum())}
        atomic.write_text(path, text)
        records.write_record(records.Artifact(path, TABLE_SCHEMA, "extract"), details=counts)
        if _rows(run).equals(table) and _is_whole(path, text):
            return


def _is_whole(path: Path, text: str) -> bool:
    """Return whether a file and its record hold this text."""
    try:
        return path.read_bytes() == text.encode() and bool(records.check_artifact(path, schema=TABLE_SCHEMA))
    except (BadArtifact, OSError):
        return False
