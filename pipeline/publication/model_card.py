"""Write the model card of a run: README.md with the front matter of Hugging Face, from the records of the run only."""

import json
import math
from collections.abc import Iterable
from typing import Any

from pipeline.comparison.scores import Score
from pipeline.comparison.sections.overview import METRIC_ROWS
from pipeline.markup.document import Block, Bullets, Document, Note, Section, Table, to_markdown
from pipeline.markup.number_format import head_name, interval, level_text
from pipeline.publication.checklist import YOU, state
from pipeline.publication.run_facts import RunFacts
from pipeline.publication.statement import COMPARISON, MANIFEST, value_text

HUB_METRICS = {"macro_f1": "f1", "accuracy": "accuracy", "balanced_accuracy": "balanced_accuracy"}
"""Metric -> its type on the Hub, of those in the front matter."""

SECTIONS = {
    "Model": ("method", "model", "preprocessing", "output", "initialisation"),
    "Training data": ("data", "excluded", "missing", "resolution", "classes", "assignment", "disjoint", "class_counts"),
    "Training": ("training", "selection", "ensembling"),
    "Evaluation": ("internal", "uncertainty", "baselines", "per_class", "groups", "failures", "robustness"),
    "Limits": ("limitations",),
    "Files and versions": ("prediction", "availability", "audit_trail", "software"),
}
"""Section -> names of the statements in it."""

LEFT = {
    "Model": "what the model is for, and who uses it",
    "Training data": "where the slides come from, and who labelled them",
    "Limits": "uses that you exclude",
}
"""Section -> what only the author can say."""


def model_card(run: RunFacts) -> str:
    """Return the card: front matter, then what the records state, with files and fields.

    Raises:
        BadArtifact: a record breaks its schema.
    """
    sections = []
    for title, names in SECTIONS.items():
        found = [statement for name in names if (statement := state(run, name)) is not None]
        blocks: list[Block] = [Bullets([f"{each.text} Source: {'; '.join(each.sources)}." for each in found])]
        if title == "Evaluation":
            blocks.insert(0, _scores_table(run))
        if title == "Limits":
            blocks.insert(0, Note("For research use only: not a medical device, not for diagnosis."))
        if title in LEFT:
            blocks.append(Bullets([f"{YOU}: {LEFT[title]}"]))
        sections.append(Section(title, blocks))
    licence = run.get(MANIFEST, "details", "licence") or "not recorded"
    terms = [f"Licence of the model: {YOU}, and state it in the front matter.", f"Licence of the data: {licence}."]
    sections.append(Section("Licence", [Bullets(terms)]))
    return f"---\n{_front_matter(run)}---\n\n{to_markdown(Document(_name(run), sections))}"


def _name(run: RunFacts) -> str:
    return run.run.resolve().name


def _scores_table(run: RunFacts) -> Table:
    """Return each metric of each main head on the test rows."""
    rows = [
        [name, *(value_text(run.score(head, metric)) for head in run.heads)]
        for metric, (name, _) in METRIC_ROWS.items()
    ]
    protocol = run.get(COMPARISON, "details", "protocol")
    unit = run.get(COMPARISON, "details", "intervals")
    caption = f"Test rows, protocol {protocol}; in parentheses {level_text(run.level)} intervals over each {unit}."
    return Table(["metric", *map(head_name, run.heads)], rows, caption)


def _front_matter(run: RunFacts) -> str:
    """Return the metadata as YAML: each value is JSON, which YAML includes."""
    dataset = str(run.get(MANIFEST, "details", "dataset"))
    results = {
        "task": {"type": "image-classification", "name": "classification of tissue tiles"},
        "dataset": {"type": "image-folder", "name": dataset, "split": "test"},
        "metrics": list(_metrics(run)),
    }
    fields = {
        "license": "other",
        "license_name": "to-be-chosen",
        "license_link": "LICENSE",
        "library_name": "histoheads",
        "pipeline_tag": "image-classification",
        "tags": ["histopathology", "image-classification", "calibration"],
        "metrics": ["f1", "accuracy"],
        "model-index": [{"name": _name(run), "results": [results]}],
    }
    return "".join(f"{name}: {_json(value)}\n" for name, value in fields.items())


def _metrics(run: RunFacts) -> Iterable[dict[str, Any]]:
    """Yield the metrics of each head with protocol and interval in their names."""
    protocol = run.get(COMPARISON, "details", "protocol")
    for head in run.heads:
        for metric, kind in HUB_METRICS.items():
            score = run.score(head, metric)
            if score is not None and math.isfinite(score.value):
                name = f"{METRIC_ROWS[metric][0]} of {head_name(head)}, {protocol} split{_bounds(run, score)}"
                yield {"type": kind, "name": name, "value": round(score.value, 4)}


def _bounds(run: RunFacts, score: Score) -> str:
    text = interval(score.low, score.high)
    return f", {level_text(run.level)} interval{text}" if text else ""


def _json(value: Any) -> str:
    """Return JSON that a YAML reader takes: without characters that YAML does not allow."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(character if character.isprintable() else "?" for character in text)
