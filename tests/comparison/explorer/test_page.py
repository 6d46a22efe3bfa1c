"""The explorer in a browser: selections, recomputed scores, and what the page never does."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.comparison.explorer import carried, nearest
from pipeline.comparison.predictions import Predictions
from pipeline.comparison.recommendation import judge
from pipeline.comparison.report_data import ReportData
from pipeline.comparison.scores import Score, by_key, choose_resampling, score_heads
from pipeline.comparison.sections import explore
from pipeline.evaluation.bootstrap import paired_counts, paired_difference, resampling_counts, tail_probability
from pipeline.evaluation.bootstrap_sums import metrics_of_sums, unit_statistics
from pipeline.evaluation.metrics import confusion, scalar_metrics
from pipeline.evaluation.significance import holm, sign_flip
from pipeline.markup.document import Document, to_html
from pipeline.tiles.decoding import pixel_hash

Browser = Any
"""As tests/browser.py makes it: page, problems, requests."""


def n_selected(browser: Browser) -> int:
    return int(browser.page.inner_text("#selected").split()[0])


def recomputed(browser: Browser) -> tuple[int, int]:
    """Return how many numbers agree, and how many were compared."""
    browser.page.click("#recompute")
    agree, compared = re.findall(r"(\d+) of (\d+)", browser.page.inner_text("#recomputed"))[0]
    return int(agree), int(compared)


def test_each_cell_selects_exactly_its_tiles(show: Callable[..., Browser], data: ReportData) -> None:
    browser = show(data)
    assert n_selected(browser) == 90
    counts = confusion(data.predictions.y, data.predictions.predicted["softmax"], 3)
    for true in range(3):
        for predicted in range(3):
            browser.page.click(f'[data-cell="{true}-{predicted}"]')
            assert n_selected(browser) == counts[true, predicted]
            assert browser.page.locator(".tiles button").count() == counts[true, predicted]
    assert browser.problems == []


def test_the_surest_error_is_first_and_opens(show: Callable[..., Browser], data: ReportData) -> None:
    browser = show(data)
    predictions = data.predictions
    sure = predictions.named_probability("softmax", np.arange(90))
    wrong = predictions.predicted["softmax"] != predictions.y
    first = int(np.argmax(np.where(wrong, sure, -1)))
    browser.page.locator(".tiles button").first.click()
    assert browser.page.get_attribute(".detail", "aria-label") == f"Tile tile_{first}"


def shown_probabilities(browser: Browser, heads: list[str]) -> dict[str, dict[str, float]]:
    """Return head -> class -> probability of the open tile, as its table has them."""
    lines = browser.page.locator(".detail tbody tr").all()
    cells = [[cell.inner_text() for cell in line.locator("td").all()] for line in lines]
    return {head: {name: float(values[h]) for name, *values in cells} for h, head in enumerate(heads)}


@pytest.mark.parametrize("n_classes", [2, 40])
def test_an_open_tile_has_the_probability_of_every_class_by_every_head(
    show: Callable[..., Browser],
    make_predictions: Callable[..., Predictions],
    make_data: Callable[..., ReportData],
    n_classes: int,
) -> None:
    rng, y = np.random.default_rng(0), [0, 1] * 3
    classes = tuple(f"class {c}" for c in range(n_classes))
    predictions = make_predictions(y, {"softmax": y, "svm": [1] * 6, "majority": [0] * 6}, classes=classes)
    for head in predictions.heads:
        predictions.p[head][:] = rng.dirichlet(np.ones(n_classes), 6)
    browser = show(make_data(predictions), address="#explorer=%7B%22open%22%3A2%7D")
    found = shown_probabilities(browser, predictions.heads)
    for head in predictions.heads:
        names = {f"{name} (true class)" if c == 0 else name: c for c, name in enumerate(classes)}
        assert {names[name]: p for name, p in found[head].items()} == pytest.approx(
            dict(enumerate(predictions.p[head][2])), abs=0.0006
        )
    assert browser.page.locator(".detail td.predicted").count() == 3
    titles = browser.page.locator(".detail thead th").all_inner_texts()
    assert [title[0] for title in titles[1:]] == ["✓", "✗", "✓"]
    box = browser.page.locator(".detail").bounding_box()
    assert box["height"] < 700  # all classes of 40 scroll within it
    assert browser.problems == []


def test_an_open_tile_shows_its_nearest_training_tiles(
    show: Callable[..., Browser], make_predictions: Callable[..., Predictions], make_data: Callable[..., ReportData]
) -> None:
    predictions = make_predictions([0, 1, 2], {"svm": [0, 1, 1]})
    made, rng = make_data(predictions), np.random.default_rng(0)
    embeddings = SimpleNamespace(
        classes=["a", "b", "c"],
        tile_id=["near </b>", "far", *predictions.tiles["tile_id"]],
        group=["h", "h", "g0", "g1", "g2"],
        label=np.array([2, 0, 0, 1, 2]),
        split=np.array([0, 0, 2, 2, 2]),
        status=np.zeros(5),
    )
    features = np.concatenate([[[1, 1, 0.1], [-1, 0, 0]], rng.random((2, 3)), [[1, 1, 0]]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nearest, "feature_rows", lambda path, rows: features[rows])
        browser = show(dataclasses.replace(made, files=dataclasses.replace(made.files, embeddings=embeddings)))
    browser.page.locator(".tiles button").first.click()  # tile_2, the only error
    found = browser.page.locator(".neighbours li")
    assert [found.nth(i).get_attribute("data-neighbour") for i in range(2)] == ["near </b>", "far"]
    assert found.count() == 2
    assert found.first.inner_text().startswith("c, group h, cosine 0.998")
    assert browser.problems == []


def test_right_in_one_head_and_wrong_in_another(show: Callable[..., Browser], data: ReportData) -> None:
    browser = show(data)
    browser.page.locator("select").nth(0).select_option("svm")
    browser.page.locator("select").nth(1).select_option("softmax")
    y, predicted = data.predictions.y, data.predictions.predicted
    assert n_selected(browser) == int(((predicted["svm"] == y) & (predicted["softmax"] != y)).sum())


def test_the_map_selects_what_is_drawn_around(show: Callable[..., Browser], data: ReportData) -> None:
    browser = show(data)
    box = browser.page.locator("canvas").bounding_box()
    mouse = browser.page.mouse
    corners = [(0.02, 0.02), (0.98, 0.02), (0.98, 0.5), (0.02, 0.5)]  # the upper half
    for i, (x, y) in enumerate(corners):
        mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        if i == 0:
            mouse.down()
    mouse.up()
    low, high = data.map.points[:, 1].min(), data.map.points[:, 1].max()
    upper = (data.map.points[:, 1] - low) / (high - low) > 0.5
    assert abs(n_selected(browser) - int(upper.sum())) <= 3  # points on the drawn edge
    assert "lasso" in browser.page.url


def test_the_address_opens_the_same_view(show: Callable[..., Browser], data: ReportData) -> None:
    browser = show(data)
    browser.page.click('[data-cell="0-1"]')
    address = "#" + browser.page.url.partition("#")[2]
    again = show(data, address=address)
    assert n_selected(again) == n_selected(browser)
    assert again.page.get_attribute('[data-cell="0-1"]', "aria-pressed") == "true"


@pytest.mark.parametrize(
    "address",
    [f"#explorer=%{end}" for end in ("7B", "7B%22true%22%3A99%2C%22a%22%3A%22no%22%7D", "", "7B%22toString%22%3A1%7D")],
)
def test_an_address_that_does_not_fit_is_ignored(show: Callable[..., Browser], data: ReportData, address: str) -> None:
    browser = show(data, address=address)
    assert n_selected(browser) == 90
    assert browser.problems == []


def test_a_group_left_out_gives_the_scores_of_the_other_rows(show: Callable[..., Browser], data: ReportData) -> None:
    browser = show(data)
    browser.page.click('[aria-label="leave out g4"]')
    kept = np.flatnonzero(data.predictions.tiles["group"] != "g4")
    assert n_selected(browser) == len(kept)
    expected = scalar_metrics(
        data.predictions.y[kept], data.predictions.p["svm"][kept], data.predictions.predicted["svm"][kept]
    )
    browser.page.click("#selection-scores summary")
    row = browser.page.locator("#selection-scores tr", has_text="SVM").first.inner_text().split("\t")
    names = ("accuracy", "balanced_accuracy", "macro_f1")
    assert [cell.strip() for cell in row[1:]] == [f"{expected[name]:.3f}" for name in names]
    assert "your own view" in browser.page.inner_text("#selected")


@pytest.fixture
def make_judged(
    make_predictions: Callable[..., Predictions], make_data: Callable[..., ReportData]
) -> Callable[..., ReportData]:
    """`make_judged(softmax=0.2, ...)`: heads with these shares of errors on 360 tiles of 12 groups."""

    def make(seed: int = 8, **shares: float) -> ReportData:
        rng = np.random.default_rng(seed)
        y = rng.integers(3, size=360)
        wrong = {head: np.where(rng.random(360) < share, (y + 1) % 3, y).tolist() for head, share in shares.items()}
        return make_data(make_predictions(y.tolist(), wrong, group=[f"g{i % 12}" for i in range(360)]))

    return make


@pytest.fixture
def judged(make_judged: Callable[..., ReportData]) -> ReportData:
    """Three heads and two baselines; outcomes differ between margins and levels."""
    return make_judged(softmax=0.2, svm=0.17, xgboost=0.3, histogram_svm=0.3, majority=0.7)


def shown_verdict(browser: Browser) -> tuple[str, str, dict[str, tuple[str, list[float]]]]:
    """Return code, recommended, and of each pair the outcome and value, low, high, p of the reader's own view."""
    page = browser.page
    found = page.locator("#own-verdict")
    code, recommended = found.get_attribute("data-code"), found.get_attribute("data-recommended")  # waits for the view
    pairs = {
        each.get_attribute("data-pair"): (
            each.get_attribute("data-outcome"),
            [float(v) for v in each.get_attribute("data-value").split()],
        )
        for each in page.query_selector_all("[data-pair]")
    }
    return code, recommended, pairs


