"""Write the section on likely label errors."""

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.comparison.label_errors import mean_probabilities
from pipeline.comparison.predictions import Predictions
from pipeline.comparison.report_data import ReportData
from pipeline.comparison.report_figures import tile_reader
from pipeline.figures.gallery import HeadPrediction, Picture, draw_gallery
from pipeline.markup.document import Block, EmptySection, Figure, Note, Section, Table, Text
from pipeline.markup.number_format import NOT_AVAILABLE, count, head_name, listing, number
from pipeline.names import RunFile
from pipeline.tiles.manifest import Manifest

FIGURE = "label_errors.png"
"""The figure that this module draws."""

MOST_LISTED = 20
"""Rows of the report's table; the CSV file has all."""

WARNING = (
    "A disagreement of the heads is no proof: look at the tile before you change a label. All heads share one network "
    "and its blind spots. Tiles of classes that it cannot learn, that resemble each other or that hold two tissues "
    "rank high with a correct label. No label was changed."
)


def section(data: ReportData) -> Section | EmptySection:
    """Return the section; its gallery is drawn into the run's folder unless no tile may be shown."""
    title = "Likely label errors"
    suspects, predictions = data.suspects, data.predictions
    if isinstance(suspects, str):
        return EmptySection(title, suspects)
    n_tiles = len(mean_probabilities(predictions)[0])
    n_issues = int(suspects["is_issue"].sum())
    n_seeds = predictions.tiles.loc[predictions.rows("test"), "seed"].nunique()
    how = "the mean over " + listing([head_name(head) for head in predictions.single_heads])
    how += f" and {count(n_seeds, 'seed')}" if n_seeds > 1 else ""
    covered = predictions.sample("test").note or (
        f"Only the {count(n_tiles, 'test tile')} of this split are covered, because the others have no out-of-sample "
        "probability: a plan with folds tests every tile."
        if data.protocol is None
        else f"All {count(n_tiles, 'tested tile')} of the plan are covered, each by networks that never saw it."
    )
    headline = f"{n_issues} of {count(n_tiles, 'test tile')} {'is a' if n_issues == 1 else 'are'} likely label "
    headline += f"error{'' if n_issues == 1 else 's'} by confident learning."
    text = Text(
        f"The probabilities are out of sample ({how}). {covered} The ranking of {count(len(suspects), 'tile')} is in "
        "label_errors.csv. It is made from the test rows after everything was fitted, so that a corrected label needs "
        "a new run."
    )
    if not n_issues:
        return Section(title, [Text(headline), text])
    rows = [
        [
            str(row["rank"]),
            row["tile_id"],
            row["group"] or NOT_AVAILABLE,
            row["label"],
            row["suggested"],
            "yes" if row["is_issue"] else "no",
            number(row["self_confidence"]),
        ]
        for row in suspects.head(MOST_LISTED).to_dict("records")
    ]
    caption = (
        f"{data.bias_note}The first {len(rows)} of the ranking: likely errors first, then tiles whose own label the "
        "heads find least likely (self-confidence)."
    )
    head = ["rank", "tile", "group", "label", "predicted", "likely error", "self-confidence"]
    blocks: list[Block] = [Text(headline), Note(WARNING), text]
    return Section(title, [*blocks, _gallery(data, suspects), Table(head, rows, caption, left=6)])


def _gallery(data: ReportData, suspects: pd.DataFrame) -> Block:
    if data.n_gallery == 0:
        return Text("Gallery: not drawn (--gallery 0).")
    if data.files.manifest is None:
        return Text(data.files.reason(RunFile.MANIFEST))
    path = data.run / "figures" / FIGURE
    reason = draw_suspects(path, suspects, data.predictions, data.files.manifest, n=data.n_gallery)
    if reason:
        return Text(reason)
    return Figure(
        f"figures/{FIGURE}",
        "Gallery of the tiles with the most doubtful labels, with the prediction of each head",
        "The label is above each tile, the predictions with their probabilities are below: a tick agrees with the "
        "label, a cross does not.",
    )


def draw_suspects(path: Path, suspects: pd.DataFrame, predictions: Predictions, manifest: Manifest, *, n: int) -> str:
    """Draw the first n suspects; return "" or the sentence on why there is no picture.

    Below each tile is the prediction of every head, the mean over the seeds.
    """
    shown = suspects.head(n)
    files = manifest.table.set_index("tile_id")
    read = tile_reader(manifest)
    test = predictions.sample("test").rows
    ids = predictions.tiles["tile_id"].iloc[test].reset_index(drop=True)
    pictures = []
    for tile_id, label in zip(shown["tile_id"], shown["label"], strict=True):
        rows = test[np.flatnonzero(ids.eq(tile_id))]
        found = []
        for head in predictions.main_heads:
            p = predictions.probabilities(head, rows).mean(axis=0)
            predicted = predictions.classes[code := int(p.argmax())]
            found.append(HeadPrediction(head_name(head), predicted, float(p[code]), correct=predicted == label))
        pixels = read(files.loc[tile_id, "path"], files.loc[tile_id, "sha256"]) if tile_id in files.index else None
        pictures.append(Picture(pixels, label=label, predictions=found))
    if all(picture.pixels is None for picture in pictures):
        return "None of these tiles can be read any more as manifest.csv names them."
    draw_gallery(path, pictures)
    return ""
