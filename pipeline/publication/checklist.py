"""Fill a reporting checklist from the records of a run: each item with its source, or marked for the author to say.

The tables `<name>.csv` hold the items with short titles of our own, the names of the statements that answer each item,
and what only an author can say. The wording that counts is that of the published checklists.
"""

import csv
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal

from pipeline.errors import BadArtifact
from pipeline.markup.document import Bullets, Document, Note, Section, Table, Text, to_markdown
from pipeline.markup.number_format import count
from pipeline.publication import about_data, about_model, about_results
from pipeline.publication.run_facts import LARGE, RunFacts
from pipeline.publication.statement import PREDICTIONS, Statement

SCHEMA = "checklist/1.0"

Name = Literal["claim", "tripod-ai", "stard-ai"]

SOURCES: Mapping[Name, str] = {
    "claim": "CLAIM, 2024 update: Tejani et al. 2024, doi:10.1148/ryai.240300",
    "tripod-ai": "TRIPOD+AI: Collins et al. 2024, doi:10.1136/bmj-2023-078378",
    "stard-ai": "STARD-AI: Sounderajah et al. 2025, doi:10.1038/s41591-025-03953-8",
}
"""Checklist -> its publication."""

YOU = "you must say"
"""Mark of what no record of the run holds."""

STATEMENTS: Mapping[str, Callable[[RunFacts], Statement | None]] = {
    name: function
    for module in (about_data, about_model, about_results)
    for name, function in vars(module).items()
    if getattr(function, "__module__", None) == module.__name__ and callable(function)
}
"""Name, as the tables have it -> the function that states it."""


@dataclasses.dataclass(frozen=True)
class Item:
    """One item of a checklist."""

    number: str
    """As published, e.g. "12c"."""

    section: str
    title: str
    facts: tuple[str, ...]
    """Names of `STATEMENTS` that answer it."""

    you: str
    """What only the author can say; empty if the statements answer the item."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """An item, and what the records of a run hold of it."""

    item: Item
    statements: tuple[Statement, ...]
    missing: bool
    """Whether a record that could answer the item is missing."""

    @property
    def status(self) -> str:
        """Whether the records answer the item wholly, in part, or not at all."""
        if not self.statements:
            return YOU
        return "in part" if self.item.you or self.missing else "from the run"

    @property
    def text(self) -> str:
        """The statements, then what is left for the author."""
        left = [f"{YOU}: {self.item.you}"] if self.item.you else [YOU] if self.missing else []
        return " ".join([*(statement.text for statement in self.statements), *left])

    @property
    def source(self) -> str:
        """Files and fields of the statements."""
        return "; ".join(dict.fromkeys(source for each in self.statements for source in each.sources)) or "-"


def read_items(name: Name) -> list[Item]:
    """Return the items of a checklist in their order."""
    path = Path(__file__).with_name(f"{name.replace('-', '_')}.csv")
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Item(row["item"], row["section"], row["title"], tuple(row["facts"].split()), row["you"])
            for row in csv.DictReader(file)
        ]


def state(run: RunFacts, name: str) -> Statement | None:
    """Return a statement about a run; None if its records hold nothing of it.

    Raises:
        BadArtifact: a record or JSON file has other content than its schema states.
    """
    try:
        found = STATEMENTS[name](run)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise BadArtifact(f"{run.run}: a record breaks its schema ({name}: {reason}): run the stages again") from None
    if found is None or LARGE not in run.content:
        return found
    return Statement(found.text, tuple(source.replace(PREDICTIONS, LARGE) for source in found.sources))


def fill(run: RunFacts, items: Iterable[Item]) -> list[Answer]:
    """Return the answer to each item."""
    answers = []
    for item in items:
        found = [state(run, name) for name in item.facts]
        known = tuple(statement for statement in found if statement is not None)
        answers.append(Answer(item, known, missing=len(known) < len(found) or not (found or item.you)))
    return answers


def to_page(name: Name, answers: list[Answer]) -> str:
    """Return a filled checklist as Markdown."""
    counts = {status: sum(answer.status == status for answer in answers) for status in ("from the run", "in part", YOU)}
    sections = [
        Section(
            "How to use this page",
            [
                Note(f"{count(len(answers), 'item')}: " + ", ".join(f"{n} {status}" for status, n in counts.items())),
                Text(f"{SOURCES[name]}. Item titles are short forms: read the published wording before you submit."),
                Bullets(
                    [
                        "from the run: the records answer the item.",
                        f"in part: complete what follows '{YOU}'.",
                        f"{YOU}: no record of the run holds anything of it.",
                    ]
                ),
            ],
        )
    ]
    for title in dict.fromkeys(answer.item.section for answer in answers):
        rows = [
            [answer.item.number, answer.item.title, answer.status, answer.text, answer.source]
            for answer in answers
            if answer.item.section == title
        ]
        sections.append(Section(title, [Table(["item", "title", "status", "answer", "source"], rows, left=5)]))
    return to_markdown(Document(f"Checklist {SOURCES[name].partition(':')[0]}", sections))
