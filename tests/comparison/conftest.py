"""Predictions and the data of a report made in memory."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.comparison.group_level import GroupRequest, group_level
from pipeline.comparison.heads_summary import HeadFacts, HeadsSummary
from pipeline.comparison.predictions import Predictions
from pipeline.comparison.recommendation import judge
from pipeline.comparison.report_data import ReportData
from pipeline.comparison.run_files import RunFiles
from pipeline.comparison.scores import by_key, choose_resampling, score_heads
from pipeline.markup.document import Figure


@pytest.fixture
def make_predictions() -> Callable[..., Predictions]:
    """Return a function that makes Predictions from class codes per head; all tiles are test rows by default."""

    def make(
        y: list[int],
        answers: dict[str, list[int]],
        *,
        group: list[str] | None = None,
        split: list[str] | None = None,
        tile_id: list[str] | None = None,
        seed: list[int] | None = None,
        fold: list[int] | None = None,
        classes: tuple[str, ...] = ("a", "b", "c"),
        confidence: float = 0.8,
        protocol: str = "grouped",
    ) -> Predictions:
        n, k = len(y), len(classes)
        p = {}
        for head, named in answers.items():
            p[head] = np.full((n, k), (1 - confidence) / (k - 1))
            p[head][np.arange(n), named] = confidence
        tiles = pd.DataFrame(
            {
                "tile_id": tile_id or [f"tile_{i}" for i in range(n)],
                "group": group or [f"g{i}" for i in range(n)],
                "split": split or ["test"] * n,
                "label": [classes[code] for code in y],
                "seed": seed or [0] * n,
                "fold": fold or [0] * n,
            }
        )
        return Predictions(
            classes=list(classes),
            heads=list(answers),
            tiles=tiles,
            y=np.array(y),
            p=p,
            predicted={head: np.array(named) for head, named in answers.items()},
            record={"details": {"protocol": protocol, "dataset": "made"}, "versions": {}, "git": None},
        )

    return make


@pytest.fixture
def make_data(tmp_path: Path) -> Callable[..., ReportData]:
    """Return a function that makes the data of a report from Predictions; `fields` replace those of ReportData."""

    def make(
        predictions: Predictions,
        *,
        draws: int = 200,
        n_train: float | None = None,
        heads: Mapping[str, HeadFacts] | None = None,
        missing: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> ReportData:
        resampling = choose_resampling(predictions, n_draws=draws, seed=0, level=0.95)
        scores = by_key(score_heads(predictions, resampling, {}))
        summary = HeadsSummary(heads or {}, probe="not asked", separability={}, training=None)
        files = RunFiles(
            summary=summary if heads else None,
            history=None,
            model=None,
            findings=None,
            manifest=None,
            embeddings=None,
            figures=frozenset(),
            missing=missing or {},
        )
        names = ("scores", "confusion", "classes", "reliability", "selective")
        made: dict[str, Any] = {
            "run": tmp_path,
            "predictions": predictions,
            "files": files,
            "resampling": resampling,
            "scores": scores,
            "verdict": judge(predictions, scores, resampling, n_train=n_train),
            "groups": group_level(predictions, GroupRequest()),
            "protocol": None,
            "random_control": None,
            "corrupted": None,
            "suspects": "none",
            "figures": {name: Figure(f"figures/{name}.png", name, name) for name in names},
            "map": "none",
            "worst": [],
            "gallery": "none",
            "n_gallery": 12,
            "options": {},
        }
        return ReportData(**made | fields)

    return make