def shown_score(browser: Browser, name: str) -> list[float]:
    """Return value, low and high of "head metric" in the reader's own view."""
    text = browser.page.get_attribute(f'[data-score="{name}"]', "data-value")
    return [float(number) for number in text.split()]


@pytest.mark.parametrize(("softmax", "recommended"), [(0.185, "softmax"), (0.22, "svm")])
def test_an_undecided_head_is_recommended_within_one_standard_error(
    show: Callable[..., Browser], make_judged: Callable[..., ReportData], softmax: float, recommended: str
) -> None:
    """The page's rule is that of Python, on both sides of one standard error."""
    data = make_judged(softmax=softmax, svm=0.17, histogram_svm=0.5)
    pair = next(each for each in data.verdict.asked if {each.head, each.reference} == {"softmax", "svm"})
    loss = abs(pair.difference.value) / pair.difference.standard_error
    assert (pair.outcome, data.verdict.best, loss < 1) == ("undecided", "svm", recommended == "softmax")
    browser = show(data)
    browser.page.click("#own-view summary")
    assert shown_verdict(browser)[1] == data.verdict.recommended == recommended


@pytest.mark.parametrize(("margin", "level"), [(1, 0.95), (30, 0.95), (0, 0.8), (2.5, 0.99)])
def test_another_margin_or_level_gives_the_verdict_of_python(
    show: Callable[..., Browser], judged: ReportData, margin: float, level: float
) -> None:
    resampling = dataclasses.replace(judged.resampling, level=level)
    expected = judge(judged.predictions, judged.scores, resampling, rope=margin / 100)
    browser = show(judged)
    browser.page.click("#own-view summary")
    if level != 0.95:
        browser.page.get_by_label("Level of the intervals").select_option(str(level))
    if margin != 1:
        browser.page.fill("#margin", str(margin))
        browser.page.press("#margin", "Enter")
    code, recommended, pairs = shown_verdict(browser)
    assert (code, recommended) == (expected.code, expected.recommended or "")
    assert {name: outcome for name, (outcome, _) in pairs.items()} == {
        f"{pair.tests.head} {pair.tests.reference}": pair.outcome for pair in expected.asked
    }
    for pair in expected.asked:
        difference = pair.tests.difference
        numbers = [difference.value, difference.low, difference.high, pair.holm_p]
        assert pairs[f"{pair.tests.head} {pair.tests.reference}"][1] == pytest.approx(numbers, abs=1e-9)
    scores = by_key(score_heads(judged.predictions, resampling, {}))
    score = scores["svm", "test", "ece"]
    assert shown_score(browser, "svm ece") == pytest.approx([score.value, score.low, score.high], abs=1e-9)
    assert browser.page.inner_text("#own-verdict").startswith("Your own view") == ((margin, level) != (1, 0.95))
    assert browser.problems == []


