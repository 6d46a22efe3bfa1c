"""Write the measurements: a table, a page, and their record."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.benchmark.config import BenchConfig
from pipeline.benchmark.hardware import describe
from pipeline.benchmark.measurement import Measurement, to_csv
from pipeline.markup.document import Bullets, Document, Section, Table, Text, to_markdown
from pipeline.markup.number_format import NOT_AVAILABLE
from pipeline.storage import atomic, environment, records

SCHEMA = "bench/1.0"

NETWORK = (
    "Inputs are batches of uint8 tiles in memory; moving them to the device, scaling and normalising count. plain: "
    "torchvision's network as a script would run it, fp32, NCHW, eager; embedding by batches of 64 in eval mode under "
    "inference_mode, training by torch's Adam. limit: a matrix product's rate over a tile's operations; the column "
    "'of the limit' compares with that of the row's own precision."
)

HEADINGS = {
    "limits": "Limits of the machine",
    "embed": "Embedding",
    "train": "Training",
    "svm": "SVM search",
    "xgboost": "XGBoost",
}
"""Part of the table -> heading, in the order of the page."""

EXPLANATIONS = {
    "limits": "Products of large square matrices, two operations per multiplication and addition; memory copied to "
    "memory, each byte counted as read and as written.",
    "embed": NETWORK,
    "train": NETWORK + " A training step costs three forward passes. torch bf16 channels_last, eager: the same loop "
    "under torch's autocast.",
    "svm": "Synthetic embeddings. Both searches score the same points on the same folds with the same number of cores. "
    "They choose by accuracy here, as GridSearchCV does; fit_heads chooses by log-loss.",
    "xgboost": "Synthetic embeddings. log-loss is that of validation rows, uncalibrated.",
}

HEADS = ("what", "precision", "unit", "batch", "median", "range", "n", "times plain", "of the limit", "note")

METHOD = (
    "Medians of rounds in which everything alternates (A B C A B C); 'range' is the lowest and the highest "
    "round, n their number. 'times plain' and 'of the limit' are medians of the ratios within each round."
)


def number(value: float) -> str:
    """Return a value with four digits."""
    if math.isnan(value):
        return NOT_AVAILABLE
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def cells(row: Measurement) -> list[str]:
    """Return a row's cells in the order of `HEADS`."""
    low, high = min(row.values), max(row.values)
    return [
        row.what,
        row.precision,
        row.unit,
        "" if row.batch is None else str(row.batch),
        number(row.median),
        f"{number(low)} to {number(high)}" if len(row.values) > 1 else "",
        str(len(row.values)),
        "" if row.ratio is None else f"{row.ratio:.2f}",
        "" if row.share is None else f"{100 * row.share:.1f} %",
        row.note,
    ]


def table_of(rows: Sequence[Measurement]) -> Table:
    """Return the rows of a part as a table without the columns that would be empty."""
    filled = [cells(row) for row in rows]
    used = [column for column in range(len(HEADS)) if any(line[column] for line in filled)]
    left = sum(column < 3 for column in used)
    return Table([HEADS[i] for i in used], [[line[i] for i in used] for line in filled], left=left)


def to_page(title: str, table: Sequence[Measurement], *, facts: Sequence[str]) -> str:
    """Return the page as Markdown."""
    sections = []
    for part, heading in HEADINGS.items():
        rows = [row for row in table if row.part == part]
        if rows:
            sections.append(Section(heading, [Text(EXPLANATIONS[part]), table_of(rows)]))
    sections.append(Section("Machine, versions, command", [Text(METHOD), Bullets(facts)]))
    return to_markdown(Document(title, sections))


def facts(config: BenchConfig, options: Mapping[str, Any]) -> list[str]:
    """Return the facts that readers need to compare or repeat the figures."""
    words = [
        f"--{name.replace('_', '-')} {'' if value is True else value}".strip()
        for name, value in options.items()
        if value
    ]
    state = environment.git_state()
    commit = "not in a checkout" if state is None else state["commit"] + (", changed since" if state["dirty"] else "")
    versions = ", ".join(f"{name} {version}" for name, version in environment.versions().items() if version)
    return [
        *describe(config.device, config.threads),
        f"Versions: {versions}",
        f"Commit: {commit}",
        f"Date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "Command: " + " ".join(["python -m pipeline.bench", *words]),
    ]


def write_bench(path: Path, table: Sequence[Measurement], *, config: BenchConfig, options: Mapping[str, Any]) -> str:
    """Write the table, the page next to it and the record; return the page.

    Args:
        path: path of the table, `<name>.csv`.
        table: at least one row.
        config: how it was measured.
        options: options of the command, as plain values.
    """
    text = to_page(f"Bench: {path.stem}", table, facts=facts(config, options))
    page = path.with_suffix(".md")
    atomic.write_text(path, to_csv(table))
    atomic.write_text(page, text)
    artifact = records.Artifact(path, SCHEMA, "bench", options, seed=config.seed)
    records.write_record(artifact, outputs=[page], device=str(config.device))
    return text
