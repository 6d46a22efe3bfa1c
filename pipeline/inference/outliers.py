"""Reject tiles that are far from all classes that the heads were trained on."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pipeline.errors import BadArtifact, BadInput
from pipeline.evaluation.folds import evenly_spaced
from pipeline.evaluation.outlier import OutlierModel, fit_outlier_model, left_out_aurocs, rejection_threshold
from pipeline.inference.saved_heads import SavedHeads
from pipeline.names import SPLITS
from pipeline.storage import records
from pipeline.storage.embeddings.reader import OK, SCHEMA, Embeddings, feature_blocks, feature_rows, read_embeddings

MOST_ROWS = 20_000
"""Most rows of a split that the model or the threshold comes from, evenly spaced."""


@dataclasses.dataclass(frozen=True)
class Rejection:
    """A fitted outlier model with its threshold."""

    embeddings: Path
    """The embeddings of the run that both come from."""

    model: OutlierModel
    threshold: float
    rate: float
    """Largest probability with which a tile like the held-out tiles is rejected."""

    n_train: int
    n_held_out: int
    aurocs: Mapping[str, float]
    """Class -> AUROC with which its held-out tiles are outliers, without its training tiles."""


def fit_rejection(place: Path, saved: SavedHeads, rate: float) -> Rejection:
    """Return the outlier model of a run: distances to its training tiles, the threshold from its validation tiles.

    Args:
        place: folder of the run, or of a part of its plan.
        saved: its heads.
        rate: as in `Rejection`.

    Raises:
        BadArtifact: the embeddings that the heads were fitted on are missing, or others are there.
        BadInput: too few validation tiles for the rate.
    """
    path = place / str(saved.embedded["artifact"])
    if records.check_artifact(path, schema=SCHEMA)["sha256"] != saved.embedded["sha256"]:
        raise BadArtifact(f"{path}: not the embeddings that the heads were fitted on: run fit_heads again")
    content = read_embeddings(path, with_features=False)
    splits = []
    for name in SPLITS[:2]:
        rows = np.flatnonzero((content.status == OK) & (content.split == SPLITS.index(name)) & (content.label >= 0))
        rows = evenly_spaced(rows, MOST_ROWS)
        splits.append((feature_rows(path, rows).astype(np.float64), content.label[rows].astype(np.int64)))
    train, held_out = splits
    if not len(train[1]):
        raise BadInput(f"{path}: no training tile: --reject needs some")
    model = fit_outlier_model(*train)
    threshold = rejection_threshold(model.scores(held_out[0]), rate) if len(held_out[1]) else math.inf
    if threshold == math.inf:
        raise BadInput(
            f"--reject {rate:g}: needs {math.ceil(1 / rate) - 1} validation tiles, {path} has {len(held_out[1])}: "
            "give a larger rate"
        )
    aurocs = left_out_aurocs(train, held_out, range(len(content.classes)))
    named = {content.classes[code]: auroc for code, auroc in aurocs.items()}
    return Rejection(path, model, threshold, rate, len(train[1]), len(held_out[1]), named)


def outlier_scores(rejection: Rejection, content: Embeddings, path: Path) -> np.ndarray:
    """Return the outlier scores (M,) of readable rows, divided by the threshold: a row above 1 is rejected.

    Args:
        rejection: as from `fit_rejection`.
        content: the file's content, without features.
        path: the file; it is read in blocks.
    """
    scores, start = [], 0
    for block in feature_blocks(path, content.status):
        ok = content.status[start : start + len(block)] == OK
        scores.append(rejection.model.scores(block[ok].astype(np.float64)))
        start += len(block)
    return np.asarray(np.concatenate(scores) / rejection.threshold)
