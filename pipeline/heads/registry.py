"""Name the code of every head of `names.HEADS`; a new head or baseline gets its entry here."""

from collections.abc import Mapping

from pipeline.heads.baselines import (
    BLOCK_POINTS,
    HANDCRAFTED_POINTS,
    HISTOGRAM_POINTS,
    NEIGHBOURS,
    Majority,
    Neighbours,
    NeighboursKind,
    untrained_points,
)
from pipeline.heads.kind import HeadKind, PlainKind, SavedKind
from pipeline.heads.logistic import LogisticKind
from pipeline.heads.svm.kind import SvmKind
from pipeline.heads.svm.search import fused_points
from pipeline.heads.xgb.kind import BoostingKind

SAVED_KINDS: Mapping[str, SavedKind] = {
    "logistic": LogisticKind(),
    "svm": SvmKind(),
    "xgboost": BoostingKind(),
    "fused_svm": SvmKind(fused_points),
    "fused_xgboost": BoostingKind(),
    "histogram_svm": SvmKind(lambda _: list(HISTOGRAM_POINTS), standardise=False),
    "handcrafted_xgboost": BoostingKind(HANDCRAFTED_POINTS),
    "histogram_handcrafted_svm": SvmKind(lambda _: list(BLOCK_POINTS)),
    "untrained_svm": SvmKind(untrained_points),
    "linear": LogisticKind(),
}
"""Heads and baselines with a file of their own."""

KINDS: Mapping[str, HeadKind] = {
    **SAVED_KINDS,
    "majority": PlainKind(lambda rows, _: Majority(rows), [{}]),
    "knn": NeighboursKind(lambda rows, _: Neighbours(rows), [{"neighbours": NEIGHBOURS}]),
}
"""All that are fitted; those of `names.MEANS` are averages of these."""
