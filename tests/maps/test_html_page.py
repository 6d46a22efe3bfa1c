"""map.html: what it carries, and what a reader sees of a cell."""

import base64
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.figures.style import class_colours
from pipeline.maps import html_page
from pipeline.maps.cells import MISSING, NONE, REJECTED, ClassMap, grid_of
from pipeline.maps.map_data import MapData
from pipeline.maps.write import write_files
from pipeline.storage.embeddings.slide_info import SlideInfo

HOSTILE = "</script><img src=x onerror=document.title='changed'>"
SLIDE = SlideInfo("s.tif", "a" * 64, 400, 300, 0.5, 100, 0.5, 100, 100)


@pytest.fixture
def maps() -> MapData:
    """Two heads on 3 x 4 cells of three classes; the first ones are not mapped, not read, rejected."""
    grid = grid_of(np.array([[0, 0], [300, 200]]), SLIDE, 3)
    rng, heads = np.random.default_rng(0), {}
    for head in ("softmax", "svm"):
        p = rng.dirichlet([1, 1, 1], grid.shape).astype(np.float32)
        code = p.argmax(axis=-1).astype(np.int16)
        code[0, :3] = NONE, MISSING, REJECTED
        p[0, :3] = np.nan
        heads[head] = ClassMap(grid, p, code)
    return MapData(
        slide=SLIDE, classes=["TUM", "STR", HOSTILE], by_head=heads, scores={}, accepted={}, saw_source=False,
        n_tiles=12, n_unreadable=1, rejection=None, outlier=None, remarks=[], sources={"slide": "a" * 64},
    )  # fmt: skip


@pytest.fixture
def page(maps: MapData, tmp_path: Path) -> str:
    """Return map.html as it is written, with a thumbnail."""
    thumbnail = np.full((150, 200, 3), 200, np.uint8)
    write_files(tmp_path, maps, thumbnail=thumbnail, truth=None, objects=None)
    return (tmp_path / "map.html").read_text(encoding="utf-8")


def test_each_cell_shows_class_uncertainty_and_probabilities(
    open_html: Callable[..., Any], page: str, maps: MapData
) -> None:
    browser = open_html(page, waits_for="#slide-map canvas")
    assert browser.page.locator("#slide-map canvas").count() == 2
    browser.page.locator("#slide-map canvas").nth(1).evaluate("e => e.scrollIntoView()")
    box = browser.page.locator("#slide-map canvas").nth(1).bounding_box()
    for row, column in ((0, 0), (0, 1), (0, 2), (1, 2), (2, 3)):
        browser.page.mouse.move(
            box["x"] + (column + 0.5) / 4 * box["width"], box["y"] + (row + 0.5) / 3 * box["height"]
        )
        lines = [line.split("\t") for line in browser.page.inner_text("#cell table").splitlines() if "\t" in line]
        shown = {name.strip(): [value.strip() for value in values] for name, *values in lines}
        code = [int(one.code[row, column]) for one in maps.by_head.values()]
        words = {
            NONE: "not mapped",
            MISSING: "could not be read",
            REJECTED: "rejected",
            **dict(enumerate(maps.classes)),
        }
        assert shown["class"] == [words[each] for each in code]
        if code[0] < 0:
            assert len(shown) == 3  # with the line of headings
            continue
        for k, name in enumerate(maps.classes):
            p = [float(one.p[row, column, k]) for one in maps.by_head.values()]
            assert [float(value) for value in shown[f"p of {name}"]] == pytest.approx(p, abs=0.008)
        entropy = [float(one.uncertainty[row, column]) for one in maps.by_head.values()]
        assert [float(value) for value in shown["uncertainty"]] == pytest.approx(entropy, abs=0.008)
    assert browser.problems == []
    assert browser.sent() == []
    assert browser.page.title() != "changed"


def test_the_colours_follow_class_probability_and_opacity(
    open_html: Callable[..., Any], page: str, maps: MapData
) -> None:
    browser = open_html(page, waits_for="#slide-map canvas")
    row, column = 1, 2
    code, p = (getattr(maps.by_head["softmax"], name)[row, column] for name in ("code", "p"))

    def colour() -> list[int]:
        place = f"({(column + 0.5) / 4} * c.width, {(row + 0.5) / 3} * c.height, 1, 1)"
        return browser.page.eval_on_selector(
            "#slide-map canvas", f"c => Array.from(c.getContext('2d').getImageData{place}.data).slice(0, 3)"
        )

    def opaque(percent: int) -> None:
        browser.page.eval_on_selector(
            "#opacity", f"e => {{ e.value = {percent}; e.dispatchEvent(new Event('input')); }}"
        )

    opaque(100)
    own = np.array(class_colours(3)[int(code)])
    assert colour() == pytest.approx(own.tolist(), abs=1)
    browser.page.get_by_label("Show").select_option(str(int(code)))
    assert colour() == pytest.approx((255 + (own - 255) * p[int(code)]).tolist(), abs=2)
    opaque(0)
    assert colour() == pytest.approx([200, 200, 200], abs=3)  # the thumbnail


