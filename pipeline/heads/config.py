"""Configure how the heads of a run are fitted."""

import dataclasses
from typing import TYPE_CHECKING, Literal

from pipeline.evaluation.calibration import Method

if TYPE_CHECKING:
    from pipeline.heads.cluster.client import Pool

FitOn = Literal["train", "heldout"]

EXACT_ROWS = 20_000
"""Default of the most rows of an exact SVM; the kernel takes 3.2 GB."""

LANDMARKS = 1000
"""Rows that an approximated kernel is computed with: on overlapping synthetic classes, 500, 1000 and 2000 differ by
less than the rows' own noise."""

MOST_ROUNDS = 400
"""Default of XGBoost's most rounds."""


@dataclasses.dataclass(frozen=True)
class FitConfig:
    """How the heads of a run are searched, fitted and calibrated."""

    fit_on: FitOn = "train"
    """train: fit on training rows. heldout: fit on validation rows, which the network was not trained on."""

    seed: int = 0
    jobs: int = 1
    """Threads of this process."""

    device: Literal["cpu", "cuda"] = "cpu"
    """Where XGBoost computes."""

    rounds: int = MOST_ROUNDS
    """XGBoost's most rounds."""

    svm_rows: int = EXACT_ROWS
    """Most rows of an exact SVM; with more rows its kernel is approximated."""

    calibration: Method | Literal["auto"] = "auto"
    """Method that turns scores into probabilities; auto: chosen by `evaluation.calibration_choice`."""

    relative: Literal["none", "group"] = "none"
    """group: each feature has its difference from the mean over the tiles of its group next to it."""

    fused: bool = False
    """Whether a head takes the features of baselines.h5 next to the embedding."""

    pool: "Pool | None" = None
    """Dask workers that fit points, folds, and rows that do not fit into memory; None: this process only."""

    @property
    def fit_split(self) -> Literal["train", "val"]:
        """The split whose rows the heads are fitted on."""
        return "train" if self.fit_on == "train" else "val"
