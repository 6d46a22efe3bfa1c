"""What was measured as a page: targets first, then every table, then how."""

import math
from collections.abc import Sequence

from pipeline.benchmark.measurement import Measurement
from pipeline.benchmark.targets import Verdict
from pipeline.markup.document import Bullets, Document, Figure, Section, Table, Text, to_markdown
from pipeline.markup.number_format import NOT_AVAILABLE

TITLES = {
    "ceilings": "Ceilings of the machine",
    "embed": "Embedding",
    "agreement": "Agreement with fp32",
    "train": "Trainer",
    "svm": "SVM search",
    "xgboost": "XGBoost",
    "hdf5": "Writing embeddings",
}
"""Part of the table -> heading, in order."""

SHARE_OF = {"hdf5": "of an extraction"}
"""Heading of the column `share`; of all others the machine's limit."""

NETWORK = (
    "Inputs are batches of uint8 tiles in memory; moving them to the device, scaling and normalising count. plain: "
    "torchvision's network as a script would run it, fp32, NCHW, eager; embedding by batches of 64 in eval mode under "
    "inference_mode, training by torch's Adam. limit: a matrix product's rate over a tile's operations; the column "
    "'of the limit' is held against that of the row's own precision."
)

EXPLAINED = {
    "ceilings": "Products of large square matrices, two operations per multiplication and addition; memory copied to "
    "memory, each byte counted as read and as written.",
    "embed": NETWORK,
    "agreement": "cosine: between the features of all tiles, less the mean of the fp32 features, as one vector. same "
    "class: share of the tiles whose largest logit is that of the same class. accuracy: of an SVM, fitted on fp32 "
    "features of other tiles, less its accuracy on fp32 features.",
    "train": NETWORK + " A step's limit is a third of the forward pass's.",
    "svm": "Synthetic embeddings. Both searches score the same points on the same folds with as many cores, and choose "
    "by accuracy here, as GridSearchCV does; fit_heads chooses by log-loss.",
    "xgboost": "Synthetic embeddings. log-loss is that of validation rows, uncalibrated.",
    "hdf5": "Rows appended batch by batch to the scratch that survives a kill, then the HDF5 file built and synced.",
}


def number(value: float) -> str:
    """Return a value with the digits that matter: four, or all that tell a share from 1."""
    if math.isnan(value):
        return NOT_AVAILABLE
    return f"{value:.5f}" if 0.99 < value < 1 else f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


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


HEADS = ("what", "precision", "unit", "batch", "median", "range", "n", "times plain", "of the limit", "note")


def agreement_table(rows: Sequence[Measurement]) -> Table:
    """Return one line for each engine and precision, with what its rows say side by side."""
    lines: dict[tuple[str, str], dict[str, Measurement]] = {}
    for row in rows:
        lines.setdefault((row.what, row.precision), {})[row.unit] = row
    head = ["what", "precision", "batch", "cosine", "same class", "accuracy, points", "notes"]
    return Table(
        head,
        [
            [
                *key,
                str(line["cosine"].batch),
                f"{line['cosine'].median:.5f}",
                f"{100 * line['share of tiles'].median:.2f} %",
                f"{line['points'].median:+.2f}",
                "; ".join(row.note for row in line.values() if row.note),
            ]
            for key, line in lines.items()
        ],
        left=2,
    )


def table_of(part: str, rows: Sequence[Measurement]) -> Table:
    """Return the rows of a part as a table without the columns that would be empty."""
    if part == "agreement":
        return agreement_table(rows)
    engines = list(dict.fromkeys((row.what, row.precision) for row in rows))
    rows = sorted(rows, key=lambda row: (engines.index((row.what, row.precision)), row.batch or 0))
    filled = [cells(row) for row in rows]
    used = [column for column in range(len(HEADS)) if any(line[column] for line in filled)]
    heads = [SHARE_OF.get(part, name) if name == "of the limit" else name for name in HEADS]
    left = sum(column < 3 for column in used)
    return Table([heads[i] for i in used], [[line[i] for i in used] for line in filled], left=left)


def to_page(
    title: str,
    table: Sequence[Measurement],
    *,
    verdicts: Sequence[Verdict],
    facts: Sequence[str],
    remarks: Sequence[str],
    figure: str | None,
) -> str:
    """Return the page as Markdown.

    Args:
        title: heading.
        table: all rows.
        verdicts: on the targets.
        facts: lines on machine, versions, command.
        remarks: lines on what is missing or was done smaller.
        figure: name of the PNG beside the page, if one was drawn.
    """
    opening: list[Text | Bullets] = [Bullets([verdict.line for verdict in verdicts])]
    if remarks:
        opening += [Text("To be read with this:"), Bullets(remarks)]
    sections = [Section("Targets", opening)]
    if figure:
        sections.append(Section("Figure", [Figure(figure, "Rates measured on this machine", "Medians of the rounds.")]))
    for part, heading in TITLES.items():
        rows = [row for row in table if row.part == part]
        if rows:
            sections.append(Section(heading, [Text(EXPLAINED[part]), table_of(part, rows)]))
    how = (
        "Medians of rounds in which everything is measured in turn (A B C A B C); 'range' is the lowest and the "
        "highest round, n their number. 'times plain' and 'of the limit' are medians of the ratios within each round."
    )
    sections.append(Section("Machine, versions, command", [Text(how), Bullets(facts)]))
    return to_markdown(Document(title, sections))
