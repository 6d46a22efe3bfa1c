"""Planted wrong labels are found; what cannot be told is said."""

import hashlib
import importlib.util
import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.comparison import label_errors
from pipeline.comparison.label_errors import find_suspects
from pipeline.comparison.predictions import Predictions
from pipeline.markup.document import Document, Figure, Table, Text, to_html, to_markdown
from pipeline.tiles.decoding import pixel_hash

needs_cleanlab = pytest.mark.skipif(importlib.util.find_spec("cleanlab") is None, reason="needs the extra audit")

Make = Callable[..., Predictions]


def flipped(make: Make, *, n: int = 600, share: float = 0.05, seeds: int = 1, signal: float = 3.5, k: int = 4) -> Any:
    """Return predictions of heads that see the true class through noise, and which tiles carry a wrong label."""
    rng = np.random.default_rng(11)
    true = rng.integers(0, k, n)
    wrong = rng.random(n) < share
    label = np.where(wrong, (true + rng.integers(1, k, n)) % k, true)
    classes = tuple("abcdefgh"[:k])
    ids = [f"tile_{i}" for i in range(n)] * seeds
    seed = [s for s in range(seeds) for _ in range(n)]
    y = list(label) * seeds
    predictions = make(y, {"softmax": y, "svm": y, "knn": y}, classes=classes, tile_id=ids, seed=seed)
    for head in predictions.heads:
        z = rng.normal(size=(n * seeds, k)) + signal * np.eye(k)[np.tile(true, seeds)]
        p = np.exp(1.3 * z)
        predictions.p[head][:] = p / p.sum(axis=1, keepdims=True)
    predictions.p["knn"][:] = np.eye(k)[y]  # a baseline that believes every label
    return predictions, wrong


@needs_cleanlab
@pytest.mark.parametrize("seeds", [1, 3])
def test_planted_flips_are_found_with_high_precision(make_predictions: Make, seeds: int) -> None:
    predictions, wrong = flipped(make_predictions, seeds=seeds)
    suspects = find_suspects(predictions)
    assert isinstance(suspects, pd.DataFrame)
    assert not suspects["tile_id"].duplicated().any()
    index = suspects["tile_id"].str.removeprefix("tile_").astype(int).to_numpy()
    issues = index[suspects["is_issue"]]
    assert wrong[issues].mean() >= 0.9
    assert wrong[issues].sum() >= 0.6 * wrong.sum()  # this filter is the one that names few tiles and right ones
    assert wrong[index[:20]].mean() >= 0.95  # what a reader looks at first


@needs_cleanlab
def test_the_table_is_ranked_and_says_what_the_heads_say(make_predictions: Make) -> None:
    predictions, _ = flipped(make_predictions)
    suspects = find_suspects(predictions)
    assert isinstance(suspects, pd.DataFrame)
    read = pd.read_csv(io.StringIO(label_errors.to_csv(suspects) or ""))
    assert tuple(read.columns) == label_errors.COLUMNS
    assert list(read["rank"]) == list(range(1, len(read) + 1))
    n_issues = int(read["is_issue"].sum())
    assert len(read) == max(20, n_issues)
    assert read["is_issue"][:n_issues].all()
    assert read["self_confidence"][:n_issues].is_monotonic_increasing
    assert read["self_confidence"][n_issues:].is_monotonic_increasing
    row = int(suspects["tile_id"].iloc[0].removeprefix("tile_"))
    mean = (predictions.p["softmax"][row] + predictions.p["svm"][row]) / 2  # main heads only
    assert suspects["self_confidence"].iloc[0] == pytest.approx(mean[predictions.y[row]])
    assert suspects["suggested"].iloc[0] == predictions.classes[mean.argmax()]
    assert (suspects["suggested"] != suspects["label"])[:n_issues].all()


@needs_cleanlab
def test_right_labels_give_no_issues_but_still_the_least_confident(make_predictions: Make) -> None:
    predictions, _ = flipped(make_predictions, share=0.0, signal=8.0)
    suspects = find_suspects(predictions)
    assert isinstance(suspects, pd.DataFrame)
    assert not suspects["is_issue"].any()
    assert len(suspects) == 20


@needs_cleanlab
def test_only_test_rows_count(make_predictions: Make) -> None:
    y = [0, 1] * 10
    named = [1, *y[1:]]
    predictions = make_predictions(y, {"svm": named}, split=["train"] + ["test"] * 19, classes=("a", "b"))
    suspects = find_suspects(predictions)
    assert isinstance(suspects, pd.DataFrame)
    assert "tile_0" not in set(suspects["tile_id"])
    assert len(suspects) == 19