@pytest.mark.parametrize("left_out", ["group", "class"])
def test_rows_left_out_give_scores_intervals_and_verdict_of_the_other_rows(
    show: Callable[..., Browser], judged: ReportData, left_out: str
) -> None:
    predictions, resampling = judged.predictions, judged.resampling
    is_kept = predictions.tiles["group"] != "g4" if left_out == "group" else predictions.y != 2
    rows = np.flatnonzero(is_kept)
    y, labels, units = predictions.y[rows], predictions.predicted, resampling.ids[rows]
    used = np.unique(units)
    tail = tail_probability(level=0.95, n_units=len(used))
    (drawn,) = resampling_counts(12, n_draws=resampling.n_draws, seed=0)

    def macro_f1(head: str) -> np.ndarray:
        sums = unit_statistics(y, predictions.p[head][rows], labels[head][rows], unit=units, n_units=12) @ drawn
        return metrics_of_sums(sums.T, n_classes=3)["macro_f1"]

    browser = show(judged)
    browser.page.click("#own-view summary")
    browser.page.click('[aria-label="leave out g4"]' if left_out == "group" else '[aria-label="leave out class c"]')
    value = scalar_metrics(y, predictions.p["svm"][rows], labels["svm"][rows])
    assert shown_score(browser, "svm brier")[0] == pytest.approx(value["brier"], abs=1e-12)
    expected = [value["macro_f1"], *np.quantile(macro_f1("svm"), [tail, 1 - tail])]
    assert shown_score(browser, "svm macro_f1") == pytest.approx(expected, abs=1e-9)
    code, _, pairs = shown_verdict(browser)
    assert pairs
    flips = {}
    for name, (_, (gain, low, high, _)) in pairs.items():
        head, reference = name.split()
        one, other = labels[head][rows], labels[reference][rows]
        bounds = np.quantile(macro_f1(head) - macro_f1(reference), [tail, 1 - tail])
        difference = paired_difference(paired_counts(y, one, other, metric="macro_f1", units=units), n_draws=100)
        assert [gain, low, high] == pytest.approx([difference.value, *bounds], abs=1e-9)
        flips[name] = sign_flip(paired_counts(y, one, other, metric="macro_f1", units=units)).p
    adjusted = holm(np.array(list(flips.values())))
    assert [numbers[3] for _, numbers in pairs.values()] == pytest.approx(adjusted.tolist(), abs=1e-12)
    subset = dataclasses.replace(
        predictions,
        tiles=predictions.tiles.iloc[rows].reset_index(drop=True),
        y=y,
        p={head: p[rows] for head, p in predictions.p.items()},
        predicted={head: each[rows] for head, each in labels.items()},
    )
    fresh = choose_resampling(subset, n_draws=200, seed=0, level=0.95)
    verdict = judge(subset, by_key(score_heads(subset, fresh, {})), fresh)
    assert list(pairs) == [f"{pair.tests.head} {pair.tests.reference}" for pair in verdict.asked]
    assert code == verdict.code
    assert browser.page.inner_text("#own-verdict").startswith("Your own view")
    assert browser.problems == []


