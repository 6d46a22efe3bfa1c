"""Rank the tiles whose label may be wrong, by the probabilities of heads that were not trained on them.

Confident learning: Northcutt, Jiang and Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels",
JAIR 70, in the implementation of cleanlab (extra `audit`).
"""

import importlib.util
import warnings

import numpy as np
import pandas as pd

from pipeline.comparison.predictions import Predictions
from pipeline.storage.csv_files import no_formula

COLUMNS = ("tile_id", "group", "label", "suggested", "self_confidence", "is_issue", "rank")
LEAST_RANKED = 20
"""Smallest number of tiles that are ranked, whether they are likely errors or not."""

MISSING = "The package cleanlab is not installed: pip install 'histoheads[audit]', then run the report again."


def mean_probabilities(predictions: Predictions) -> tuple[pd.DataFrame, np.ndarray]:
    """Return each test tile once (tile_id, group, label) and its probabilities (N, K); for a large table, of a sample.

    Probabilities are means over the single heads and the seeds; no head was trained on the rows they come from.
    """
    rows = predictions.sample("test").rows
    mean = np.mean([predictions.probabilities(head, rows) for head in predictions.single_heads], axis=0)
    tiles = predictions.tiles.iloc[rows].reset_index(drop=True)
    codes, ids = pd.factorize(tiles["tile_id"])
    p = np.column_stack([np.bincount(codes, weights=column) for column in mean.T]) / np.bincount(codes)[:, None]
    first = tiles.drop_duplicates("tile_id")[["tile_id", "group", "label"]].reset_index(drop=True)
    assert list(first["tile_id"]) == list(ids)  # noqa: S101
    return first, p


def find_suspects(predictions: Predictions) -> pd.DataFrame | str:
    """Return the ranked suspects, or the sentence on why there are none.

    Returns:
        Columns `COLUMNS`: the likely errors by confident learning and, if these are fewer than `LEAST_RANKED`, the
        tiles with the least self-confidence (probability of the given label); issues first, each kind by its
        self-confidence, rank 1 first.
    """
    if importlib.util.find_spec("cleanlab") is None:
        return MISSING
    tiles, p = mean_probabilities(predictions)
    codes = {name: code for code, name in enumerate(predictions.classes)}
    y = tiles["label"].map(codes).to_numpy(dtype=np.int64)
    if len(np.unique(y)) < 2:
        return "All test rows are of one class, so that no label contradicts another."
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    with warnings.catch_warnings():
        # small or absent classes: cleanlab flags nothing there, and the section states what is covered
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
    """Return label_errors.csv, or None if there is only a reason for having no suspects."""
    if isinstance(suspects, str):
        return None
    texts = {name: suspects[name].map(no_formula) for name in ("tile_id", "group", "label", "suggested")}
    return suspects.assign(**texts).to_csv(index=False, float_format="%.6g", lineterminator="\n")
