"""Fit several points at once on threads: libsvm and BLAS release the interpreter's lock."""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import joblib
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(work: Callable[[Item], Result], items: Sequence[Item], *, jobs: int) -> Iterator[Result]:
    """Yield work(item) for each item, in order, up to `jobs` at once, each with its share of BLAS's threads.

    More BLAS threads than cores are slower than one thread.
    """
    share = max(1, jobs // max(1, len(items)))
    threads = joblib.Parallel(jobs, backend="threading", return_as="generator", batch_size=1)
    with quiet(), threadpool_limits(share, user_api="blas"):
        yield from threads(joblib.delayed(work)(item) for item in items)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress the warning that a regression took all its steps: heads.json notes it.

    Filters of warnings hold for the whole process.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield
