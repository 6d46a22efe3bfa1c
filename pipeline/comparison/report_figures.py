"""Draw the report's own figures: the data, the caption, or why a figure could not be drawn."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from pipeline.comparison.predictions import Predictions
from pipeline.comparison.run_files import RunFiles
from pipeline.comparison.scores import Score
from pipeline.errors import BadTile
from pipeline.evaluation import metrics
from pipeline.figures.embedding_map import MOST_ROWS, choose_rows, draw_map, project
from pipeline.figures.gallery import HeadPrediction, Picture, draw_gallery
from pipeline.figures.heads import (
    ScoreRow,
    draw_class_bars,
    draw_confusion,
    draw_reliability,
    draw_score_rows,
    most_misclassified,
    shown_text,
)
from pipeline.figures.selective import draw_selective
from pipeline.markup.document import Figure
from pipeline.markup.number_format import count, head_name
from pipeline.names import SPLITS, RunFile
from pipeline.storage.embeddings.reader import OK, Embeddings, feature_rows
from pipeline.tiles.decoding import decode_tile, pixel_hash
from pipeline.tiles.manifest import Manifest

LEAST_POINTS = 5
"""A map of fewer tiles shows nothing."""

FIGURES = (
    "scores.png",
    "confusion.png",
    "per_class_f1.png",
    "reliability.png",
    "selective.png",
    "embedding_map.png",
    "errors.png",
)
"""Everything that this module may draw."""

TRAIN, TEST = SPLITS.index("train"), SPLITS.index("test")


@dataclasses.dataclass(frozen=True)
class EmbeddingMap:
    """The map of the embeddings, as a figure and as points."""

    figure: Figure
    tile_id: np.ndarray
    """(M,) names of the tiles."""

    points: np.ndarray
    """(M, 2) float64."""


@dataclasses.dataclass(frozen=True)
class WorstError:
    """A test tile that at least one head misclassifies."""

    row: int
    """Its row in `Predictions.tiles`."""

    probability: float
    """The highest probability of a wrong prediction."""


def worst_errors(predictions: Predictions, n: int) -> list[WorstError]:
    """Return the n test tiles misclassified with the highest probability, the worst first; equal ones in file order.

    A tile that was tested once per seed counts by its worst row.
    """
    rows = predictions.rows("test")
    worst = np.zeros(len(rows))
    for head in predictions.main_heads:
        is_wrong = predictions.predicted[head][rows] != predictions.y[rows]
        # at least the smallest float: a wrong prediction with probability 0 is still an error
        wrong = np.maximum(predictions.named_probability(head, rows), np.finfo(float).tiny) * is_wrong
        worst = np.maximum(worst, wrong)
    order = np.argsort(-worst, kind="stable")
    n_seeds = len(np.unique(predictions.tiles["seed"].to_numpy()[rows]))
    order = order[worst[order] > 0][: n * n_seeds]  # which are n tiles at least
    tile = predictions.tile_code[rows[order]]
    first = np.sort(np.unique(tile, return_index=True)[1])[:n]
    return [WorstError(int(rows[i]), float(worst[i])) for i in order[first]]


def draw_scores(folder: Path, predictions: Predictions) -> dict[str, Figure]:
    """Draw the figures that need predictions.csv only; return them by name.

    Args:
        folder: the run's folder of figures.
        predictions: of all heads.
    """
    rows, classes = predictions.rows("test"), predictions.classes
    y = predictions.y[rows]
    heads = [head_name(head) for head in predictions.main_heads]
    predicted = {head_name(head): predictions.predicted[head][rows] for head in predictions.main_heads}
    matrices = {head: metrics.confusion(y, predicted[head], len(classes)) for head in heads}
    shown = most_misclassified(list(matrices.values()))
    rest = shown_text(len(shown), len(classes))
    rest = f" Shown are {rest}." if rest else ""
    draw_confusion(folder / "confusion.png", matrices, classes=classes)
    draw_class_bars(
        folder / "per_class_f1.png",
        {head: metrics.class_metrics(y, predicted[head], len(classes))["f1"] for head in heads},
        classes=classes,
        support=np.bincount(y, minlength=len(classes)),
        chosen=shown,
    )
    bins = {
        head_name(head): {
            split: predictions.reliability(head, split)
            for split in ("val", "test")
            if len(predictions.rows(split)) and not predictions.is_fitted_on(head, split)
        }
        for head in predictions.main_heads
    }
    draw_reliability(folder / "reliability.png", bins, heads=heads)
    curves = {head_name(head): predictions.selective(head) for head in predictions.main_heads}
    draw_selective(folder / "selective.png", curves)
    return {
        "confusion": Figure(
            "figures/confusion.png",
            "Confusion matrix of each head on the test rows",
            "Test rows. A row is a true class, a column a predicted class. Numbers count test rows; colours give their "
            f"share of the true class. Tiles off the diagonal are misclassified.{rest}",
        ),
        "classes": Figure(
            "figures/per_class_f1.png",
            "Bars of the F1 of each class and head on the test rows",
            f"F1 of each class (harmonic mean of precision and recall) on the test rows.{rest}",
        ),
        "reliability": Figure(
            "figures/reliability.png",
            "Reliability curve of each head, validation and test rows",
            "On the diagonal, 80 % of the tiles with 80 % confidence are classified correctly; below it a head is "
            "overconfident. Small points and low bars are few tiles and mean little.",
        ),
        "selective": Figure(
            "figures/selective.png",
            "Accuracy of each head against the share of tiles that it classifies",
            "Accuracy on the test tiles with the highest confidence, from 10 % of the tiles to all; dotted: accuracy "
            "on all tiles. Below 10 % the curves jump by single tiles.",
        ),
    }


def draw_main_scores(folder: Path, predictions: Predictions, scores: Mapping[tuple[str, str, str], Score]) -> Figure:
    """Draw the macro-F1 of heads and baselines with its intervals; return the figure."""
    heads = [*predictions.main_heads, *predictions.baselines]
    found = ((head, scores[head, "test", "macro_f1"]) for head in heads)
    rows = [
        ScoreRow(head_name(head), score.value, score.low, score.high, is_baseline=head in predictions.baselines)
        for head, score in found
    ]
    draw_score_rows(folder / "scores.png", rows, label="macro-F1 on the test rows")
    return Figure(
        "figures/scores.png",
        "Macro-F1 of heads and baselines on one axis, with intervals",
        "Macro-F1 on the test rows with its interval. Round: heads. Square: baselines.",
    )


def draw_embedding_map(
    folder: Path, files: RunFiles, predictions: Predictions, *, method: Literal["tsne", "pca"], seed: int
) -> EmbeddingMap | str:
    """Draw the map of the embeddings; return it, or the sentence on why there is none."""
    embeddings = files.embeddings
    if embeddings is None:
        return files.reason(RunFile.EMBEDDINGS)
    if embeddings.classes != predictions.classes or not set(predictions.tiles["tile_id"]) <= set(embeddings.tile_id):
        return "embeddings.h5 holds other tiles or classes than predictions.csv: run fit_heads again."
    label, is_test = embeddings.label.astype(np.int64), embeddings.split == TEST
    usable = (embeddings.status == OK) & (label >= 0) & (is_test | (embeddings.split == TRAIN))
    rows = np.flatnonzero(usable)
    rows = rows[choose_rows(is_test[rows], label[rows])]
    if len(rows) < LEAST_POINTS:
        return f"{count(len(rows), 'embedding')} cannot be mapped."
    features = feature_rows(folder.parent / RunFile.EMBEDDINGS, rows)
    points = project(features, method=method, seed=seed)
    draw_map(
        folder / "embedding_map.png",
        points,
        is_test=is_test[rows],
        label=label[rows],
        classes=predictions.classes,
        group=[embeddings.group[row] for row in rows] if predictions.groups_known else None,
    )
    caption = _map_caption(embeddings, rows, method, n_features=features.shape[1])
    figure = Figure("figures/embedding_map.png", "Map of the embeddings, a point per tile", caption)
    return EmbeddingMap(figure, np.asarray(embeddings.tile_id, dtype=str)[rows], points)


def _map_caption(embeddings: Embeddings, rows: np.ndarray, method: str, *, n_features: int) -> str:
    n_test = int((embeddings.split[rows] == TEST).sum())
    how = (
        "t-SNE of the first 50 principal components: neighbours are similar, but distances between clusters and "
        "their sizes mean nothing"
        if method == "tsne"
        else "The first two principal components"
    )
    limit = f" At most {MOST_ROWS} tiles are drawn, evenly from the classes." if len(rows) >= MOST_ROWS else ""
    return (
        f"The network's features ({n_features} numbers a tile) in two dimensions: "
        f"{count(n_test, 'test tile')} and, faint, {count(len(rows) - n_test, 'training tile')}. {how}. Training "
        f"tiles look better separated than new tiles: the network has seen their labels.{limit}"
    )


def draw_errors(folder: Path, files: RunFiles, predictions: Predictions, worst: list[WorstError]) -> Figure | str:
    """Draw the gallery of the worst errors; return it, or the sentence on why there is none."""
    if not worst:
        return "No head misclassifies any test tile."
    if files.manifest is None:
        return files.reason(RunFile.MANIFEST)
    table = files.manifest.table.set_index("tile_id")
    read = tile_reader(files.manifest)
    pictures = []
    for error in worst:
        tile_id = predictions.tiles["tile_id"].iloc[error.row]
        pixels = read(table.loc[tile_id, "path"], table.loc[tile_id, "sha256"]) if tile_id in table.index else None
        pictures.append(
            Picture(
                pixels,
                label=predictions.tiles["label"].iloc[error.row],
                predictions=predictions_for(predictions, error.row),
            )
        )
    n_unread = sum(picture.pixels is None for picture in pictures)
    if n_unread == len(pictures):
        return "None of these tiles can be read any more as manifest.csv names them."
    draw_gallery(folder / "errors.png", pictures)
    gone = f" {count(n_unread, 'tile')} can no longer be read or changed since prepare." if n_unread else ""
    return Figure(
        "figures/errors.png",
        "Gallery of the worst errors with the prediction of each head",
        f"The true class is above each tile, the predictions with their probabilities are below.{gone}",
    )


def predictions_for(predictions: Predictions, row: int) -> list[HeadPrediction]:
    """Return the prediction of every head for one tile."""
    return [
        HeadPrediction(
            head=head_name(head),
            predicted=predictions.classes[code := int(predictions.predicted[head][row])],
            probability=float(predictions.probabilities(head, np.array([row]))[0, code]),
            correct=code == predictions.y[row],
        )
        for head in predictions.main_heads
    ]


def tile_reader(manifest: Manifest) -> Callable[[str, str], np.ndarray | None]:
    """Return a function that reads a tile; it returns None if the tile is gone or changed since prepare."""

    def read(path: str, sha256: str) -> np.ndarray | None:
        try:
            pixels = decode_tile(manifest.root / path)
        except BadTile:
            return None
        return pixels if pixel_hash(pixels).hex() == sha256 else None

    return read
