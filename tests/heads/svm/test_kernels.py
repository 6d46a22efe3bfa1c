"""Kernel values and decisions against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.svm import SVC

from pipeline.heads.svm.kernels import BLOCK_ROWS, decision_values, kernel_values, square_lengths


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-12)])
def test_kernel_values_are_those_of_scikit_learn(dtype: type, tolerance: float) -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(BLOCK_ROWS + 7, 30)).astype(dtype)
    b = rng.normal(size=(9, 30)).astype(dtype)
    squares = square_lengths(a), square_lengths(b)
    out = np.empty((len(a), len(b)))
    expected = rbf_kernel(a.astype(np.float64), b.astype(np.float64), gamma=0.02)
    found = kernel_values(a @ b.T, squares, gamma=0.02, out=out)
    assert found is out
    np.testing.assert_allclose(found, expected, rtol=tolerance)
    np.testing.assert_array_equal(kernel_values(a @ b.T, squares, gamma=None, out=out), (a @ b.T).astype(np.float64))


def test_kernel_values_may_take_the_place_of_the_products_and_are_never_above_one() -> None:
    a = np.random.default_rng(0).normal(size=(40, 300)) * 1000
    squares = square_lengths(a)
    products = a @ a.T
    apart = kernel_values(products, (squares, squares), gamma=1e-3, out=np.empty((40, 40)))
    assert apart.max() <= 1
    np.testing.assert_array_equal(kernel_values(products, (squares, squares), gamma=1e-3, out=products), apart)
    np.testing.assert_array_equal(products, apart)


@pytest.mark.parametrize("n_classes", [2, 3, 6])
@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_decision_values_are_those_of_libsvm(n_classes: int, kernel: str) -> None:
    rng = np.random.default_rng(1)
    y = rng.integers(0, n_classes, 150) * 3  # codes need not be 0..K-1
    x = rng.normal(size=(150, 8)) + y[:, None] / 6
    svc = SVC(kernel=kernel, gamma=0.1, C=3.0, break_ties=True).fit(x, y)
    asked = rng.normal(size=(70, 8)) + 0.5
    np.testing.assert_allclose(decision_values(svc, asked), svc.decision_function(asked), rtol=1e-9, atol=1e-9)
