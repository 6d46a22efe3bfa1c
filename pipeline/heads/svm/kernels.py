"""Kernel values by BLAS products, the SVM's decisions from them, and how many rows' kernel values fit into memory."""

import itertools
import math
import os
from collections.abc import Sequence

import numpy as np
from sklearn.svm import SVC

from pipeline.errors import BadInput

BLOCK_ROWS = 256
"""Rows whose kernel values are worked on at once: they stay in the processor's cache."""


def square_lengths(rows: np.ndarray) -> np.ndarray:
    """Return |row|^2 of rows (N, D), (N,) float64."""
    return np.einsum("ij,ij->i", rows, rows, dtype=np.float64)


def kernel_values(
    products: np.ndarray, squares: tuple[np.ndarray, np.ndarray], *, gamma: float | None, out: np.ndarray
) -> np.ndarray:
    """Fill `out` with the kernel values of rows a and b, and return it.

    exp(-gamma |a - b|^2) with |a - b|^2 = |a|^2 + |b|^2 - 2 a.b, in float64 whatever the products were computed in.

    Args:
        products: (N, M) a.b, float32 or float64.
        squares: (N,) |a|^2 and (M,) |b|^2, float64.
        gamma: of the RBF kernel; None: the linear kernel, the products themselves.
        out: (N, M) float64; may be `products`.
    """
    if gamma is None:
        np.copyto(out, products)
        return out
    of_a, of_b = -gamma * squares[0][:, None], -gamma * squares[1]
    for start in range(0, len(out), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        own = np.multiply(products[block], 2 * gamma, out=out[block])
        own += of_a[block]
        own += of_b
        np.exp(np.minimum(own, 0, out=own), out=own)
    return out


def votes(kernel: np.ndarray, coefficients: np.ndarray, intercept: np.ndarray, of_class: Sequence[slice]) -> np.ndarray:
    """Return what `SVC.decision_function` returns, (N,) for two classes, else (N, K), float64.

    From the dual coefficients (scikit-learn's user guide, "SVM: mathematical formulation" and "multi-class
    classification"): the pair (i, j) weighs the rows of class i by row j - 1 of the coefficients and those of class j
    by row i; then each pair votes, and the sums of its values, squeezed into a third, break ties.

    Args:
        kernel: (N, M) kernel values with M rows that were fitted on.
        coefficients: (K - 1, M) as `SVC.dual_coef_`; rows that are no support vectors have 0.
        intercept: one for each pair of classes.
        of_class: where the M rows of each of the K classes stand.
    """
    n_classes = len(of_class)
    if n_classes == 2:
        return kernel @ coefficients[0] + intercept[0]
    parts = [kernel[:, own] @ coefficients[:, own].T for own in of_class]
    ballots, sums = np.zeros((len(kernel), n_classes)), np.zeros((len(kernel), n_classes))
    for number, (i, j) in enumerate(itertools.combinations(range(n_classes), 2)):
        value = intercept[number] + parts[i][:, j - 1] + parts[j][:, i]
        ballots[:, i] += value > 0
        ballots[:, j] += value <= 0
        sums[:, i] += value
        sums[:, j] -= value
    return ballots + sums / (3 * (np.abs(sums) + 1))


def runs(counts: np.ndarray) -> list[slice]:
    """Return where each of several runs of rows stands that follow one another."""
    ends = np.cumsum(counts)
    return [slice(end - n, end) for end, n in zip(ends.tolist(), counts.tolist(), strict=True)]


def decision_values(svc: SVC, x: np.ndarray) -> np.ndarray:
    """Return what `svc.decision_function(x)` returns, (N,) for two classes, else (N, K), float64, without its loops.

    Args:
        svc: fitted, kernel linear or rbf, gamma a number, decision_function_shape "ovr".
        x: (N, D) as the classifier was fitted on.
    """
    vectors = np.asarray(svc.support_vectors_, dtype=np.float64)
    x = np.asarray(x, dtype=np.float64)
    products = x @ vectors.T
    squares = square_lengths(x), square_lengths(vectors)
    kernel = kernel_values(products, squares, gamma=None if svc.kernel == "linear" else svc.gamma, out=products)
    return votes(kernel, svc.dual_coef_, svc.intercept_, runs(svc.n_support_))


def gram_bytes(n: int) -> int:
    """Return the size of the kernel values of n rows with one another in float64, which is what libsvm reads."""
    return 8 * n * n


def check_memory(n: int, *, total: int | None = None) -> None:
    """Refuse to hold the kernel values of n rows if they take more than half of the memory.

    Args:
        n: rows.
        total: bytes of memory; None: this machine's.

    Raises:
        BadInput: says how many rows are possible.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if total is None else total
    if gram_bytes(n) > memory / 2:
        raise BadInput(
            f"an exact SVM of {n} rows holds {gram_bytes(n) / 2**30:.1f} GiB of kernel values, more than half of this "
            f"machine's {memory / 2**30:.1f} GiB: give --svm-rows {math.isqrt(memory // 16)} or less"
        )