@pytest.mark.parametrize(("n_classes", "n_groups", "n_heads"), [(2, 1, 1), (3, 0, 2), (40, 120, 2)])
def test_any_number_of_classes_groups_and_heads(
    show: Callable[..., Browser],
    make_predictions: Callable[..., Predictions],
    make_data: Callable[..., ReportData],
    n_classes: int,
    n_groups: int,
    n_heads: int,
) -> None:
    rng, n = np.random.default_rng(1), 240
    y = rng.integers(n_classes, size=n)
    wrong = [np.where(rng.random(n) < 0.3, (y + 1) % n_classes, y).tolist() for _ in range(n_heads)]
    group = [f"g{i % n_groups}" for i in range(n)] if n_groups else [""] * n
    classes = tuple(f"c{k}" for k in range(n_classes))
    answers = dict(zip(("softmax", "svm"), wrong, strict=False))
    made = make_data(make_predictions(y.tolist(), answers, group=group, classes=classes))
    browser = show(made)
    assert browser.page.locator("[data-cell]").count() == n_classes**2
    counts = confusion(y, made.predictions.predicted["softmax"], n_classes)
    browser.page.click('[data-cell="0-1"]')
    assert n_selected(browser) == counts[0, 1]
    assert browser.page.locator('[aria-label^="leave out g"]').count() == n_groups
    agree, compared = recomputed(browser)
    assert agree == compared
    browser.page.click("#own-view summary")
    assert browser.page.get_attribute("#own-verdict", "data-code") == made.verdict.code
    assert browser.page.inner_text("#own-verdict").startswith("There is one group") == (n_groups == 1)
    assert browser.problems == []