@needs_cleanlab
def test_an_absent_class_and_a_single_class_are_no_crash(make_predictions: Make) -> None:
    predictions = make_predictions([0, 1] * 15, {"svm": [0, 1] * 14 + [2, 1]})
    assert isinstance(find_suspects(predictions), pd.DataFrame)
    assert "all of one class" in str(find_suspects(make_predictions([0] * 9, {"svm": [0] * 9})))


def test_without_cleanlab_the_section_says_how_to_get_it(
    make_predictions: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    suspects = find_suspects(make_predictions([0, 1], {"svm": [0, 1]}))
    assert suspects == label_errors.MISSING
    assert label_errors.to_csv(suspects) is None
    (text,) = label_errors.section(SimpleNamespace(suspects=suspects, predictions=None)).blocks  # type: ignore[arg-type]
    assert isinstance(text, Text)
    assert "pip install 'histoheads[audit]'" in text.text


@pytest.fixture
def material(make_predictions: Make, tmp_path: Path) -> Callable[..., Any]:
    """Return a function that makes what the section reads: 30 tiles on disk, tile 4 named otherwise by both heads."""

    def make(*, gallery: int = 12, protocol: object = None, damaged: bool = False) -> Any:
        y = [0, 1] * 15
        named = [1 if i == 4 else code for i, code in enumerate(y)]
        predictions = make_predictions(y, {"softmax": named, "svm": named}, classes=("a|b", "<i>"), confidence=0.95)
        rng = np.random.default_rng(2)
        files = []
        for i in range(30):
            pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"{i}.png")
            digest = hashlib.sha256(b"other").hexdigest() if damaged else pixel_hash(pixels).hex()
            files.append({"tile_id": f"tile_{i}", "path": f"{i}.png", "sha256": digest})
        manifest = SimpleNamespace(table=pd.DataFrame(files), root=tmp_path)
        is_issue = [True] + [False] * 3
        suspects = pd.DataFrame(
            {
                "tile_id": [f"tile_{i}" for i in (4, 0, 1, 2)],
                "group": "",
                "label": ["a|b", "a|b", "<i>", "a|b"],
                "suggested": ["<i>", "a|b", "<i>", "a|b"],
                "self_confidence": [0.05, 0.95, 0.95, 0.95],
                "is_issue": is_issue,
                "rank": [1, 2, 3, 4],
            }
        )
        return SimpleNamespace(
            run=tmp_path,
            predictions=predictions,
            suspects=suspects,
            protocol=protocol,
            options={"gallery": gallery},
            context=SimpleNamespace(manifest=manifest, reason=lambda name: f"n/a: {name}"),
            flattering="",
        )

    return make


def test_the_section_warns_counts_and_shows(material: Callable[..., Any], tmp_path: Path) -> None:
    section = label_errors.section(material())
    warning, found, figure, table = section.blocks
    assert "no proof" in warning.text  # type: ignore[union-attr]
    assert "takes 1 tile of 30 for likely label errors" in found.text  # type: ignore[union-attr]
    assert "Only the 30 test tiles of this split are covered" in found.text  # type: ignore[union-attr]
    assert isinstance(figure, Figure)
    assert (tmp_path / figure.file).is_file()
    assert isinstance(table, Table)
    assert table.rows[0] == ["1", "tile_4", "n/a", "a|b", "<i>", "yes", "0.050"]
    markdown = to_markdown(Document("x", [section]))
    assert "a\\|b" in markdown
    assert "<i>" not in to_html(Document("x", [section]), folder=tmp_path).split("<body")[1]


def test_of_a_plan_all_tested_tiles_are_covered(material: Callable[..., Any]) -> None:
    found = label_errors.section(material(protocol=object())).blocks[1]
    assert "All 30 tested tiles of the plan" in found.text  # type: ignore[union-attr]


def test_no_tile_is_shown_that_was_not_asked_for_or_changed(material: Callable[..., Any], tmp_path: Path) -> None:
    assert "--gallery 0" in label_errors.section(material(gallery=0)).blocks[2].text  # type: ignore[union-attr]
    assert "can be read any more" in label_errors.section(material(damaged=True)).blocks[2].text  # type: ignore[union-attr]
    assert not (tmp_path / "figures").exists()
