"""Measure size and load time of report.html by the number of test tiles; print a table as Markdown.

    python reports/bench/report_page.py 1000 5000 20000

The predictions are made up: 8 classes, 20 groups, 4 heads and 5 baselines, 2000 draws. The thumbnails are those of 160
synthetic tiles of 96 px, each for many names. Training tiles are left out, so that no tile has nearest ones. Needs
playwright and Debian's chromium. Times are medians of three loads from disk: first contentful paint, and the end of
all scripts (the explorer is there).
"""

import argparse
import dataclasses
import shutil
import statistics
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
from PIL import Image
from playwright.sync_api import sync_playwright

from pipeline.cli.options import Common
from pipeline.comparison.predictions import Predictions
from pipeline.comparison.report_data import ReportData
from pipeline.comparison.report_figures import EmbeddingMap
from pipeline.comparison.sections.build import build
from pipeline.figures.embedding_map import MOST_ROWS
from pipeline.markup.document import Figure, to_html
from pipeline.report import ReportOptions, collect
from pipeline.tiles.decoding import pixel_hash
from pipeline.tiles.synthetic.tiles import CLASSES, render_tile

SKILL = {"softmax": 3, "svm": 4, "xgboost": 3, "mean": 4}
SKILL |= {"majority": 0, "histogram_svm": 2, "handcrafted_xgboost": 2, "untrained_svm": 2, "knn": 3}
"""Head -> what it adds to the score of the true class."""

N_GROUPS, N_PICTURES, TILE_PX, N_LOADS = 20, 160, 96, 3


def write_pictures(folder: Path) -> list[tuple[str, str]]:
    """Write synthetic tiles; return the path and the hash of each."""
    written = []
    for i in range(N_PICTURES):
        pixels = render_tile(CLASSES[i % 8], source=1 + i % 10, tile_px=TILE_PX, rng=np.random.default_rng(i))
        Image.fromarray(pixels).save(folder / f"{i}.png")
        written.append((f"{i}.png", pixel_hash(pixels).hex()))
    return written


def made_up(folder: Path, pictures: list[tuple[str, str]], n: int) -> ReportData:
    """Return the data of a report on n test tiles."""
    rng = np.random.default_rng(0)
    y, group = rng.integers(8, size=n), rng.integers(N_GROUPS, size=n)
    habit = rng.normal(0, 0.7, (N_GROUPS, 8))
    p = {}
    for head, skill in SKILL.items():
        scores = rng.normal(size=(n, 8)) + habit[group]
        scores[np.arange(n), y] += skill
        p[head] = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    names = [
        f"{CLASSES[code]}/CRC-Prim-HE-{g:02d}_tile_{i:05d}" for i, (code, g) in enumerate(zip(y, group, strict=True))
    ]
    tiles = pd.DataFrame({"tile_id": names, "group": [f"patient_{g:02d}" for g in group], "split": "test"})
    tiles = tiles.assign(label=np.array(CLASSES)[y], seed=0, fold=0)
    predicted = {head: each.argmax(axis=1) for head, each in p.items()}
    details = {"protocol": "grouped", "dataset": "made up"}
    predictions = Predictions(
        list(CLASSES), list(SKILL), tiles, y, p, predicted, {"details": details, "versions": {}, "git": None}
    )
    options = ReportOptions(map="none", gallery=0)
    data = collect(Common(run=folder), options, predictions, [], protocol=None)
    files = [pictures[i % N_PICTURES] for i in range(n)]
    table = pd.DataFrame({"tile_id": names, "path": [path for path, _ in files], "sha256": [sha for _, sha in files]})
    manifest = SimpleNamespace(table=table, root=folder)
    drawn = data.figures["scores"]
    shown = np.sort(rng.permutation(n)[:MOST_ROWS])
    points = EmbeddingMap(Figure(drawn.file, "map", "map"), np.array(names)[shown], rng.normal(size=(len(shown), 2)))
    return dataclasses.replace(data, files=dataclasses.replace(data.files, manifest=manifest), map=points, n_gallery=12)


def load_times(page_file: Path) -> tuple[float, float]:
    """Return seconds to the first paint and to the explorer, medians of three loads."""
    found = []
    with sync_playwright() as playwright:
        for _ in range(N_LOADS):
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(page_file.as_uri())
            page.wait_for_selector("#selected", state="attached")
            paint = "performance.getEntriesByName('first-contentful-paint')[0]"
            page.wait_for_function(f"{paint} !== undefined")
            loaded = "performance.getEntriesByType('navigation')[0].loadEventEnd"
            found.append((page.evaluate(f"{paint}.startTime") / 1000, page.evaluate(loaded) / 1000))
            browser.close()
    first, last = zip(*found, strict=True)
    return statistics.median(first), statistics.median(last)


def main() -> None:
    """Print a line for each number of tiles."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tiles", type=int, nargs="+")
    numbers = parser.parse_args().tiles
    print("| test tiles | report.html, MB | first paint, s | all loaded, s |\n|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures = write_pictures(folder)
        for n in numbers:
            (folder / "report.html").write_text(to_html(build(made_up(folder, pictures, n)), folder=folder), "utf-8")
            size = (folder / "report.html").stat().st_size / 1e6
            first, last = load_times(folder / "report.html")
            print(f"| {n:,} | {size:.1f} | {first:.1f} | {last:.1f} |", flush=True)


if __name__ == "__main__":
    main()
