"""The section on robustness: its table, its figure, and the reason where there is none."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.comparison.report_data import ReportData
from pipeline.comparison.sections import robustness
from pipeline.markup.document import Document, EmptySection, Figure, Note, Table, Text, to_html, to_markdown

CLASSES = np.array(["a", "b", "c"], dtype=object)
RANDOM = "random"


@pytest.fixture
def data(make_predictions: Any, make_data: Any) -> Any:
    """Return a function that makes the data of 60 test tiles, of which a head misclassifies a part.

    `wrong` is (head, corruption) -> how many of the tiles, from the first.
    """

    def make(wrong: dict[tuple[str, str], int] | None, *, groups: int = 12, **known: Any) -> ReportData:
        y = np.arange(60) % 3
        names = [f"g{i % groups}" for i in range(60)]
        predictions = make_predictions(y.tolist(), {"softmax": y.tolist(), "svm": y.tolist()}, group=names, **known)
        tiles = pd.DataFrame({"tile_id": [f"t{i}" for i in range(60)], "group": names, "label": CLASSES[y]})
        parts = [
            tiles.assign(
                head=head, corruption=name, predicted=CLASSES[(y + (np.arange(60) < n)) % 3], seed=seed, fold=0
            )
            for (head, name), n in (wrong or {}).items()
            for seed in (0, 1)
        ]
        corrupted = pd.concat(parts, ignore_index=True) if parts else None
        return make_data(predictions, corrupted=corrupted, missing={"robustness.csv": "not asked for"})

    return make


SOME = {("softmax", "none"): 0, ("svm", "none"): 0, ("softmax", "blur"): 6, ("svm", "blur"): 30}


def test_the_section_has_the_losses_of_every_head(data: Any, tmp_path: Path) -> None:
    section = robustness.section(data(SOME, protocol=RANDOM))
    note, figure, table, limits = section.blocks
    assert isinstance(note, Note)
    assert "softmax 10.0 and SVM 50.0" in note.text
    assert isinstance(figure, Figure)
    assert (tmp_path / figure.file).read_bytes()[:4] == b"\x89PNG"
    assert isinstance(table, Table)
    assert table.head == ["corruption", "what it does", "softmax", "SVM"]
    assert [row[0] for row in table.rows] == ["none", "blur", "mean loss"]
    assert table.rows[1][1].startswith("Gaussian blur, sigma 1 %")
    assert table.rows[1][2].startswith("0.900; 10.0 (")
    assert "60 test tiles, each under 2 seeds" in table.caption
    assert table.caption.startswith("Random split: biased upwards. ")
    assert isinstance(limits, Text)
    to_markdown(Document("x", [section]))
    to_html(Document("x", [section]), folder=tmp_path)


def test_without_robustness_csv_the_section_has_the_reason(data: Any, tmp_path: Path) -> None:
    found = robustness.section(data(None))
    assert isinstance(found, EmptySection)
    assert "(not asked for)" in found.reason
    assert not (tmp_path / "figures").exists()


def test_an_unknown_corruption_and_one_group_stay_readable(data: Any) -> None:
    wrong = {("svm", "none"): 0, ("svm", "<b>mine</b>"): 12}
    _, _, table, _ = robustness.section(data(wrong, groups=1)).blocks
    assert table.rows[1][:2] == ["<b>mine</b>", "n/a"]
    assert "no intervals" in table.caption
