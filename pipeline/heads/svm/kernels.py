"""Compute kernel values by BLAS products, and SVM decisions from them."""

import itertools

import numpy as np
from sklearn.svm import SVC

BLOCK_ROWS = 256
"""Rows whose kernel values are computed at once, so that they fit in the processor's cache."""


def square_lengths(rows: np.ndarray) -> np.ndarray:
    """Return |row|^2 of rows (N, D), (N,) float64."""
    lengths: np.ndarray = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
    return lengths


def kernel_values(
    products: np.ndarray, squares: tuple[np.ndarray, np.ndarray], *, gamma: float | None, out: np.ndarray
) -> np.ndarray:
    """Fill `out` with the kernel values of rows a and b, and return it.

    exp(-gamma |a - b|^2) with |a - b|^2 = |a|^2 + |b|^2 - 2 a.b, in float64 for products of any type.

    Args:
        products: (N, M) a.b, float32 or float64.
        squares: (N,) |a|^2 and (M,) |b|^2, float64.
        gamma: gamma of the RBF kernel; None: the linear kernel, the products themselves.
        out: (N, M) float64; may be `products`.
    """
    if gamma is None:
        np.copyto(out, products)
        return out
    terms_a, terms_b = -gamma * squares[0][:, None], -gamma * squares[1]
    for start in range(0, len(out), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        own = np.multiply(products[block], 2 * gamma, out=out[block])
        own += terms_a[block]
        own += terms_b
        np.exp(np.minimum(own, 0, out=own), out=own)
    return out


def decision_values(svc: SVC, x: np.ndarray) -> np.ndarray:
    """Return the values of `svc.decision_function(x)`, (N,) for two classes, else (N, K), float64.

    BLAS computes the kernel values, much faster than libsvm's loops. From the dual coefficients
    (scikit-learn's user guide, "SVM: mathematical formulation" and "multi-class classification"): the pair (i, j)
    weighs the support vectors of class i by row j - 1 of the coefficients and those of class j by row i. Then each pair
    votes, and the sums of the values, scaled to at most a third, break ties.

    Args:
        svc: fitted, kernel linear or rbf, gamma a number, decision_function_shape "ovr".
        x: (N, D), scaled like the fitted rows.
    """
    vectors = np.asarray(svc.support_vectors_, dtype=np.float64)
    x = np.asarray(x, dtype=np.float64)
    kernel = x @ vectors.T
    gamma = None if svc.kernel == "linear" else svc.gamma
    kernel_values(kernel, (square_lengths(x), square_lengths(vectors)), gamma=gamma, out=kernel)
    n_classes = len(svc.n_support_)
    if n_classes == 2:
        decision: np.ndarray = kernel @ svc.dual_coef_[0] + svc.intercept_[0]
        return decision
    ends = np.cumsum(svc.n_support_)[:-1]
    by_class = zip(np.split(kernel, ends, axis=1), np.split(svc.dual_coef_, ends, axis=1), strict=True)
    parts = [own @ weights.T for own, weights in by_class]
    votes, sums = np.zeros((len(kernel), n_classes)), np.zeros((len(kernel), n_classes))
    for number, (i, j) in enumerate(itertools.combinations(range(n_classes), 2)):
        value = svc.intercept_[number] + parts[i][:, j - 1] + parts[j][:, i]
        votes[:, i] += value > 0
        votes[:, j] += value <= 0
        sums[:, i] += value
        sums[:, j] -= value
    ovr: np.ndarray = votes + sums / (3 * (np.abs(sums) + 1))
    return ovr
