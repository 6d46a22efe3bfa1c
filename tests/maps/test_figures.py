"""Figures of maps: any shape of slide, strange names, more classes than colours, cells without a class."""

import numpy as np
import pytest
from PIL import Image

from pipeline.figures.style import CLASS_COLOURS, area_colours
from pipeline.maps.cells import MISSING, NONE, Grid
from pipeline.maps.figures import (
    SlideView,
    draw_class_map,
    draw_disagreement,
    draw_probabilities,
    draw_side_by_side,
    draw_uncertainty,
    nice_length,
)

NAMES = ["$\\frac{1}$", "_hidden", "x" * 300, "\u5375\n\ttab", ""]


def size_of(path):
    with Image.open(path) as image:
        image.load()
        return image.size


def view_of(width, height, thumbnail=True):
    grid = Grid(0, 0, 100, -(-height // 100), -(-width // 100), width, height, 0.5)
    pixels = np.full((max(1, height // 20), max(1, width // 20), 3), 220, np.uint8) if thumbnail else None
    return SlideView(pixels, grid, "$x$ a\x00b")


@pytest.mark.parametrize(("width", "height"), [(2000, 1500), (300, 6000), (6000, 300), (100, 100)])
@pytest.mark.parametrize("thumbnail", [True, False])
def test_every_shape_of_slide(tmp_path, width, height, thumbnail):
    view = view_of(width, height, thumbnail)
    rng = np.random.default_rng(0)
    code = rng.integers(-2, 5, view.grid.shape)
    p = rng.dirichlet([1] * 5, view.grid.shape)
    p[code < 0] = np.nan
    draw_class_map(tmp_path / "m.png", view, code, classes=NAMES, head="svm")
    draw_side_by_side(tmp_path / "s.png", view, {"truth": code, "svm": code}, classes=NAMES)
    draw_probabilities(tmp_path / "p.png", view, p, classes=NAMES, head="svm")
    draw_uncertainty(tmp_path / "u.png", view, p[..., 0], head="svm")
    draw_disagreement(tmp_path / "d.png", view, rng.integers(0, 4, view.grid.shape))
    for name in "mspud":
        wide, high = size_of(tmp_path / f"{name}.png")
        assert max(wide, high) < 5000
        assert min(wide, high) > 100


def test_figures_of_many_classes_stop_at_some(tmp_path):
    view = view_of(2000, 1500)
    names = [f"P{10000 + k}" for k in range(279)]
    rng = np.random.default_rng(0)
    code, p = rng.integers(-2, 279, view.grid.shape), rng.dirichlet([1] * 279, view.grid.shape)
    draw_class_map(tmp_path / "m.png", view, code, classes=names, head="svm")
    draw_side_by_side(tmp_path / "s.png", view, {"svm": code}, classes=names)
    draw_probabilities(tmp_path / "p.png", view, p, classes=names, head="svm")
    for name in "msp":
        assert max(size_of(tmp_path / f"{name}.png")) < 2000


def test_a_map_without_any_class(tmp_path):
    view = view_of(500, 500)
    for code in (NONE, MISSING):
        draw_class_map(tmp_path / "m.png", view, np.full((5, 5), code), classes=NAMES, head="svm")
    draw_disagreement(tmp_path / "d.png", view, np.zeros((5, 5), int))


def test_a_cell_has_its_colour_where_it_lies(tmp_path):
    """The third of four quarters of the panel is the third class's colour."""
    view = view_of(200, 200, thumbnail=False)
    draw_side_by_side(tmp_path / "s.png", view, {"svm": np.array([[0, 1], [2, NONE]])}, classes=NAMES[:3])
    with Image.open(tmp_path / "s.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    places = []
    for colour in CLASS_COLOURS[:3]:
        wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        rows, columns = np.nonzero((abs(pixels - wanted) <= 2).all(axis=-1) & (np.arange(len(pixels)) < 330)[:, None])
        places.append((rows.mean(), columns.mean()))
    (top, left), (top2, right), (bottom, left2) = places
    assert top == pytest.approx(top2, abs=3)
    assert left == pytest.approx(left2, abs=3)
    assert top < bottom
    assert left < right


def test_colours_of_areas_differ():
    assert area_colours(3) == list(CLASS_COLOURS[:3])
    assert len(set(area_colours(40))) == 40


@pytest.mark.parametrize(
    ("most", "length"), [(1, 1), (0.99, 0.5), (3.7, 2), (0.05, 0.05), (7000, 5000), (0.0021, 0.002)]
)
def test_lengths_of_scale_bars_are_round(most, length):
    assert nice_length(most) == pytest.approx(length)
