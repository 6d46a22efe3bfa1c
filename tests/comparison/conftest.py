"""Predictions made in memory."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from pipeline.comparison.predictions import Predictions


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
            record={"details": {"protocol": protocol, "dataset": "made"}},
        )

    return make
