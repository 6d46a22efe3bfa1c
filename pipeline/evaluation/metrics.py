"""Compute the scores of a head on some rows: confusion counts, ranking, probabilities, calibration.

Every formula that a resampling repeats (`scores_from_confusion`, `row_nll`, `row_brier`,
`expected_calibration_error`) is defined once and takes leading axes or per-row values, so that
`pipeline.evaluation.bootstrap` scores its draws with the same code.
"""

import numpy as np

from pipeline.evaluation.validate import (
    FloatArray,
    IntArray,
    NumberArray,
    ProbabilityArray,
    as_labels,
    check_probabilities,
)

METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "auroc_ovr", "nll", "brier", "ece")
"""The keys of `scalar_metrics`, in their order."""

ECE_BINS = 15
"""Guo et al. 2017, "On Calibration of Modern Neural Networks", section 5."""

NLL_FLOOR = 1e-15
"""A probability of zero for the true class costs 34.5 nats instead of infinity."""


def scalar_metrics(y: IntArray, p: ProbabilityArray, predicted: IntArray) -> dict[str, float]:
    """Return the seven numbers by which heads are compared.

    * accuracy, balanced_accuracy, macro_f1: of `predicted`; see `scores_from_confusion` for the rule
      on classes that do not occur.
    * auroc_ovr: one-vs-rest area under the ROC curve, mean over the classes that occur in `y` without
      being the only one there; NaN if there is none.
    * nll: mean negative log-likelihood in nats, probabilities clipped to 1e-15..1.
    * brier: mean squared distance to the one-hot truth, summed over classes: 0..2 (Brier 1950).
    * ece: `expected_calibration_error` of the top label. It judges argmax(p), which a head whose
      prediction is not the argmax of its calibrated probabilities may not have predicted.

    Args:
        y: (N,) true class index in 0..K-1.
        p: (N, K) probabilities, rows sum to 1.
        predicted: (N,) predicted class index.

    Raises:
        ValueError: Wrong shapes or types, no rows, indices outside 0..K-1, rows of `p` that are no
            probabilities.
    """
    p = check_probabilities(p)
    n_rows, n_classes = p.shape
    y = as_labels(y, name="y", n_classes=n_classes, n_rows=n_rows)
    scores = scores_from_confusion(confusion(y, predicted, n_classes))
    return {
        **{name: float(value) for name, value in scores.items()},
        "auroc_ovr": auroc_ovr(y, p),
        "nll": float(row_nll(y, p).mean()),
        "brier": float(row_brier(y, p).mean()),
        "ece": float(expected_calibration_error(reliability_bins(y, p))),
    }


def class_metrics(y: IntArray, predicted: IntArray, n_classes: int) -> dict[str, FloatArray]:
    """Return precision, recall, f1 and support of every class, each (K,) float64.

    Undefined values are NaN: recall and f1 of a class absent from `y`, precision of a class that is
    never predicted (its f1 is 0 if it occurs in `y`).

    Raises:
        ValueError: As `confusion`.
    """
    return _class_scores(confusion(y, predicted, n_classes))


def confusion(y: IntArray, predicted: IntArray, n_classes: int) -> IntArray:
    """Return the (K, K) int64 counts: rows are true classes, columns predicted ones.

    Raises:
        ValueError: Wrong shapes or types, no rows, indices outside 0..K-1.
    """
    y = as_labels(y, name="y", n_classes=n_classes)
    predicted = as_labels(predicted, name="predicted", n_classes=n_classes, n_rows=len(y))
    return np.bincount(y * n_classes + predicted, minlength=n_classes**2).reshape(n_classes, n_classes)


def most_confused(matrix: IntArray) -> list[tuple[int, int, int, float]]:
    """Return the errors of a (K, K) confusion matrix, most frequent first.

    Each is (true, predicted, count, share of the true class); equal counts are in index order.
    """
    support = matrix.sum(axis=1)
    pairs = [
        (int(true), int(predicted), int(matrix[true, predicted]))
        for true, predicted in np.argwhere(matrix > 0)
        if true != predicted
    ]
    pairs.sort(key=lambda pair: -pair[2])
    return [(true, predicted, count, count / int(support[true])) for true, predicted, count in pairs]


def scores_from_confusion(matrices: NumberArray) -> dict[str, FloatArray]:
    """Return accuracy, balanced_accuracy and macro_f1 of confusion counts.

    Both means run over the classes that occur as truth: a class without rows has no recall. A class
    that is predicted without occurring is no term of its own; it counts through the rows it took from
    the others (scikit-learn's `balanced_accuracy_score`, and `f1_score(average="macro")` with `labels`
    set to the classes present; without `labels` that one adds a zero for such a class).

    Args:
        matrices: (..., K, K) counts or weights, rows true; each with a positive total.

    Returns:
        Arrays (...) float64.
    """
    classes = _class_scores(matrices)
    n_present = (classes["support"] > 0).sum(axis=-1)
    hits = np.trace(matrices, axis1=-2, axis2=-1)
    return {
        "accuracy": hits / classes["support"].sum(axis=-1),
        "balanced_accuracy": np.nansum(classes["recall"], axis=-1) / n_present,
        "macro_f1": np.nansum(classes["f1"], axis=-1) / n_present,
    }


