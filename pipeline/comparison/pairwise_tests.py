"""Compare two heads on the same test rows: differences, intervals, tests. `verdict` decides by them."""

import dataclasses
import math

import numpy as np

from pipeline.comparison.predictions import Predictions
from pipeline.comparison.scores import Resampling
from pipeline.evaluation.bayesian_bootstrap import Superiority, superiority
from pipeline.evaluation.bootstrap import Difference, paired_counts
from pipeline.evaluation.metrics import confusion, scores_from_confusion
from pipeline.evaluation.significance import ResampledT, SignFlip, corrected_resampled_t, mcnemar_exact, sign_flip
from pipeline.evaluation.validate import IntArray

METRIC = "macro_f1"
"""Metric that decides which head is best: every class counts the same, however rare."""


@dataclasses.dataclass(frozen=True)
class PairTests:
    """Tests of two heads on the test rows; every difference is macro-F1 of `head` less that of `reference`."""

    head: str
    reference: str
    same_predictions: bool
    """Whether both predict the same class for every test tile."""

    difference: Difference
    """With the interval that the verdict rests on: over groups or tiles, see `Verdict.unit`."""

    by_group: Difference | None
    """The interval over whole groups; None where groups are not known."""

    by_tile: Difference
    """The interval over single tiles, each with all its seeds."""

    flip: SignFlip
    mcnemar_p: float
    """The largest over the seeds."""

    resampled: ResampledT
    """Over the parts (seed, fold); NaN where undefined."""

    superiority: Superiority


def compare_pair(
    predictions: Predictions, resampling: Resampling, *, head: str, reference: str, rope: float, n_train: float | None
) -> PairTests:
    """Return the tests of one pair.

    Args:
        predictions: of all heads.
        resampling: units and size of the bootstrap.
        head: the head that is compared.
        reference: the head that it is compared with.
        rope: differences of at most this much macro-F1 do not matter.
        n_train: mean number of training tiles of a part (seed, fold), or None where it is not known.
    """
    rows = predictions.rows("test")
    y = predictions.y[rows]
    a, b = predictions.predicted[head][rows], predictions.predicted[reference][rows]
    seed, fold = (predictions.tiles[name].to_numpy(dtype=np.int64)[rows] for name in ("seed", "fold"))

    def interval(units: IntArray) -> Difference:
        return resampling.difference(paired_counts(y, a, b, metric=METRIC, units=units))

    counts = paired_counts(y, a, b, metric=METRIC, units=resampling.ids[rows])
    of_seed = [seed == each for each in np.unique(seed)]
    return PairTests(
        head=head,
        reference=reference,
        same_predictions=bool(np.array_equal(a, b)),
        difference=resampling.difference(counts),
        by_group=interval(predictions.group_code[0][rows]) if predictions.groups_known else None,
        by_tile=interval(predictions.tile_units[rows]),
        flip=sign_flip(counts, seed=resampling.seed),
        mcnemar_p=max(mcnemar_exact(a[chosen] == y[chosen], b[chosen] == y[chosen]).p for chosen in of_seed),
        resampled=_resampled(y, a, b, part=seed * (1 + int(fold.max())) + fold, n_train=n_train),
        superiority=superiority(counts, rope=rope, n_draws=resampling.n_draws, seed=resampling.seed),
    )


def _resampled(y: IntArray, a: IntArray, b: IntArray, *, part: IntArray, n_train: float | None) -> ResampledT:
    """Return the corrected resampled t over the parts, (N,) a number for the seed and fold of each row."""
    n_classes = 1 + int(max(y.max(), a.max(), b.max()))
    part_ids = np.unique(part)
    matrices = [
        np.stack([confusion(y[part == each], labels[part == each], n_classes) for each in part_ids])
        for labels in (a, b)
    ]
    score_a, score_b = (scores_from_confusion(counts)[METRIC] for counts in matrices)
    ratio = len(y) / len(part_ids) / n_train if n_train else math.nan
    return corrected_resampled_t(score_a - score_b, test_to_train=ratio)
