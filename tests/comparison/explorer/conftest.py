"""A browser with an open page, shared by the tests of pages."""

import dataclasses
import shutil
from collections.abc import Callable, Iterator
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

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

SHARES = {"softmax": 0.3, "svm": 0.2, "histogram_svm": 0.4}


@dataclasses.dataclass
class Browser:
    """An open page, and what it wrote to the console or asked the network for."""

    page: Any
    problems: list[str]
    requests: list[str]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no chromium")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def show(chromium: Any, tmp_path: Path) -> Iterator[Callable[..., Browser]]:
    """Return a function that opens the explorer of a report, or an HTML text."""
    pages = []

    def open_page(
        data: ReportData | str, *, address: str = "", width: int = 1200, waits_for: str = "#selected"
    ) -> Browser:
        html = data if isinstance(data, str) else to_html(Document("made", [explore.section(data)]), folder=tmp_path)
        (tmp_path / "report.html").write_text(html, encoding="utf-8")
        page = chromium.new_page(viewport={"width": width, "height": 900})
        pages.append(page)
        found = Browser(page, [], [])
        page.on("console", lambda message: found.problems.append(message.text))
        page.on("pageerror", lambda error: found.problems.append(str(error)))
        page.on("request", lambda request: found.requests.append(request.url))
        page.goto(f"file://{tmp_path}/report.html{address}")
        page.wait_for_selector(waits_for)
        return found

    yield open_page
    for page in pages:
        page.close()


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
