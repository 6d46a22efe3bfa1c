"""Draw ROC curves: sensitivity against 1 - specificity."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pipeline.evaluation.validate import FloatArray
from pipeline.figures.plotting import Figure
from pipeline.figures.style import head_colours, save, short, styled


def roc_points(positive: np.ndarray, score: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return 1 - specificity and sensitivity at every threshold, (T,) each, from (0, 0) to (1, 1).

    Args:
        positive: (N,) bool.
        score: (N,) larger for positive rows.
    """
    order = np.argsort(-score, kind="stable")
    last = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))  # equal scores are one threshold
    hits, alarms = np.cumsum(positive[order])[last], np.cumsum(~positive[order])[last]
    false, true = (np.append(0, counts) / max(counts[-1], 1) for counts in (alarms, hits))
    return np.asarray(false), np.asarray(true)


@styled
def draw_roc(path: Path, positive: np.ndarray, scores: Mapping[str, FloatArray], *, title: str) -> None:
    """Draw the ROC curve of every head.

    Args:
        path: the PNG.
        positive: (N,) bool.
        scores: title of a head -> (N,) its scores.
        title: title of the figure.
    """
    figure = Figure(figsize=(4.2, 4.2), layout="constrained")
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], color="0.8", lw=0.8)
    for head, colour in head_colours(list(scores)).items():
        axis.plot(*roc_points(positive, scores[head]), color=colour, lw=1.4, label=short(head))
    axis.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal", title=title)
    axis.set_xlabel("1 - specificity")
    axis.set_ylabel("sensitivity")
    axis.legend(loc="lower right")
    save(figure, path)
