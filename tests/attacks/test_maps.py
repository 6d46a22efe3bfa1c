"""Names of slides and classes from a stranger, where a map shows them: page, tables, GeoJSON, figures."""

import csv
import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.maps.cells import ClassMap, grid_of
from pipeline.maps.ground_truth import GroundTruthScore
from pipeline.maps.map_data import MapData
from pipeline.maps.write import write_files
from pipeline.names import MAIN
from pipeline.storage.csv_files import FORMULA
from pipeline.storage.embeddings.slide_info import SlideInfo
from pipeline.tiles.audit.checks import markdown_cell

from .hostile import names_in
from .test_text import ESCAPES, FORMULAS, MARKUP

SLIDE = SlideInfo("s.tif", "a" * 64, 400, 300, 0.5, 100, 0.5, 100, 100)


def maps_of(name: str) -> MapData:
    """Return maps of three heads, in which the slide, the classes, a remark and a source are called so."""
    grid = grid_of(np.array([[0, 0], [300, 200]]), SLIDE, 3)
    rng = np.random.default_rng(0)
    heads = {}
    for head in MAIN:
        p = rng.dirichlet([1, 1], grid.shape).astype(np.float32)
        heads[head] = ClassMap(grid, p, p.argmax(axis=-1).astype(np.int16))
    return MapData(
        slide=dataclasses.replace(SLIDE, slide=name),
        classes=[name, f"{name} "],
        by_head=heads,
        scores={head: GroundTruthScore(np.array([[3, 1], [2, 6]]), 0, 0, 50) for head in MAIN},
        accepted={},
        saw_source=True,
        n_tiles=12,
        n_unreadable=0,
        rejection=None,
        outlier=None,
        remarks=[name],
        sources={"slide": name, name: "b" * 64},
    )


@pytest.mark.parametrize("name", [*MARKUP, *FORMULAS, *ESCAPES])
def test_names_in_the_files_of_a_map(tmp_path: Path, name: str) -> None:
    pytest.importorskip("shapely")
    out = tmp_path / "deep" / "out"
    out.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        for drawn in ("class_map", "uncertainty", "probabilities", "side_by_side", "disagreement"):
            patch.setattr(
                f"pipeline.maps.figures.draw_{drawn}", lambda path, *_, **__: Image.new("RGB", (2, 2)).save(path)
            )
        write_files(out, maps_of(name), thumbnail=None, truth=None, objects="regions")
    assert names_in(tmp_path) == {"deep", "deep/out", *(f"deep/out/{file}" for file in names_in(out))}
    page = (out / "map.md").read_text()
    assert markdown_cell(name) in page
    plain = page.replace(markdown_cell(name), "")
    for mark in ("<", "`", "](http", "](java"):
        assert mark not in plain
    assert not any(sign in page for sign in "\x1b\x9b\x07\x08\x00\x85\u2028")
    for table in ("areas.csv", "iou.csv", "agreement.csv"):
        for row in csv.reader(io.StringIO((out / table).read_text(), newline="")):
            assert not any(cell.startswith(FORMULA) for cell in row[:2])  # the others are numbers
    for head in MAIN:
        content = json.loads((out / f"map-{head}.geojson").read_text())
        assert content["histoheads"]["slide"] == name
        for feature in content["features"]:
            called = feature["properties"]["classification"]["name"]
            assert called
            assert not any(sign in called for sign in ":\n\r\x1b\x00")


@pytest.mark.parametrize("name", [MARKUP[0], "$\\frac{1}$", "\x1b[2J", "x" * 5000])
def test_names_in_the_figures_of_a_map(tmp_path: Path, name: str) -> None:
    maps = maps_of(name)
    two = {head: maps.by_head[head] for head in MAIN[:2]}
    written = write_files(tmp_path, dataclasses.replace(maps, by_head=two), thumbnail=None, truth=None, objects=None)
    figures = [path.stat().st_size for path in written if path.suffix == ".png"]
    assert figures
    assert max(figures) < 500_000
