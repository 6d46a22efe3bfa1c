"""Choose the threshold of a score at a stated sensitivity, and count what it finds."""

import dataclasses
import math

import numpy as np

from pipeline.evaluation.validate import FloatArray


def sensitivity_threshold(scores: FloatArray, sensitivity: float) -> float:
    """Return the highest threshold that at least a share `sensitivity` of the positives reaches (score >= threshold).

    Args:
        scores: (N,) scores of the positives, N >= 1.
        sensitivity: above 0, at most 1.
    """
    n_kept = math.ceil(sensitivity * len(scores) - 1e-9)
    return float(np.sort(scores)[len(scores) - n_kept])


@dataclasses.dataclass(frozen=True)
class Share:
    """A share of independent cases with its interval."""

    n: int
    """Cases that count."""

    of: int
    """All cases."""

    low: float
    high: float

    @property
    def value(self) -> float:
        """Return n / of, NaN without cases."""
        return self.n / self.of if self.of else math.nan


def exact_share(n: int, of: int, *, level: float) -> Share:
    """Return a share with its exact interval (Clopper and Pearson 1934, "The Use of Confidence or Fiducial Limits")."""
    from scipy.stats import beta

    tail = (1 - level) / 2
    low = float(beta.ppf(tail, n, of - n + 1)) if n else 0.0
    high = float(beta.ppf(1 - tail, n + 1, of - n)) if n < of else 1.0
    return Share(n, of, low, high)