def test_a_tile_without_a_file_is_missing_and_counts(
    show: Callable[..., Browser], data: ReportData, tmp_path: Path
) -> None:
    pixels = np.full((20, 20, 3), 90, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "kept.png")
    names = data.predictions.tiles["tile_id"]
    table = pd.DataFrame({"tile_id": names, "path": "gone.png", "sha256": pixel_hash(pixels).hex()})
    table.loc[0, "path"] = "kept.png"
    files = dataclasses.replace(data.files, manifest=SimpleNamespace(table=table, root=tmp_path))
    browser = show(dataclasses.replace(data, files=files))
    assert n_selected(browser) == 90
    assert browser.page.locator(".tiles .thumbnail", has_text="missing").count() == 89
    assert browser.page.locator(".tiles .thumbnail.tested").count() == 1
    assert browser.problems == []


def test_nothing_is_left(show: Callable[..., Browser], data: ReportData) -> None:
    browser = show(data, address="#explorer=%7B%22withoutClasses%22%3A%5B0%2C1%2C2%5D%7D")
    assert n_selected(browser) == 0
    assert browser.page.inner_text("#own-view .note") == "No row is left."
    assert browser.problems == []


def test_all_scores_and_intervals_are_recomputed(show: Callable[..., Browser], data: ReportData) -> None:
    printed = [score for score in data.scores.values() if score.split == "test"]
    bounds = sum(2 for score in printed if not np.isnan(score.low))
    agree, compared = recomputed(show(data))
    assert (agree, compared) == (len(printed) + bounds, len(printed) + bounds)
    assert bounds == 3 * 6 * 2  # six metrics of three heads


