"""Figures of tiles stay small, however many classes there are."""

import logging
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from pipeline.figures import tiles
from pipeline.figures.tiles import draw_classes


def test_many_classes_are_cut_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    drawn: list[list[tuple[str, int]]] = []

    def grid(_: Path, rows: list[tuple[str, list[object]]]) -> None:
        drawn.append([(label, len(shown)) for label, shown in rows])

    monkeypatch.setattr(tiles, "tile_grid", grid)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    for n in (3, 120):
        labels = [f"P{i:03d}" for i in range(n) for _ in range(3)]
        table = pd.DataFrame({"path": "a.png", "label": labels, "problem": ""})
        with caplog.at_level(logging.INFO, logger="pipeline"):
            draw_classes(tmp_path / "classes.png", table, root=tmp_path, per_class=2, seed=0)
    assert drawn[0] == [("P000", 2), ("P001", 2), ("P002", 2)]
    assert drawn[1] == [*((f"P{i:03d}", 2) for i in range(40)), ("... 80 more", 0)]
    assert [record.getMessage() for record in caplog.records] == [
        "prepare: classes.png shows the first 40 of 120 classes"
    ]