def row_nll(y: IntArray, p: ProbabilityArray) -> FloatArray:
    """Return (N,) negative log-likelihoods in nats of the true classes, `p` clipped to 1e-15..1."""
    return -np.log(np.clip(_true_class(y, p), NLL_FLOOR, 1.0))


def row_brier(y: IntArray, p: ProbabilityArray) -> FloatArray:
    """Return (N,) squared distances (0..2) of `p` to the one-hot truth."""
    squares: FloatArray = np.einsum("nk,nk->n", p, p, dtype=np.float64)  # without a matrix of squares
    return squares - 2 * _true_class(y, p) + 1


def reliability_bins(y: IntArray, p: ProbabilityArray, n_bins: int = ECE_BINS) -> dict[str, FloatArray]:
    """Return the reliability diagram of the top label: confidence, accuracy, count, each (n_bins,).

    Confidence is max(p), accuracy the share of rows whose argmax(p) (the first of equals) is `y`, both
    means over the rows of a bin. The bins have equal width over 0..1 and are closed on the right:
    bin b holds b/n_bins < confidence <= (b+1)/n_bins. An empty bin has count 0 and NaN means.

    Raises:
        ValueError: As `scalar_metrics`, or `n_bins` below 1.
    """
    p = check_probabilities(p)
    y = as_labels(y, name="y", n_classes=p.shape[1], n_rows=len(p))
    bin_index, confidence, correct = top_label(y, p, n_bins)
    return bin_means(
        count=np.bincount(bin_index, minlength=n_bins),
        confidence=np.bincount(bin_index, weights=confidence, minlength=n_bins),
        correct=np.bincount(bin_index, weights=correct, minlength=n_bins),
    )


def top_label(y: IntArray, p: ProbabilityArray, n_bins: int) -> tuple[IntArray, FloatArray, FloatArray]:
    """Return per row its reliability bin, the confidence max(p), and 1.0 where argmax(p) is `y`.

    Raises:
        ValueError: `n_bins` is below 1.
    """
    if n_bins < 1:
        raise ValueError(f"n_bins must be at least 1, but is {n_bins}")
    confidence = p.max(axis=1).astype(np.float64)
    inner_edges = np.linspace(0.0, 1.0, n_bins + 1)[1:-1]
    bin_index = np.searchsorted(inner_edges, confidence, side="left")
    return bin_index, confidence, (p.argmax(axis=1) == y).astype(np.float64)


def bin_means(*, count: NumberArray, confidence: NumberArray, correct: NumberArray) -> dict[str, FloatArray]:
    """Turn sums over the rows of each bin (..., n_bins) into the arrays of `reliability_bins`."""
    return {
        "confidence": _ratio(confidence, count),
        "accuracy": _ratio(correct, count),
        "count": np.asarray(count, dtype=np.float64),
    }


def expected_calibration_error(bins: dict[str, FloatArray]) -> FloatArray:
    """Return the mean |accuracy - confidence| over the bins, weighted by count (Guo et al. 2017, eq. 3).

    Args:
        bins: As `reliability_bins` returns them, with any leading axes.

    Returns:
        (...) float64 in 0..1.
    """
    gap = np.abs(bins["accuracy"] - bins["confidence"])
    return np.nansum(bins["count"] * gap, axis=-1) / bins["count"].sum(axis=-1)


def _class_scores(matrices: NumberArray) -> dict[str, FloatArray]:
    """Return precision, recall, f1, support (..., K) of confusion counts (..., K, K)."""
    hits = np.diagonal(matrices, axis1=-2, axis2=-1)
    support = matrices.sum(axis=-1)
    claimed = matrices.sum(axis=-2)
    f1 = _ratio(2 * hits, support + claimed)
    return {
        "precision": _ratio(hits, claimed),
        "recall": _ratio(hits, support),
        "f1": np.where(support > 0, f1, np.nan),
        "support": support.astype(np.float64),
    }


def auroc_ovr(y: IntArray, p: ProbabilityArray) -> float:
    """Return the mean over classes of the Mann-Whitney probability of ranking a member first."""
    areas = []
    for k in range(p.shape[1]):
        members = y == k
        inside, outside = p[members, k], np.sort(p[~members, k])
        if not len(inside) or not len(outside):
            continue
        below, not_above = (int(outside.searchsorted(inside, side=side).sum()) for side in ("left", "right"))
        areas.append((below + not_above) / 2 / (len(inside) * len(outside)))  # half of each tie
    return float(np.mean(areas)) if areas else float("nan")


def _true_class(y: IntArray, p: ProbabilityArray) -> FloatArray:
    return p[np.arange(len(y)), y].astype(np.float64)


def _ratio(part: NumberArray, whole: NumberArray) -> FloatArray:
    """Divide; NaN where `whole` is 0."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)
