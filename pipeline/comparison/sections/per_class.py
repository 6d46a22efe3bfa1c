"""Write the sections on classes, confusions, the map of the embeddings and the worst errors."""

import numpy as np

from pipeline.comparison.report_data import ReportData
from pipeline.comparison.report_figures import predictions_for
from pipeline.evaluation import metrics
from pipeline.markup.document import Block, EmptySection, Figure, Section, Table, Text
from pipeline.markup.number_format import count, head_name, number, percent

MOST_PAIRS = 10
"""Most confused pairs in the table."""


def per_class(data: ReportData) -> Section:
    """Return precision, recall and F1 of every class."""
    predictions = data.predictions
    support = np.bincount(predictions.y[predictions.rows("test")], minlength=len(predictions.classes))
    rows = [
        [
            name,
            str(support[code]),
            *(
                " / ".join(data.value(head, "test", f"{metric}[{name}]", 2) for metric in ("precision", "recall", "f1"))
                for head in predictions.main_heads
            ),
        ]
        for code, name in enumerate(predictions.classes)
    ]
    caption = (
        f"{data.bias_note}Test rows ({data.test_rows}); precision / recall / F1 of each head. Precision: share of the "
        "tiles predicted as this class that are of this class. Recall: share of the tiles of this class that are "
        "predicted as it."
    )
    best = data.best_head
    f1 = np.array([data.scores[best, "test", f"f1[{name}]"].value for name in predictions.classes])
    worst = int(np.nanargmin(f1))
    headline = f"{head_name(best)} is weakest on {predictions.classes[worst]}: F1 {number(f1[worst], 2)}."
    table = Table(["class", "rows", *data.head_names], rows, caption)
    return Section("Classes", [Text(headline), data.figures["classes"], table])


def confusions(data: ReportData) -> Section:
    """Return the confusion matrices, and the pairs that are confused most over all heads."""
    predictions = data.predictions
    rows = predictions.rows("test")
    y, names = predictions.y[rows], predictions.classes
    support = np.bincount(y, minlength=len(names))
    counts: dict[tuple[int, int], dict[str, int]] = {}
    for head in predictions.main_heads:
        matrix = metrics.confusion(y, predictions.predicted[head][rows], len(names))
        for true, predicted, n, _ in metrics.most_confused(matrix):
            counts.setdefault((true, predicted), {})[head] = n
    worst = sorted(counts, key=lambda pair: (-sum(counts[pair].values()), pair))[:MOST_PAIRS]
    if not worst:
        return Section(
            "Confusions", [Text("No head confuses any classes on the test rows."), data.figures["confusion"]]
        )
    table = [
        [
            names[true],
            names[predicted],
            *(
                f"{n} ({percent(n / support[true])})" if (n := counts[true, predicted].get(head, 0)) else "0"
                for head in predictions.main_heads
            ),
        ]
        for true, predicted in worst
    ]
    caption = f"{data.bias_note}Most confused pairs: test rows, and their share of the true class."
    true, predicted = worst[0]
    shares = ", ".join(
        f"{head_name(head)} {percent(counts[true, predicted].get(head, 0) / support[true])}"
        for head in predictions.main_heads
    )
    headline = f"Most confused: {names[true]}, predicted as {names[predicted]} (share of the true class: {shares})."
    columns = ["true class", "predicted as", *data.head_names]
    return Section("Confusions", [Text(headline), data.figures["confusion"], Table(columns, table, caption, left=2)])


def embedding_map(data: ReportData) -> Section | EmptySection:
    """Return the map of the embeddings."""
    title = "Map of the embeddings"
    if data.protocol is not None:
        reason = (
            "Every part of the plan has its own network and embedding space; the report on a part's folder draws it."
        )
        return EmptySection(title, reason)
    if isinstance(data.map, str):
        return EmptySection(title, data.map)
    return Section(title, [Text("Classes that the network separates are separate clusters here."), data.map.figure])


def worst_errors(data: ReportData) -> Section:
    """Return the test tiles that a head misclassifies with the highest probability."""
    predictions = data.predictions
    rule = (
        f"{count(len(data.worst), 'test tile')}, misclassified with the highest probability of the predicted class, "
        "the worst first."
    )
    blocks: list[Block] = [Text(rule)] if data.worst else []
    blocks.append(data.gallery if isinstance(data.gallery, Figure) else Text(data.gallery))
    rows = []
    for error in data.worst:
        tile = predictions.tiles.iloc[error.row]
        found = [
            f"{each.predicted} ({number(each.probability, 2)})" for each in predictions_for(predictions, error.row)
        ]
        rows.append([tile["tile_id"], tile["label"], *found])
    if rows:
        head = ["tile", "true class", *data.head_names]
        blocks.append(Table(head, rows, "Prediction of each head, and its probability.", left=len(head)))
    return Section("Worst errors", blocks)