def test_the_arrow_keys_move_from_cell_to_cell(open_html: Callable[..., Any], page: str) -> None:
    browser = open_html(page, waits_for="#slide-map canvas")
    browser.page.focus("#slide-map canvas")
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "ArrowLeft", "ArrowLeft"):  # the first press shows cell 1, 1
        browser.page.keyboard.press(key)
    assert browser.page.inner_text("#cell caption").startswith("Row 2, column 1:")


def test_the_address_keeps_head_layer_opacity_and_cell(open_html: Callable[..., Any], page: str) -> None:
    browser = open_html(page, waits_for="#slide-map canvas")
    browser.page.get_by_label("Show").select_option("2")
    browser.page.get_by_label("Head").select_option(label="SVM")
    browser.page.eval_on_selector("#opacity", "e => { e.value = 40; e.dispatchEvent(new Event('change')); }")
    browser.page.locator("#slide-map canvas:visible").click()
    place = browser.page.inner_text("#cell caption")
    address = "#" + browser.page.url.partition("#")[2]
    again = open_html(page, waits_for="#slide-map canvas:visible", address=address).page
    assert again.locator("#slide-map canvas:visible").count() == 1
    assert again.locator("#slide-map figcaption:visible").inner_text() == "SVM"
    assert again.get_by_label("Show").input_value() == "2"
    assert again.input_value("#opacity") == "40"
    assert again.inner_text("#cell caption") == place
    again.locator("#slide-map canvas:visible").click()  # the same cell again: none is selected
    assert "cell" not in again.url
    assert browser.problems == []


@pytest.mark.parametrize("words", ["%7B", "%7B%22head%22%3A9%2C%22layer%22%3A%22constructor%22%7D", "%", "3", "null"])
def test_an_address_that_does_not_fit_is_ignored(open_html: Callable[..., Any], page: str, words: str) -> None:
    browser = open_html(page, waits_for="#slide-map canvas", address=f"#slide-map={words}")
    assert browser.page.locator("#slide-map canvas:visible").count() == 2
    assert browser.page.get_by_label("Show").input_value() == "class"
    assert browser.problems == []


@pytest.mark.parametrize("width", [360, 1200])
def test_the_page_fits_and_has_no_serious_finding(
    open_html: Callable[..., Any], page: str, axe: str, width: int
) -> None:
    browser = open_html(page, waits_for="#slide-map canvas", width=width)
    assert browser.page.evaluate("document.documentElement.scrollWidth") <= width
    browser.page.hover("#slide-map canvas")
    found = browser.serious(axe)
    assert found == [], "\n".join(found)


def test_what_the_page_carries_is_bounded(maps: MapData, monkeypatch: pytest.MonkeyPatch) -> None:
    def payload() -> Any:
        return html_page.map_payload(maps, thumbnail=np.zeros((10, 3000, 3), np.uint8), colours=class_colours(3))

    n_cells = 2 * 12
    assert base64.b64decode(payload()["heads"][0]["p"])[:6] == bytes(6)  # cells without a class
    monkeypatch.setattr(html_page, "MOST_VALUES", 6 * n_cells - 1)
    assert [head["p"] for head in payload()["heads"]] == [None, None]
    monkeypatch.setattr(html_page, "MOST_VALUES", 3 * n_cells - 1)
    assert payload() is None


def test_a_slide_of_one_tile_without_a_thumbnail(open_html: Callable[..., Any], maps: MapData, tmp_path: Path) -> None:
    slide = dataclasses.replace(SLIDE, slide_width=100, slide_height=100)
    grid = grid_of(np.array([[0, 0]]), slide, 2)
    one = ClassMap(grid, np.array([[[0.25, 0.75]]], np.float32), np.array([[1]], np.int16))
    single = dataclasses.replace(maps, slide=slide, classes=["a", "b"], by_head={"svm": one}, n_tiles=1)
    write_files(tmp_path, single, thumbnail=None, truth=None, objects=None)
    browser = open_html((tmp_path / "map.html").read_text(encoding="utf-8"), waits_for="#slide-map canvas")
    browser.page.hover("#slide-map canvas")
    assert "0.75" in browser.page.inner_text("#cell")
    assert browser.problems == []
