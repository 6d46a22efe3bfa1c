"""The second part of the report: classes, confusions, calibration, embeddings, single tiles."""

import numpy as np

from pipeline.comparison.report_data import ReportData
from pipeline.comparison.report_figures import answers_of
from pipeline.evaluation import metrics
from pipeline.markup.document import Block, Figure, Section, Table, Text
from pipeline.markup.number_format import count, number, percent

MOST_PAIRS = 10
"""Confused pairs that are listed."""


def per_class(material: ReportData) -> Section:
    """Precision, recall and F1 of every class."""
    predictions = material.predictions
    support = np.bincount(predictions.y[predictions.rows("test")], minlength=len(predictions.classes))
    rows = [
        [
            name,
            str(support[code]),
            *(
                " / ".join(
                    material.value(head, "test", f"{metric}[{name}]", 2) for metric in ("precision", "recall", "f1")
                )
                for head in predictions.main_heads
            ),
        ]
        for code, name in enumerate(predictions.classes)
    ]
    caption = (
        f"{material.flattering}Test rows ({material.test_rows}); precision / recall / F1 of each head. "
        "Precision: of the tiles named so, the "
        "share that is right. Recall: of the tiles of the class, the share that is found."
    )
    return Section(
        "Classes", [material.figures["classes"], Table(["class", "rows", *material.head_names], rows, caption)]
    )


def confusions(material: ReportData) -> Section:
    """Confusion matrices and the pairs that are confused most, over all heads."""
    predictions = material.predictions
    rows = predictions.rows("test")
    y, names = predictions.y[rows], predictions.classes
    support = np.bincount(y, minlength=len(names))
    counts: dict[tuple[int, int], dict[str, int]] = {}
    for head in predictions.main_heads:
        matrix = metrics.confusion(y, predictions.predicted[head][rows], len(names))
        for true, named, n, _ in metrics.most_confused(matrix):
            counts.setdefault((true, named), {})[head] = n
    worst = sorted(counts, key=lambda pair: (-sum(counts[pair].values()), pair))[:MOST_PAIRS]
    table = [
        [
            names[true],
            names[named],
            *(
                f"{n} ({percent(n / support[true])})" if (n := counts[true, named].get(head, 0)) else "0"
                for head in predictions.main_heads
            ),
        ]
        for true, named in worst
    ]
    caption = f"{material.flattering}Most confused pairs: test rows, and their share of the true class."
    pairs = (
        Table(["true class", "named as", *material.head_names], table, caption, left=2)
        if table
        else Text("No head confuses any classes on the test rows.")
    )
    return Section("Confusions", [material.figures["confusion"], pairs])


def embedding_map(material: ReportData) -> Section:
    """The map of the embeddings."""
    shown = material.map
    if material.protocol is not None:
        shown = (
            "n/a: every part of the plan has a network, and so a space, of its own; a report on a part's own folder "
            "draws its map."
        )
    return Section("Map of the embeddings", [shown if isinstance(shown, Figure) else Text(shown)])


def worst_errors(material: ReportData) -> Section:
    """The test tiles on which a head errs with most confidence."""
    predictions = material.predictions
    rule = (
        f"The {count(len(material.worst), 'test tile')} on which a head is wrong with the highest probability for "
        "the class it names, the worst first."
    )
    blocks: list[Block] = [Text(rule)] if material.worst else []
    blocks.append(material.gallery if isinstance(material.gallery, Figure) else Text(material.gallery))
    rows = []
    for error in material.worst:
        tile = predictions.tiles.iloc[error.row]
        answers = [f"{answer.named} ({number(answer.probability, 2)})" for answer in answers_of(predictions, error.row)]
        rows.append([tile["tile_id"], tile["label"], *answers])
    if rows:
        head = ["tile", "true class", *material.head_names]
        blocks.append(Table(head, rows, "Each head's answer and its probability.", left=len(head)))
    return Section("Worst errors", blocks)
