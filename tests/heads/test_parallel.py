"""Work side by side: its order, its share of the threads, what it keeps back."""

import os
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_info, threadpool_limits

from pipeline.heads.parallel import side_by_side


def blas_threads(_: object = None) -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_results_come_in_the_order_of_the_items_whichever_is_ready_first() -> None:
    second_is_done = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            assert second_is_done.wait(20)
        else:
            second_is_done.set()
        return item * 10

    assert list(side_by_side(work, [0, 1], jobs=2)) == [0, 10]


@pytest.mark.parametrize(("items", "jobs", "share"), [(4, 2, 1), (1, 2, 2), (2, 4, 2), (3, 1, 1)])
def test_each_has_its_share_of_blas_threads_and_what_was_set_before_comes_back(
    items: int, jobs: int, share: int
) -> None:
    _ = np.ones((2, 2)) @ np.ones((2, 2))
    with threadpool_limits(2, user_api="blas"):
        assert list(side_by_side(blas_threads, [None] * items, jobs=jobs)) == [{share}] * items
        assert blas_threads() == {2}


def test_convergence_is_not_warned_of_and_errors_are_raised() -> None:
    def warn(_: int) -> int:
        warnings.warn("did not converge", ConvergenceWarning, stacklevel=1)
        time.sleep(0.01)
        return 1

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(side_by_side(warn, [1, 2, 3], jobs=2)) == [1, 1, 1]

    def fail(_: int) -> int:
        raise ValueError("from a thread")

    with pytest.raises(ValueError, match="from a thread"):
        list(side_by_side(fail, [1], jobs=2))


@pytest.mark.parametrize(("given", "found"), [({}, "passive"), ({"OMP_WAIT_POLICY": "active"}, "active")])
def test_openmp_threads_sleep_while_they_wait_unless_the_user_wants_it_otherwise(
    given: dict[str, str], found: str
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | given
    code = "import os, pipeline; print(os.environ['OMP_WAIT_POLICY'])"
    told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == found
