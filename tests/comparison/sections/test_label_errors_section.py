"""The section on likely label errors: counts, the gallery, and no tile that must not be shown."""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.comparison.sections import label_errors
from pipeline.markup.document import Document, EmptySection, Figure, Table, Text, to_html, to_markdown
from pipeline.tiles.decoding import pixel_hash


@pytest.fixture
def data(make_predictions: Any, make_data: Any, tmp_path: Path) -> Callable[..., Any]:
    """Return a function that makes the data of 30 tiles on disk, of which both heads misclassify tile 4."""

    def make(*, damaged: bool = False, **fields: Any) -> Any:
        y = [0, 1] * 15
        predicted = [1 if i == 4 else code for i, code in enumerate(y)]
        heads = {"softmax": predicted, "svm": predicted}
        predictions = make_predictions(y, heads, classes=("a|b", "<i>"), confidence=0.95, group=[""] * 30)
        rng = np.random.default_rng(2)
        files = []
        for i in range(30):
            pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"{i}.png")
            digest = hashlib.sha256(b"other").hexdigest() if damaged else pixel_hash(pixels).hex()
            files.append({"tile_id": f"tile_{i}", "path": f"{i}.png", "sha256": digest})
        suspects = pd.DataFrame(
            {
                "tile_id": [f"tile_{i}" for i in (4, 0, 1, 2)],
                "group": "",
                "label": ["a|b", "a|b", "<i>", "a|b"],
                "suggested": ["<i>", "a|b", "<i>", "a|b"],
                "self_confidence": [0.05, 0.95, 0.95, 0.95],
                "is_issue": [True] + [False] * 3,
                "rank": [1, 2, 3, 4],
            }
        )
        made = make_data(predictions, suspects=suspects, **fields)
        manifest = SimpleNamespace(table=pd.DataFrame(files), root=tmp_path)
        return dataclasses.replace(made, files=dataclasses.replace(made.files, manifest=manifest))

    return make


def test_the_section_counts_and_shows(data: Callable[..., Any], tmp_path: Path) -> None:
    section = label_errors.section(data())
    answer, warning, text, figure, table = section.blocks
    assert answer.text.startswith("1 of 30 test tiles ")
    assert warning.text == label_errors.WARNING
    assert "Only the 30 test tiles of this split" in text.text
    assert isinstance(figure, Figure)
    assert (tmp_path / figure.file).is_file()
    assert isinstance(table, Table)
    assert table.rows[0] == ["1", "tile_4", "n/a", "a|b", "<i>", "yes", "0.050"]
    markdown = to_markdown(Document("x", [section]))
    assert "a\\|b" in markdown
    assert "<i>" not in to_html(Document("x", [section]), folder=tmp_path).split("<body")[1]


def test_of_a_plan_all_tested_tiles_are_covered(data: Callable[..., Any]) -> None:
    assert "All 30 tested tiles of the plan" in label_errors.section(data(protocol=object())).blocks[2].text


def test_no_tile_is_shown_that_was_not_asked_for_or_changed(data: Callable[..., Any], tmp_path: Path) -> None:
    assert "--gallery 0" in label_errors.section(data(n_gallery=0)).blocks[3].text
    assert isinstance(label_errors.section(data(damaged=True)).blocks[3], Text)
    assert not (tmp_path / "figures").exists()


def test_a_reason_in_place_of_suspects_is_the_section(data: Callable[..., Any]) -> None:
    found = label_errors.section(dataclasses.replace(data(), suspects="A reason."))
    assert found == EmptySection("Likely label errors", "A reason.")
