"""Hold everything that the sections of the report are written from."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from pipeline.comparison.choice import by_cost
from pipeline.comparison.group_level import GroupLevel
from pipeline.comparison.pairwise_tests import METRIC
from pipeline.comparison.predictions import Predictions
from pipeline.comparison.recommendation import Verdict
from pipeline.comparison.report_figures import EmbeddingMap, WorstError
from pipeline.comparison.run_files import RunFiles
from pipeline.comparison.scores import Resampling, Score
from pipeline.markup.document import Figure
from pipeline.markup.number_format import NOT_AVAILABLE, count, head_name, number
from pipeline.storage.protocol import Protocol


@dataclasses.dataclass(frozen=True)
class ReportData:
    """Everything that the sections are written from."""

    run: Path
    predictions: Predictions
    files: RunFiles
    resampling: Resampling
    scores: Mapping[tuple[str, str, str], Score]
    """By (head, split, metric)."""

    verdict: Verdict

    groups: GroupLevel | None
    """Predictions of whole groups; None where groups have no label of their own."""

    protocol: Protocol | None
    """The cross-validation plan; None for a single split."""

    random_control: Predictions | None
    """Predictions of the plan's random-split control."""

    corrupted: pd.DataFrame | None
    """Predictions for corrupted test tiles (`robustness.read_corrupted`)."""

    suspects: pd.DataFrame | str
    """Likely label errors, or why there are none."""

    figures: Mapping[str, Figure]
    """scores, confusion, classes, reliability, selective."""

    map: EmbeddingMap | str
    """The map of the embeddings, or why there is none."""

    worst: list[WorstError]
    gallery: Figure | str
    """The gallery of the worst errors, or why there is none."""

    n_gallery: int
    """Tiles that a gallery may show; 0: no picture shows a tile."""

    options: Mapping[str, object]
    """Resolved options of the report, with the seed."""

    @property
    def head_names(self) -> list[str]:
        """The heads as written in text."""
        return [head_name(head) for head in self.predictions.main_heads]

    @property
    def best_head(self) -> str:
        """The main head with the highest macro-F1 on the test rows; a baseline where there is no main head."""
        heads = by_cost(self.predictions.main_heads or self.predictions.heads)
        return max(heads, key=lambda head: self.scores[head, "test", METRIC].value)

    @property
    def encoder(self) -> Mapping[str, object] | None:
        """What is known of a frozen encoder; None for a network that was trained on the run's tiles."""
        found = self.predictions.details.get("encoder")
        return found if isinstance(found, Mapping) else None

    @property
    def test_rows(self) -> str:
        """The number of test tiles, and of rows where a tile was tested under several seeds."""
        rows = self.predictions.rows("test")
        n_tiles = self.predictions.n_tiles(rows)
        return count(n_tiles, "tile") + (f", {len(rows)} rows over the seeds" if len(rows) > n_tiles else "")

    @property
    def bias_note(self) -> str:
        """Start of the caption of every table of test scores after a random split (P7); else empty."""
        return "Random split: biased upwards. " if self.predictions.protocol == "random" else ""

    def value(self, head: str, split: str, metric: str, digits: int = 3) -> str:
        """Return a score as text, without its interval."""
        score = self.scores.get((head, split, metric))
        return NOT_AVAILABLE if score is None else number(score.value, digits)
