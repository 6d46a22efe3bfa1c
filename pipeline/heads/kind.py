"""Define the interface of a kind of head: the points of its search, their scores, and the final fit."""

import abc
import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.heads.base import Head, Params, Rows, Step, nothing
from pipeline.heads.config import FitConfig
from pipeline.heads.parallel import quiet, side_by_side
from pipeline.heads.search_result import Point, Search
from pipeline.heads.streamed_rows import StreamedRows, scores_of


class HeadKind(abc.ABC):
    """A kind of head; `heads.registry` names them."""

    shares_workers = False
    """Whether a refit on a cluster occupies all workers, so that folds wait for one another."""

    @abc.abstractmethod
    def points(self, rows: Rows, config: FitConfig) -> list[Params]:
        """Return the points to search for a head that is fitted on these rows.

        Raises:
            BadInput: such a head of so many rows does not fit into this machine's memory.
        """

    @abc.abstractmethod
    def search(self, fit: Rows, held: Rows, points: list[Params], config: FitConfig, on_point: Step) -> Search:
        """Fit each point on rows in memory and score held-out rows."""

    @abc.abstractmethod
    def fit(self, rows: Rows, params: Params, config: FitConfig, on_step: Step = nothing) -> Head:
        """Fit the chosen point on all rows, in memory or streamed.

        Raises:
            DiskFull: no room for what streamed rows keep on disk.
        """

    def refit(self, fit: StreamedRows, held: StreamedRows, params: Params, config: FitConfig, on_step: Step) -> Search:
        """Fit the chosen point on streamed rows, of which the search saw a sample, and score all held-out rows."""
        start = time.perf_counter()
        head = self.fit(fit, params, config, on_step)
        return Search([Point(params, scores_of(head, held), held.y, time.perf_counter() - start, head)])

    def notes(self, head: Head, rows: Rows, chosen: Params, config: FitConfig) -> list[str]:
        """Return notes for heads.json about a head that was fitted on these rows."""
        return []


class SavedKind(HeadKind):
    """A kind of head that has a file of its own in the run folder."""

    option: str | None = None
    """The option of fit_heads, and of FitConfig, that changes this head only."""

    uses_device = False
    """Whether it is fitted on `FitConfig.device`; else on the CPU."""

    @abc.abstractmethod
    def load(self, path: Path) -> Head:
        """Read a saved head.

        Raises:
            BadArtifact: the file has no record, other bytes than were saved, or another content.
            StaleInput: it was saved by another version of its library.
        """


@dataclasses.dataclass(frozen=True)
class PlainKind(HeadKind):
    """A kind of head whose search fits every point on all rows: the best one is the head."""

    fit_point: Callable[[Rows, Params], Head]
    candidates: Sequence[Params]

    def points(self, rows: Rows, config: FitConfig) -> list[Params]:
        """Return the points."""
        return list(self.candidates)

    def search(self, fit: Rows, held: Rows, points: list[Params], config: FitConfig, on_point: Step) -> Search:
        """Fit every point, several at once, and score the held-out rows."""

        def scored(params: Params) -> Point:
            start = time.perf_counter()
            head = self.fit_point(fit, params)
            return Point(params, head.scores(held), held.y, time.perf_counter() - start, head)

        return Search(list(side_by_side(scored, points, jobs=config.jobs)))

    def fit(self, rows: Rows, params: Params, config: FitConfig, on_step: Step = nothing) -> Head:
        """Fit one point."""
        with quiet():
            return self.fit_point(rows, params)
