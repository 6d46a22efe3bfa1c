"""Reports to open in a browser."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.comparison.predictions import Predictions
from pipeline.comparison.report_data import ReportData
from pipeline.comparison.report_figures import EmbeddingMap
from pipeline.comparison.sections import explore
from pipeline.comparison.sections.build import build
from pipeline.markup.document import Document, Figure, to_html

SHARES = {"softmax": 0.3, "svm": 0.2, "histogram_svm": 0.4}


@pytest.fixture
def show(open_html: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """Return a function that opens the explorer of a report, or an HTML text."""

    def open_page(data: ReportData | str, **more: Any) -> Any:
        html = data if isinstance(data, str) else to_html(Document("made", [explore.section(data)]), folder=tmp_path)
        return open_html(html, waits_for="#selected", **more)

    return open_page


@pytest.fixture
def data(make_predictions: Callable[..., Predictions], make_data: Callable[..., ReportData]) -> ReportData:
    """Two heads and a baseline on 90 test tiles of 9 groups and 3 classes, with noisy probabilities and a map."""
    rng = np.random.default_rng(3)
    y = rng.integers(3, size=90)
    wrong = {head: np.where(rng.random(90) < share, (y + 1) % 3, y) for head, share in SHARES.items()}
    predictions = make_predictions(
        y.tolist(), {head: answer.tolist() for head, answer in wrong.items()}, group=[f"g{i % 9}" for i in range(90)]
    )
    for head in predictions.heads:
        predictions.p[head][:] = rng.dirichlet(np.ones(3), 90)
    drawn = EmbeddingMap(
        Figure("figures/embedding_map.png", "A map", "A map."),
        predictions.tiles["tile_id"].to_numpy(str),
        rng.random((90, 2)),
    )
    return make_data(predictions, map=drawn)


@pytest.fixture
def whole_report(data: ReportData, tmp_path: Path) -> str:
    """Return the HTML of a report with all its sections; its figures are white."""
    document = build(data)
    for figure in document.figures:
        (tmp_path / figure.file).parent.mkdir(exist_ok=True)
        Image.new("RGB", (60, 40), "white").save(tmp_path / figure.file)
    return to_html(document, folder=tmp_path)
