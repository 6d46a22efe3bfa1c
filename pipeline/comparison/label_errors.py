"""Tiles whose label may be wrong: ranked by what heads say that were not trained on them.

Confident learning: Northcutt, Jiang and Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels",
JAIR 70, in the implementation of cleanlab (extra `audit`).
"""

import importlib.util
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.comparison.predictions import Predictions
from pipeline.comparison.report_data import ReportData
from pipeline.comparison.report_figures import tile_reader
from pipeline.figures.gallery import Answer, Picture, draw_gallery
from pipeline.markup.document import Block, Figure, Note, Section, Table, Text
from pipeline.markup.number_format import NOT_AVAILABLE, count, head_name, listing, number
from pipeline.storage.csv_files import no_formula
from pipeline.tiles.manifest import Manifest

FIGURE = "label_errors.png"
"""Everything that this module may draw."""

COLUMNS = ("tile_id", "group", "label", "suggested", "self_confidence", "is_issue", "rank")
LEAST_RANKED = 20
"""Tiles that are ranked at least, whether they are taken for errors or not."""

MOST_LISTED = 20
"""Rows of the report's table; the CSV file has all."""

MISSING = "n/a: the package cleanlab is not installed: pip install 'histoheads[audit]', then run the report again."

WARNING = (
    "A disagreement of the heads is no proof: look at the tile before a label is changed. All heads share one "
    "network, so that what it cannot see they miss together; tiles of classes that it cannot learn, that resemble each "
    "other or that hold two tissues rank high with a right label. No label was changed anywhere."
)


def probabilities(predictions: Predictions) -> tuple[pd.DataFrame, np.ndarray]:
    """Return each test tile once (tile_id, group, label) and its probabilities (N, K); of a large table of a sample.

    These are means over the main heads and the seeds; no head was trained on the rows they come from.
    """
    rows = predictions.sample("test").rows
    mean = np.mean([predictions.probabilities(head, rows) for head in predictions.main_heads], axis=0)
    tiles = predictions.tiles.iloc[rows].reset_index(drop=True)
    codes, ids = pd.factorize(tiles["tile_id"])
    p = np.column_stack([np.bincount(codes, weights=column) for column in mean.T]) / np.bincount(codes)[:, None]
    first = tiles.drop_duplicates("tile_id")[["tile_id", "group", "label"]].reset_index(drop=True)
    assert list(first["tile_id"]) == list(ids)  # noqa: S101
    return first, p


def find_suspects(predictions: Predictions) -> pd.DataFrame | str:
    """Return the ranked suspects, or the sentence that says why there are none.

    Returns:
        Columns `COLUMNS`: the tiles that confident learning takes for errors and, where these are fewer than
        `LEAST_RANKED`, those with the least self-confidence (probability of the given label); issues first, each
        kind by its self-confidence, rank 1 first.
    """
    if importlib.util.find_spec("cleanlab") is None:
        return MISSING
    tiles, p = probabilities(predictions)
    codes = {name: code for code, name in enumerate(predictions.classes)}
    y = tiles["label"].map(codes).to_numpy(dtype=np.int64)
    if len(np.unique(y)) < 2:
        return "n/a: the test rows are all of one class, so that no label contradicts another."
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    with warnings.catch_warnings():
        # small or absent classes: cleanlab flags nothing there, and the section says what is covered
        warnings.simplefilter("ignore")
        is_issue = find_label_issues(y, p, filter_by="confident_learning", n_jobs=1)
        confidence = get_label_quality_scores(y, p, method="self_confidence")
    order = np.lexsort((np.arange(len(y)), confidence, ~is_issue))
    order = order[: max(LEAST_RANKED, int(is_issue.sum()))]
    return tiles.iloc[order].assign(
        suggested=np.array(predictions.classes, dtype=object)[p[order].argmax(axis=1)],
        self_confidence=confidence[order],
        is_issue=is_issue[order],
        rank=np.arange(1, len(order) + 1),
    )[list(COLUMNS)]


