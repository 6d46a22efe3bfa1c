"""Describe XGBoost as a kind of head."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from pipeline.heads.base import Head, Params, Rows, Step, nothing
from pipeline.heads.cluster.fit import boost_together, refit_boosting
from pipeline.heads.config import FitConfig
from pipeline.heads.kind import SavedKind
from pipeline.heads.search_result import Search
from pipeline.heads.streamed_rows import StreamedRows
from pipeline.heads.xgb.booster import POINTS, Boosting, fit_boosting, search_boosting


@dataclasses.dataclass(frozen=True)
class BoostingKind(SavedKind):
    """Searches depth and leaf weight, and takes the number of rounds from early stopping."""

    candidates: Sequence[Params] = POINTS
    option = "rounds"
    uses_device = True
    shares_workers = True

    def points(self, rows: Rows, config: FitConfig) -> list[Params]:
        """Return the points."""
        return list(self.candidates)

    def search(self, fit: Rows, held: Rows, points: list[Params], config: FitConfig, on_point: Step) -> Search:
        """Boost each point with early stopping on the held-out rows."""
        return search_boosting(fit, held, config, points=points, on_point=on_point)

    def fit(self, rows: Rows, params: Params, config: FitConfig, on_step: Step = nothing) -> Boosting:
        """Boost the chosen point for its number of rounds; streamed rows by all workers of a cluster."""
        if config.pool is not None and isinstance(rows, StreamedRows):
            return boost_together(config.pool, rows, None, params, config)
        return fit_boosting(rows, params, config)

    def refit(self, fit: StreamedRows, held: StreamedRows, params: Params, config: FitConfig, on_step: Step) -> Search:
        """Boost the chosen point on streamed rows with early stopping on all held-out rows."""
        point = {name: value for name, value in params.items() if name != "rounds"}
        if config.pool is not None:
            return refit_boosting(config.pool, fit, held, point, config)
        return search_boosting(fit, held, config, points=[point], on_round=on_step)

    def notes(self, head: Head, rows: Rows, chosen: Params, config: FitConfig) -> list[str]:
        """Return who boosted, and whether early stopping never stopped."""
        noted = []
        if config.pool is not None and isinstance(rows, StreamedRows):
            noted.append(f"boosted by {len(config.pool.threads())} workers together")
        if chosen["rounds"] >= config.rounds:
            noted.append(f"all {config.rounds} rounds were used: raise --rounds")
        return noted

    def load(self, path: Path) -> Boosting:
        """Read a .ubj file."""
        return Boosting.load(path)
