"""Draw the embeddings of tiles as points in the plane."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from pipeline.evaluation.validate import FloatArray, IntArray, NumberArray
from pipeline.figures.plotting import Axes, Figure, patheffects
from pipeline.figures.style import look, save, short, styled

MOST_ROWS = 3000
"""Most points: t-SNE of more takes minutes, and points would cover each other."""

COMPONENTS = 50
"""Principal components that t-SNE starts from (van der Maaten and Hinton 2008, section 4.2: 30)."""

PERPLEXITY = 30
MOST_NAMED = 24
"""Most classes or groups with a legend."""


def choose_rows(is_test: np.ndarray, label: IntArray, *, most: int = MOST_ROWS) -> IntArray:
    """Return the rows to draw: test rows first, training rows in the room left, each evenly from every class.

    Args:
        is_test: (N,) bool; the others are training rows.
        label: (N,) class codes.
        most: largest number of rows.

    Returns:
        Row numbers in increasing order; the same input gives the same rows.
    """
    test = _thin(np.flatnonzero(is_test), label, max(most * 2 // 3, most - int((~is_test).sum())))
    train = _thin(np.flatnonzero(~is_test), label, most - len(test))
    return np.sort(np.concatenate([test, train]))


def _thin(rows: IntArray, label: IntArray, most: int) -> IntArray:
    """Return at most `most` of the rows, evenly spaced within the order by class."""
    if len(rows) <= most:
        return rows
    by_class = rows[np.argsort(label[rows], kind="stable")]
    return by_class[np.linspace(0, len(rows) - 1, most).astype(np.int64)]


def project(features: NumberArray, *, method: Literal["tsne", "pca"], seed: int) -> FloatArray:
    """Return (N, 2) coordinates by principal components, or by t-SNE on the first 50 of them.

    Args:
        features: (N, D) with N >= 3.
        method: tsne keeps neighbours, but distances between clusters mean nothing; pca keeps large distances.
        seed: seed of both; equal input and seed give equal coordinates.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    rows = np.asarray(features, dtype=np.float64)
    if np.ptp(rows, axis=0).max() == 0:  # a collapsed network: all tiles are one point
        return np.zeros((len(rows), 2))
    n_components = min(COMPONENTS if method == "tsne" else 2, len(rows) - 1, rows.shape[1])
    components = PCA(n_components, svd_solver="randomized", random_state=seed).fit_transform(rows)
    if method == "tsne":
        perplexity = min(PERPLEXITY, (len(rows) - 1) / 3)
        start = "pca" if components.shape[1] >= 2 else "random"
        points: FloatArray = TSNE(perplexity=perplexity, init=start, random_state=seed).fit_transform(components)
        return points
    return np.pad(components, ((0, 0), (0, 2 - components.shape[1])))


@styled
def draw_map(
    path: Path,
    points: FloatArray,
    *,
    is_test: np.ndarray,
    label: IntArray,
    classes: Sequence[str],
    group: Sequence[str] | None,
) -> None:
    """Draw the points coloured by class and, where groups are known, again coloured by group.

    Args:
        path: the PNG.
        points: (N, 2).
        is_test: (N,) bool; training rows are drawn faint.
        label: (N,) class codes.
        classes: K names.
        group: (N,) names, or None.
    """
    panels = 1 if group is None else 2
    figure = Figure(figsize=(5.6 * panels + 0.2, 6.2), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    _scatter(axes[0], points, is_test=is_test, code=label, names=classes, noun="class")
    for code, name in enumerate(classes if len(classes) <= MOST_NAMED else ()):
        own = points[is_test & (label == code)]
        if len(own):
            x, y = np.median(own, axis=0)
            halo = [patheffects.withStroke(linewidth=2.5, foreground="white")]
            axes[0].text(x, y, short(name, 18), ha="center", va="center", fontsize=8, path_effects=halo)
    if group is not None:
        names, codes = np.unique(np.asarray(group, dtype=str), return_inverse=True)
        _scatter(axes[1], points, is_test=is_test, code=codes, names=list(names), noun="group")
    save(figure, path)


def _scatter(
    axis: Axes, points: FloatArray, *, is_test: np.ndarray, code: IntArray, names: Sequence[str], noun: str
) -> None:
    axis.set_title(f"by {noun}" + ("" if len(names) <= MOST_NAMED else f" ({len(names)}, too many for a legend)"))
    for index, name in enumerate(names):
        colour, marker = look(index)
        for chosen, size, alpha in ((~is_test, 5, 0.25), (is_test, 13, 0.9)):
            own = points[chosen & (code == index)]
            axis.scatter(
                own[:, 0], own[:, 1], s=size, c=colour, marker=marker, alpha=alpha, lw=0, zorder=1 + int(size > 5)
            )
        axis.scatter([], [], s=22, c=colour, marker=marker, lw=0, label=short(name, 20))
    if len(names) <= MOST_NAMED:
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=4, fontsize=7.5, handletextpad=0.2)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)
