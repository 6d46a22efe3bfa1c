"""A part of a data set keeps the classes' shares and is the same every time."""

from pathlib import Path

import pandas as pd
import pytest

from pipeline.errors import BadInput
from pipeline.tiles.datasets.sources import TileSet, csv_tiles
from pipeline.tiles.datasets.subset import drawn_rows, listed


def tile_set(root: Path, **counts: int) -> TileSet:
    """Return a set with so many tiles of each class."""
    paths = [(f"{label}/{i:03d}.png", label) for label, n in counts.items() for i in range(n)]
    table = pd.DataFrame(sorted(paths), columns=["path", "label"]).assign(group="g", split="")
    return TileSet(name="t", root=root, table=table)


@pytest.mark.parametrize(
    ("n", "expected"),
    [(100, {"a": 60, "b": 30, "c": 10}), (10, {"a": 6, "b": 3, "c": 1}), (15, {"a": 9, "b": 5, "c": 1})],
)
def test_classes_keep_their_shares(tmp_path: Path, n: int, expected: dict[str, int]) -> None:
    tiles = tile_set(tmp_path, a=60, b=30, c=10)
    rows = drawn_rows(tiles, n, seed=0)
    counts = rows["label"].value_counts().to_dict()
    assert sum(counts.values()) == n
    assert all(abs(counts[label] - expected[label]) <= 1 for label in expected)
    assert list(rows["path"]) == sorted(rows["path"])
    assert rows.equals(drawn_rows(tiles, n, seed=0))
    if n < 100:
        assert not rows.equals(drawn_rows(tiles, n, seed=1))


def test_a_rare_class_is_not_lost_and_the_number_holds(tmp_path: Path) -> None:
    rows = drawn_rows(tile_set(tmp_path, a=500, b=499, c=1), 10, seed=0)
    assert len(rows) == 10
    assert (rows["label"] == "c").sum() == 1


def test_many_rare_classes_are_not_lost_either(tmp_path: Path) -> None:
    rows = drawn_rows(tile_set(tmp_path, a=100, b=1, c=1, d=1, e=1, f=1), 7, seed=0)
    assert rows["label"].value_counts().to_dict() == {"a": 2, "b": 1, "c": 1, "d": 1, "e": 1, "f": 1}


@pytest.mark.parametrize("n", [2, 101])
def test_too_few_or_too_many(tmp_path: Path, n: int) -> None:
    with pytest.raises(BadInput, match=rf"tiles = {n}: .* holds 100 tiles of 3 classes"):
        drawn_rows(tile_set(tmp_path, a=60, b=30, c=10), n, seed=0)


def test_the_list_is_a_data_set_of_the_same_tiles(tmp_path: Path) -> None:
    tiles = tile_set(tmp_path / "tiles", a=6, b=4)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tiles.csv").write_text(listed(tiles, tiles.table, folder=tmp_path / "run"))
    found = csv_tiles(tmp_path / "run" / "tiles.csv", group_regex="")
    assert found.root == tmp_path / "tiles"
    assert found.table.astype(object).equals(tiles.table.astype(object))
