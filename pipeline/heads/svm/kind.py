"""Describe the SVM as a kind of head."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from pipeline.heads.base import Head, Params, Rows, Step, nothing
from pipeline.heads.cluster.fit import refit_svm
from pipeline.heads.config import FitConfig
from pipeline.heads.kind import SavedKind
from pipeline.heads.search_result import Search
from pipeline.heads.streamed_rows import StreamedRows
from pipeline.heads.svm.classifier import Svm, fit_svm
from pipeline.heads.svm.nystroem_streamed import fit_streamed
from pipeline.heads.svm.search import SEARCH_ROWS, affordable, search_svm, standard_points


@dataclasses.dataclass(frozen=True)
class SvmKind(SavedKind):
    """Search kernel, C and gamma; above `svm_rows` rows, and on streamed rows, the kernel is approximated."""

    points_of: Callable[[int], list[Params]] = standard_points
    """Points of the search for D features."""

    standardise: bool = True
    option = "svm_rows"

    def points(self, rows: Rows, config: FitConfig) -> list[Params]:
        """Return the points, of an approximated kernel if an exact one is too large."""
        most = 0 if isinstance(rows, StreamedRows) else config.svm_rows
        return affordable(self.points_of(rows.features.shape[1]), len(rows.y), most=most)

    def search(self, fit: Rows, held: Rows, points: list[Params], config: FitConfig, on_point: Step) -> Search:
        """Score each point; a kernel's points share its values."""
        return search_svm(fit, held, config, points=points, standardise=self.standardise, on_point=on_point)

    def fit(self, rows: Rows, params: Params, config: FitConfig, on_step: Step = nothing) -> Svm:
        """Fit the chosen point."""
        if isinstance(rows, StreamedRows):
            return fit_streamed(rows, params, seed=config.seed, on_pass=on_step)
        return fit_svm(rows, params, seed=config.seed, standardise=self.standardise)

    def refit(self, fit: StreamedRows, held: StreamedRows, params: Params, config: FitConfig, on_step: Step) -> Search:
        """Fit the chosen point on streamed rows, by a worker if there are several folds."""
        if config.pool is None or config.fit_on == "train":
            return super().refit(fit, held, params, config, on_step)
        return refit_svm(config.pool, fit, held, params, seed=config.seed)

    def notes(self, head: Head, rows: Rows, chosen: Params, config: FitConfig) -> list[str]:
        """Return notes on support vectors or landmarks, and on convergence."""
        noted = head.notes(len(rows.y)) if isinstance(head, Svm) else []
        if len(rows.y) > SEARCH_ROWS:
            noted.append(f"searched on a stratified sample of {SEARCH_ROWS} rows")
        return noted

    def load(self, path: Path) -> Svm:
        """Read a skops file."""
        return Svm.load(path)
