"""Find tiles that were neighbours in one image, by the coordinates in their names.

Names as of Kather 2016 (`1A2B_CRC-Prim-HE-03_009.tif_Row_301_Col_151.tif`) and of many tilers
(`10255_idx5_x1201_y1751_class0.png`). Such tiles share stain, focus, and structures at their border.
"""

import re

import numpy as np
import pandas as pd
from scipy.spatial import KDTree

from pipeline.names import SPLITS
from pipeline.tiles.audit.finding import Finding, finding_of_sets
from pipeline.tiles.decoding import SQUARE

PATTERNS = (
    re.compile(r"(?P<image>CRC-Prim-HE-.*?)_Row_(?P<y>\d+)_Col_(?P<x>\d+)"),  # a number of the tile precedes
    re.compile(r"(?P<image>.*?)[_-]Row[_-]?(?P<y>\d+)[_-]Col[_-]?(?P<x>\d+)", re.IGNORECASE),
    re.compile(r"(?P<image>.*?)[_-]x[_-]?(?P<x>\d+)[_-]y[_-]?(?P<y>\d+)", re.IGNORECASE),
)
"""Patterns of names with the image and the coordinates of a tile's corner in it; the first match is used."""

DEEPEST = 8
"""Most coverage of an image by its tiles. With more, and a distance of 1, coordinates count tiles, not px."""

EXAMPLES = 10
"""Pairs that the finding names."""


def positions(table: pd.DataFrame) -> pd.DataFrame:
    """Return columns image, x and y of the tiles whose names contain them, with their rows' numbers as index.

    Args:
        table: columns path and label. A folder named like the label is not part of the image's name, because neighbours
            in a slide often have different labels.
    """
    found = {}
    for row, (path, label) in enumerate(zip(table["path"], table["label"], strict=True)):
        *folders, name = path.split("/")
        if square := SQUARE.fullmatch(name):
            x, y, side, px = map(int, square.groups())
            found[row] = ("/".join(folders), x * px // side, y * px // side)
            continue
        match = next((match for pattern in PATTERNS if (match := pattern.search(name))), None)
        if match is not None:
            image = "/".join([*(folder for folder in folders if folder != label), match["image"]])
            found[row] = (image, int(match["x"]), int(match["y"]))
    return pd.DataFrame.from_dict(found, orient="index", columns=["image", "x", "y"])


def adjacent_pairs(places: pd.DataFrame, *, side_px: int) -> np.ndarray:
    """Return the pairs of tiles of one image that touch along an edge or overlap, (M, 2) row numbers, sorted.

    Args:
        places: as from `positions`.
        side_px: side of a tile. Coordinates may also count tiles (see `DEEPEST`).
    """
    images = [(part.index.to_numpy(), part[["x", "y"]].to_numpy(float)) for _, part in places.groupby("image")]
    images = [(rows, xy) for rows, xy in images if len(rows) > 1]
    if not images:
        return np.zeros((0, 2), dtype=np.int64)
    area = sum(float((np.ptp(xy, axis=0) + side_px).prod()) for _, xy in images)
    depth = sum(len(rows) for rows, _ in images) * side_px**2 / area
    steps = np.concatenate([np.diff(np.unique(axis)) for _, xy in images for axis in xy.T])
    side = 1 if depth > DEEPEST and len(steps) and steps.min() == 1 else side_px
    found = []
    for rows, xy in images:
        pairs = KDTree(xy).query_pairs(side, p=np.inf, output_type="ndarray")
        apart = np.abs(xy[pairs[:, 0]] - xy[pairs[:, 1]])
        found.append(np.sort(rows[pairs[(apart < side).any(axis=1)]], axis=1))  # else they touch in a corner only
    return np.unique(np.concatenate(found), axis=0).astype(np.int64)


def neighbour_findings(table: pd.DataFrame, *, sides: np.ndarray) -> list[Finding]:
    """Return a finding if neighbours in an image are on two sides of the split.

    Args:
        table: columns tile_id, path, label, width and height of the readable tiles, (N) rows.
        sides: side of the split of each, (N,).
    """
    places = positions(table)
    if places.empty:
        return []
    pairs = adjacent_pairs(places, side_px=int(table[["width", "height"]].max(axis=1).median()))
    parted = pairs[sides[pairs[:, 0]] != sides[pairs[:, 1]]]
    if not len(parted):
        return []
    names = table["tile_id"].to_numpy()
    what = f"{len(parted)} of {len(pairs)} pairs of adjacent tiles (by the coordinates in their names)"
    if set(sides) <= set(SPLITS):
        both = np.concatenate([parted, parted[:, ::-1]])
        touched = np.unique(both[(sides[both[:, 0]] == "test") & (sides[both[:, 1]] == "train"), 0])
        n_test = int((sides == "test").sum())
        what += f" are in several splits: {_share(len(touched), n_test)} test tiles have a neighbour in train"
    else:
        what += f" can be parted by the split: {_share(len(np.unique(parted)), len(table))} tiles have such a neighbour"
    return [finding_of_sets("warning", f"{what}, such as", [list(names[pair]) for pair in parted[:EXAMPLES]])]


def _share(part: int, whole: int) -> str:
    """Return `3 of 12 (25 %)`."""
    return f"{part} of {whole} ({part / max(whole, 1):.0%})".replace("%", " %")
