"""What of the table is drawn."""

from collections.abc import Sequence

from pipeline.measuring.measurement import OURS, PLAIN, Measurement, find
from pipeline.measuring.targets import EMBED_RATIO, SVM_RATIO, TRAIN_RATIO, XGBOOST_RATIO, best_engine

Curve = dict[int, tuple[float, float, float]]
"""Batch size -> median, lowest and highest rate."""


def rate_curves(table: Sequence[Measurement]) -> dict[tuple[str, str], Curve]:
    """Return (engine, precision) -> rates of embedding by batch size."""
    curves: dict[tuple[str, str], Curve] = {}
    for row in table:
        if row.part == "embed" and row.what not in (PLAIN, "limit") and row.batch is not None:
            curve = curves.setdefault((row.what, row.precision), {})
            curve[row.batch] = (row.median, min(row.values), max(row.values))
    return curves


def levels(table: Sequence[Measurement]) -> dict[str, float]:
    """Return name -> rate of the plain loop and of the limits of embedding."""
    return {
        f"{row.what} {row.precision}": row.median
        for row in table
        if row.part == "embed" and row.what in (PLAIN, "limit")
    }


def ratios(table: Sequence[Measurement]) -> dict[str, tuple[float, float]]:
    """Return what was done faster -> times as fast as the plain way, and the target."""
    found = {
        "embedding": (best_engine(table), EMBED_RATIO),
        "training": (find(table, "train", OURS), TRAIN_RATIO),
        "SVM search": (find(table, "svm", OURS, "s"), SVM_RATIO),
        "XGBoost": (find(table, "xgboost", OURS, "s"), XGBOOST_RATIO),
    }
    return {
        name: (row.ratio, target) for name, (row, target) in found.items() if row is not None and row.ratio is not None
    }