def test_without_draws_the_values_alone_are_recomputed(
    show: Callable[..., Browser], data: ReportData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.comparison.explorer.pack.MOST_DRAWS", 0)
    browser = show(data)
    agree, compared = recomputed(browser)
    assert agree == compared == sum(score.split == "test" for score in data.scores.values())
    assert "36 were not recomputed" in browser.page.inner_text("#recomputed")


def test_with_many_rows_baselines_have_no_probabilities(
    show: Callable[..., Browser], data: ReportData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carried, "MANY_ROWS", 89)
    browser = show(data)
    agree, compared = recomputed(browser)
    assert agree == compared
    assert "10 were not recomputed" in browser.page.inner_text("#recomputed")  # four scores and three intervals
    assert browser.page.locator("select").nth(0).locator("option").count() == 2
    browser.page.locator(".tiles button").first.click()
    assert browser.page.locator(".detail thead th").count() == 1 + 2
    assert "Predicted by the others: colour histogram + SVM " in browser.page.inner_text(".detail")


@pytest.fixture
def sampled(data: ReportData, monkeypatch: pytest.MonkeyPatch) -> ReportData:
    """A report on 90 test rows, whose page carries 60."""
    monkeypatch.setattr(carried, "MOST_ROWS", 60)
    return data


def test_a_page_of_a_sample_counts_all_rows(show: Callable[..., Browser], sampled: ReportData) -> None:
    browser = show(sampled)
    predictions = sampled.predictions
    assert "60 of the 90 test rows" in browser.page.inner_text("section > p")
    assert n_selected(browser) == 60
    rows = carried.carry(sampled).rows
    for head in predictions.main_heads:
        browser.page.get_by_label("Head", exact=True).select_option(head)
        y, predicted = predictions.y, predictions.predicted[head]
        for true, named in ((0, 0), (1, 2)):
            cell = browser.page.locator(f'[data-cell="{true}-{named}"]')
            assert int(cell.inner_text()) == ((y == true) & (predicted == named)).sum()
            cell.click()
            assert n_selected(browser) == ((y == true) & (predicted == named))[rows].sum()
        tables = {
            caption: [line.locator("td").all_inner_texts() for line in found.locator("tbody tr").all()]
            for found in browser.page.locator(".panels table").all()[1:]
            if (caption := found.locator("caption").inner_text()[:6])
        }
        assert sum(int(count) for _, count, _ in tables["Confid"]) == 90
        right = predicted == y
        groups = predictions.tiles["group"].to_numpy()
        assert {name: (int(count), float(share)) for name, count, share in tables["Groups"]} == {
            name: (10, pytest.approx(right[groups == name].mean(), abs=0.006)) for name in sorted(set(groups))
        }
        assert sum(int(count) * float(share) for _, count, share in tables["Confid"]) == pytest.approx(
            right.sum(), abs=0.5
        )
    assert browser.problems == []


def test_a_page_of_a_sample_recomputes_nothing(show: Callable[..., Browser], sampled: ReportData) -> None:
    browser = show(sampled, address="#explorer=%7B%22without%22%3A%5B1%5D%2C%22true%22%3A1%7D")
    assert browser.page.locator("#recompute, #own-view, #selection-scores, .panels input").count() == 0
    assert "need all test rows" in browser.page.inner_text("#explorer")
    rows = carried.carry(sampled).rows
    assert n_selected(browser) == (sampled.predictions.y[rows] == 1).sum()  # no group is left out
    assert browser.problems == []


def test_a_wrong_score_is_named(show: Callable[..., Browser], data: ReportData) -> None:
    key = ("svm", "test", "macro_f1")
    scores = dict(data.scores)
    scores[key] = Score(**(dataclasses.asdict(scores[key]) | {"value": scores[key].value + 1e-8}))
    browser = show(dataclasses.replace(data, scores=scores))
    agree, compared = recomputed(browser)
    assert compared - agree == 1
    assert "svm macro_f1" in browser.page.inner_text("#recomputed li")


def test_nothing_leaves_the_page(show: Callable[..., Browser], data: ReportData) -> None:
    browser = show(data)
    browser.page.click('[data-cell="0-0"]')
    recomputed(browser)
    assert browser.sent() == []


def test_another_script_does_not_run(show: Callable[..., Browser], data: ReportData, tmp_path: Path) -> None:
    html = to_html(Document("made", [explore.section(data)]), folder=tmp_path)
    browser = show(html.replace("</main>", "<script>document.title = 'changed'</script></main>"))
    assert browser.page.title() == "made"
    assert any("Content Security Policy" in problem for problem in browser.problems)


def test_hostile_names_stay_text(
    show: Callable[..., Browser], make_predictions: Callable[..., Predictions], make_data: Callable[..., ReportData]
) -> None:
    hostile = "<img src=x onerror=document.title='changed'>"
    predictions = make_predictions(
        [0, 1, 2, 0],
        {"svm": [0, 1, 1, 0]},
        classes=(hostile, "</script><script>document.title='changed'</script>", "c"),
        tile_id=[f"{hostile}{i}" for i in range(4)],
        group=[hostile, hostile, "b", "b"],
    )
    browser = show(make_data(predictions))
    browser.page.locator(".tiles button").first.click()
    assert browser.page.title() == "made"
    assert hostile in browser.page.inner_text(".detail")
    assert browser.page.locator("#explorer img").count() == 0
    assert browser.problems == []


def test_the_selection_is_saved(show: Callable[..., Browser], data: ReportData) -> None:
    browser = show(data)
    browser.page.click('[data-cell="2-0"]')
    with browser.page.expect_download() as download:
        browser.page.click("text=Save the selection as CSV")
    lines = Path(download.value.path()).read_text(encoding="utf-8").splitlines()
    y, predicted = data.predictions.y, data.predictions.predicted["softmax"]
    expected = {f"tile_{i}" for i in np.flatnonzero((y == 2) & (predicted == 0))}
    assert lines[0] == "tile_id,path"
    assert {line.split(",")[0].strip('"') for line in lines[1:]} == expected


def test_a_saved_name_is_no_formula(show: Callable[..., Browser], data: ReportData) -> None:
    tiles = data.predictions.tiles.assign(tile_id=[f"=1+{i}" for i in range(90)])
    browser = show(dataclasses.replace(data, predictions=dataclasses.replace(data.predictions, tiles=tiles), map=None))
    browser.page.click('[data-cell="0-0"]')
    with browser.page.expect_download() as download:
        browser.page.click("text=Save the selection as CSV")
    names = pd.read_csv(download.value.path())["tile_id"]
    assert len(names)
    assert names.str.startswith("'=1+").all()


@pytest.mark.parametrize("width", [360, 1200])
def test_the_page_does_not_scroll_sideways(
    show: Callable[..., Browser],
    make_predictions: Callable[..., Predictions],
    make_data: Callable[..., ReportData],
    width: int,
) -> None:
    names = [f"a_class_with_a_long_name/a_tile_with_a_long_name_{i}" for i in range(9)]
    answers = {"histogram_handcrafted_svm": [0, 1, 2] * 3, "svm": [0, 1, 1] * 3, "xgboost": [2, 1, 0] * 3}
    predictions = make_predictions([0, 1, 2] * 3, answers, tile_id=names, classes=tuple(names[:3]))
    browser = show(make_data(predictions), width=width)
    browser.page.locator(".tiles button").first.click()
    browser.page.click("#own-view summary")
    is_too_wide = f"e => e.getBoundingClientRect().right > {width} + 1 && !e.closest('.table')"
    found = browser.page.evaluate(f"[...document.querySelectorAll('*')].filter({is_too_wide}).map(e => e.outerHTML)")
    assert found == []
    assert browser.page.evaluate("document.documentElement.scrollWidth") <= width


def test_every_control_has_a_name_and_is_reached_by_keyboard(show: Callable[..., Browser], data: ReportData) -> None:
    browser = show(data)
    unnamed = "b => !(b.textContent || b.getAttribute('aria-label') || '').trim()"
    assert browser.page.eval_on_selector_all("button", f"all => all.filter({unnamed}).length") == 0
    browser.page.focus('[data-cell="1-1"]')
    browser.page.keyboard.press("Enter")
    assert browser.page.evaluate("document.activeElement.dataset.cell") == "1-1"  # focus stays after drawing again
