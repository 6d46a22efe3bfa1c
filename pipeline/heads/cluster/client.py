"""Connect to a Dask cluster: processes of this machine, or workers of a scheduler elsewhere.

Workers have the same versions of this package and its libraries, and the run folder under the same path. Dask gives the
tasks of a lost worker to another worker; a training by all workers ends if one is lost.
"""

import contextlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.errors import BadInput, WorkerLost
from pipeline.heads.memory_budget import Memory
from pipeline.storage import environment

if TYPE_CHECKING:
    from distributed import Client, Future

Item = TypeVar("Item")
Result = TypeVar("Result")

ANSWER_S, WORKERS_S = 5, 30
"""Seconds that a scheduler may take to answer, and to have a worker."""

LOOK_S = 1.0
"""Seconds between two checks of the workers of a training."""

SAME = ("histoheads", "xgboost", "scikit-learn", "numpy")
"""Packages that must have the same version everywhere."""

AGAIN = "run the same command again (fitted heads are kept)"


class Pool:
    """A connected cluster."""

    def __init__(self, client: "Client") -> None:
        self.client = client

    def map(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Return work(item) of each item, in order, each by any worker.

        Every worker receives `work` once, with its rows, so that another worker can do the tasks of a lost one.

        Raises:
            WorkerLost: a task ended several workers, all are lost, or the scheduler is gone.
        """
        with self._losses():
            sent = self._sent(work, broadcast=True)
            return list(self.client.gather([self.client.submit(_call, sent, item, pure=False) for item in items]))

    def together(self, work: Callable[[Item], Result], items: Mapping[str, Item]) -> list[Result]:
        """Return work(item) of each worker's item; the tasks communicate.

        Args:
            work: the function of all workers.
            items: address of a worker -> its item.

        Raises:
            WorkerLost: a worker is lost, or fails.
        """
        from distributed import wait

        with self._losses():
            tasks = []
            for worker, item in items.items():
                sent = self._sent(item, workers=[worker])
                only = {"workers": [worker], "allow_other_workers": False, "pure": False}
                tasks.append(self.client.submit(work, sent, **only))
            while not all(task.done() for task in tasks):
                with contextlib.suppress(TimeoutError), self.client.as_current():
                    wait(tasks, timeout=LOOK_S)
                failed = [str(task.exception()) for task in tasks if task.status == "error"]
                if failed or set(items) - set(self.threads()):
                    self.client.cancel(tasks, force=True)
                    reason = f" ({plain(failed[0])})" if failed else ""
                    raise WorkerLost(
                        f"--cluster: one of {len(items)} workers that train together was lost{reason}: {AGAIN}"
                    )
            return list(self.client.gather(tasks))

    def _sent(self, value: object, **where: Any) -> "Future[Any]":
        """Send a value to workers, in a list: keys of a dictionary would become names for the whole cluster."""
        sent: Future[Any] = self.client.scatter([value], hash=False, **where)[0]
        return sent

    def side_by_side(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Return work(item) of each item, in threads of this process that wait for their tasks."""
        with ThreadPoolExecutor(max(1, len(items))) as threads:
            return list(threads.map(work, items))

    def threads(self) -> dict[str, int]:
        """Return the threads of each worker, by address."""
        return {worker: int(n) for worker, n in sorted(self.client.nthreads().items())}

    @property
    def scheduler(self) -> str:
        """The scheduler's host."""
        known: Any = self.client.scheduler
        return str(known.address).split("://")[-1].rsplit(":", 1)[0]

    @contextlib.contextmanager
    def _losses(self) -> Iterator[None]:
        """Turn Dask's errors for lost workers and schedulers into WorkerLost."""
        from distributed import KilledWorker
        from distributed.comm.core import CommClosedError

        try:
            yield
        except KilledWorker as error:
            n = error.allowed_failures + 1
            raise WorkerLost(
                f"--cluster: {n} workers were lost one after the other at the same task (too little memory?): {AGAIN}"
            ) from error
        except (CancelledError, CommClosedError) as error:
            raise WorkerLost(
                f"--cluster: its workers or its scheduler are gone ({error.__class__.__name__}): {AGAIN}"
            ) from error


def _call(work: Callable[[Item], Result], item: Item) -> Result:
    return work(item)


def plain(text: str) -> str:
    """Return an error's message as one short line, without positions in XGBoost's code."""
    return " ".join(re.sub(r"\[[^]]*\]:?|/\S+:\d+:|Stack trace.*", " ", text, flags=re.S).split())[:200].strip(" -")


@contextlib.contextmanager
def connected(address: str, memory: Memory, *, folder: Path) -> Iterator[Pool]:
    """Yield the workers of a cluster.

    Args:
        address: "local" for processes of this machine, which end with the block, or "tcp://host:port".
        memory: number of processes of a local cluster, and bytes for each.
        folder: folder for their files.

    Raises:
        BadInput: Dask is not installed, nothing answers, there are no workers, or they have other versions.
    """
    try:
        import dask.config
        from distributed import Client, LocalCluster
    except ImportError:
        raise BadInput("--cluster needs Dask: pip install 'histoheads[cluster]'") from None
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # a loss is reported in one line
    with contextlib.ExitStack() as stack:
        where: Any = address
        if address == "local":
            # no spilling to disk: that would write pickles into the run folder
            kept = {f"distributed.worker.memory.{name}": False for name in ("target", "spill")}
            with dask.config.set(kept):
                cluster = LocalCluster(
                    n_workers=memory.n_workers,
                    threads_per_worker=1,
                    memory_limit=memory.each,
                    processes=True,
                    host="127.0.0.1",
                    silence_logs=logging.CRITICAL,
                    dashboard_address=None,
                    scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
                    local_directory=str(folder),
                )
                where = stack.enter_context(cluster)
        try:
            client = stack.enter_context(Client(where, timeout=ANSWER_S, set_as_default=False))
            client.wait_for_workers(1, timeout=WORKERS_S)
        except (OSError, TimeoutError, ValueError) as error:
            raise BadInput(
                f"--cluster {address}: no Dask scheduler with a worker answers there ({error.__class__.__name__}): "
                "check the address, and that `dask scheduler` and `dask worker` run"
            ) from None
        _check_versions(client, address)
        yield Pool(client)


def _check_versions(client: "Client", address: str) -> None:
    """Check that the workers have the versions of this process.

    Raises:
        BadInput: names a worker and a package, or the workers lack this package.
    """
    here = environment.versions()
    try:
        found = client.run(environment.versions)
    except Exception as error:  # noqa: BLE001  (an import on another machine may raise anything)
        raise BadInput(
            f"--cluster {address}: its workers do not have this package ({' '.join(str(error).split())[:120]}): "
            "install the same version there"
        ) from None
    for worker, versions in found.items():
        for name in SAME:
            if versions[name] != here[name]:
                raise BadInput(
                    f"--cluster {address}: worker {worker} has {name} {versions[name]}, here is {here[name]}: install "
                    "the same version"
                )
