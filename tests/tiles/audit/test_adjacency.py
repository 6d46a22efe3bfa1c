"""Tiles that lay side by side, as their names tell."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.tiles.audit.adjacency import adjacent_pairs, neighbour_findings, positions
from pipeline.tiles.splits.holdout import random_split

NAMES = Path(__file__).parents[3] / "../shared/data/kather2016/names.txt"


def table(paths: list[str], px: int = 150) -> pd.DataFrame:
    found = pd.DataFrame({"path": paths, "label": [path.split("/")[0] for path in paths]})
    return found.assign(tile_id=found["path"], width=px, height=px)


def pairs(paths: list[str], px: int = 150) -> list[tuple[int, int]]:
    return [(int(i), int(j)) for i, j in adjacent_pairs(positions(table(paths)), side_px=px)]


def test_kather_names_tell_image_and_place() -> None:
    found = positions(
        table(
            ["A/10009_CRC-Prim-HE-03_009.tif_Row_301_Col_151.tif", "B/x_CRC-Prim-HE-03_009.tif_Row_1_Col_2.tif", "B/q"]
        )
    )
    assert found.index.tolist() == [0, 1]
    assert found["image"].tolist() == ["CRC-Prim-HE-03_009.tif"] * 2
    assert found[["x", "y"]].to_numpy().tolist() == [[151, 301], [2, 1]]


def test_neighbours_share_an_edge_or_overlap_and_stand_in_one_image() -> None:
    def name(row: int, column: int, image: str = "01_001", label: str = "A") -> str:
        return f"{label}/{row}{column}F_CRC-Prim-HE-{image}.tif_Row_{row}_Col_{column}.tif"

    paths = [
        name(151, 151),
        name(301, 151, label="B"),  # below, of another class
        name(301, 301),  # meets 0 in a corner only
        name(151, 601),  # far
        name(151, 301, image="01_002"),  # another image
        name(100, 80),  # overlaps 0; a corner of 0 lies in it
    ]
    assert pairs(paths) == [(0, 1), (0, 5), (1, 2)]


def test_coordinates_of_other_tilers() -> None:
    paths = ["c0/8_idx5_x51_y1_class0.png", "c1/8_idx5_x101_y1_class1.png", "c1/9_idx5_x51_y51_class1.png"]
    assert pairs(paths, px=50) == [(0, 1)]
    assert pairs(["A/s1/tile_X-0_Y-0.png", "A/s2/tile_X-0_Y-50.png", "B/s1/tile_X-50_Y-0.png"], px=50) == [(0, 2)]
    assert pairs(["A/scan-row2-col3.png", "A/scan-row2-col4.png"], px=50) == [(0, 1)]
    assert pairs(["A/plain.png", "A/max_y3.png"]) == []


def test_numbers_that_count_tiles_are_not_px() -> None:
    paths = [f"A/s_x{x}_y{y}.png" for x in range(8) for y in range(8)]
    found = pairs(paths, px=150)
    assert len(found) == 2 * 7 * 8
    assert (0, 1) in found
    assert (0, 9) not in found


def test_the_share_of_test_tiles_with_a_neighbour_in_train() -> None:
    paths = [f"A/s_x{50 * i}_y0.png" for i in range(6)]
    sides = np.array(["train", "test", "test", "val", "train", "train"], dtype=object)
    found = neighbour_findings(table(paths, px=50), sides=sides)
    assert [finding.severity for finding in found] == ["warning"]
    assert found[0].what == (
        "3 of 5 pairs of adjacent tiles (by the coordinates in their names) are in several splits: "
        "1 of 2 (50 %) test tiles have a neighbour in train, such as"
    )
    assert found[0].sets == [[paths[0], paths[1]], [paths[2], paths[3]], [paths[3], paths[4]]]


def test_sides_that_are_no_splits() -> None:
    paths = [f"A/s_x{50 * i}_y0.png" for i in range(4)] + ["A/t_x0_y0.png"]
    own = neighbour_findings(table(paths, px=50), sides=np.array(paths, dtype=object))
    assert "3 of 3 pairs" in own[0].line
    assert "4 of 5 (80 %) tiles have such a neighbour" in own[0].line
    assert neighbour_findings(table(paths, px=50), sides=np.array(["g"] * 5, dtype=object)) == []
    assert neighbour_findings(table(["A/1", "A/2"]), sides=np.array(["a", "b"], dtype=object)) == []


@pytest.mark.skipif(not NAMES.is_file(), reason="../shared/data/kather2016/names.txt is not there")
def test_the_names_of_kather_2016() -> None:
    paths = NAMES.read_text().split()
    found = positions(table(paths))
    assert len(found) == 5000
    assert found["image"].nunique() == 313
    adjacent = adjacent_pairs(found, side_px=150)
    expected = 0
    for _, part in found.groupby("image"):
        for (x1, y1), (x2, y2) in combinations(part[["x", "y"]].to_numpy().tolist(), 2):
            near, far = sorted((abs(x1 - x2), abs(y1 - y2)))
            expected += near < 150 and far <= 150
    assert len(adjacent) == expected == 4235
    labels = [path.split("/")[0] for path in paths]
    sides = np.array(random_split(labels, fractions=(0.7, 0.15, 0.15), seed=0), dtype=object)
    line = neighbour_findings(table(paths), sides=sides)[0].line
    assert "541 of 752 (72 %) test tiles have a neighbour in train" in line
    sources = found["image"].str[12:14].to_numpy(dtype=object)
    assert neighbour_findings(table(paths), sides=sources) == []  # whole sources part no neighbours