def to_csv(suspects: pd.DataFrame | str) -> str | None:
    """Return label_errors.csv, or None where there are no suspects but a reason."""
    if isinstance(suspects, str):
        return None
    texts = {name: suspects[name].map(no_formula) for name in ("tile_id", "group", "label", "suggested")}
    return suspects.assign(**texts).to_csv(index=False, float_format="%.6g", lineterminator="\n")


def draw_suspects(path: Path, suspects: pd.DataFrame, predictions: Predictions, manifest: Manifest, *, n: int) -> str:
    """Draw the first n suspects; return "" or the sentence that says why there is no picture.

    Below each tile stands what every head says of it, the mean over the seeds.
    """
    shown = suspects.head(n)
    files = manifest.table.set_index("tile_id")
    read = tile_reader(manifest)
    test = predictions.sample("test").rows
    ids = predictions.tiles["tile_id"].iloc[test].reset_index(drop=True)
    pictures = []
    for tile_id, label in zip(shown["tile_id"], shown["label"], strict=True):
        rows = test[np.flatnonzero(ids.eq(tile_id))]
        answers = []
        for head in predictions.main_heads:
            p = predictions.probabilities(head, rows).mean(axis=0)
            named = predictions.classes[code := int(p.argmax())]
            answers.append(Answer(head_name(head), named, float(p[code]), right=named == label))
        pixels = read(files.loc[tile_id, "path"], files.loc[tile_id, "sha256"]) if tile_id in files.index else None
        pictures.append(Picture(pixels, truth=label, answers=answers))
    if all(picture.pixels is None for picture in pictures):
        return "n/a: none of these tiles can be read any more as manifest.csv names them."
    draw_gallery(path, pictures)
    return ""


def section(material: ReportData) -> Section:
    """Return the section; its gallery is drawn into the run's folder unless no tile may be shown."""
    title = "Likely label errors"
    suspects, predictions = material.suspects, material.predictions
    if isinstance(suspects, str):
        return Section(title, [Text(suspects)])
    tiles, _ = probabilities(predictions)
    n_issues = int(suspects["is_issue"].sum())
    n_seeds = predictions.tiles.loc[predictions.rows("test"), "seed"].nunique()
    how = "the mean over " + listing([head_name(head) for head in predictions.main_heads])
    how += f" and {count(n_seeds, 'seed')}" if n_seeds > 1 else ""
    covered = predictions.sample("test").note or (
        f"Only the {count(len(tiles), 'test tile')} of this split are covered, for of the others no out-of-sample "
        "probability is known: a plan with folds tests every tile."
        if material.protocol is None
        else f"All {count(len(tiles), 'tested tile')} of the plan are covered, each by networks that never saw it."
    )
    found = (
        f"Confident learning takes {count(n_issues, 'tile')} of {len(tiles)} for likely label errors, from "
        f"out-of-sample probabilities ({how}). {covered} The ranking with {count(len(suspects), 'tile')} is "
        "label_errors.csv; it is made from the test rows after everything was fitted, so that a corrected label needs "
        "a new run."
    )
    if not n_issues:
        return Section(title, [Text(found)])
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
        f"{material.flattering}The first {len(rows)} of the ranking: tiles taken for errors first, then those whose "
        "own label the heads find least likely (self-confidence)."
    )
    head = ["rank", "tile", "group", "label", "heads say", "likely error", "self-confidence"]
    blocks: list[Block] = [Note(WARNING), Text(found)]
    return Section(title, [*blocks, _gallery(material, suspects), Table(head, rows, caption, left=6)])


def _gallery(material: ReportData, suspects: pd.DataFrame) -> Block:
    n = int(material.options["gallery"])
    if n == 0:
        return Text("Gallery: not asked for (--gallery 0).")
    if material.context.manifest is None:
        return Text(material.context.reason("manifest.csv"))
    path = material.run / "figures" / FIGURE
    reason = draw_suspects(path, suspects, material.predictions, material.context.manifest, n=n)
    if reason:
        return Text(reason)
    return Figure(
        f"figures/{FIGURE}",
        "Gallery of the tiles whose label is most doubtful, with each head's answer",
        "The label stands above each tile, the heads' answers with their probabilities below; a tick agrees with the "
        "label, a cross speaks against it.",
    )
