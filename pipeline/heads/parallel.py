"""Fits side by side on threads: libsvm and BLAS work outside the interpreter's lock."""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(work: Callable[[Item], Result], items: Sequence[Item], *, jobs: int) -> Iterator[Result]:
    """Yield work(item) of each item, in order, up to `jobs` at once, each with its share of BLAS's threads.

    Threads of BLAS that wait for one another on busy cores take longer than one alone.
    """
    share = max(1, jobs // max(1, len(items)))
    with quiet(), threadpool_limits(share, user_api="blas"), ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(work, items)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep back the warning that a regression took all its steps: notes tell it. Filters are of the whole process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield
