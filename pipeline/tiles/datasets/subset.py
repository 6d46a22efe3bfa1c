"""A part of a data set, every class in its share: for measurements that cannot afford all of it."""

import io
import os
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.errors import BadInput
from pipeline.tiles.datasets.sources import TileSet


def drawn_rows(tiles: TileSet, n: int, *, seed: int) -> pd.DataFrame:
    """Return n rows of the tiles' table in its order, drawn at random class by class in proportion.

    Args:
        tiles: the data set.
        n: how many.
        seed: of the draw.

    Raises:
        BadInput: there are not so many, or more classes than tiles asked for.
    """
    table = tiles.table
    sizes = table["label"].value_counts().sort_index()
    if not len(sizes) <= n <= len(table):
        raise BadInput(f"tiles = {n}: {tiles.root} holds {len(table)} tiles of {len(sizes)} classes")
    exact = sizes * n / len(table)
    counts = exact.astype(int).clip(lower=1)
    for label in (exact - counts).sort_values(ascending=False, kind="stable").index[: max(0, n - counts.sum())]:
        counts[label] += 1
    while counts.sum() > n:  # rare classes got their one tile
        counts[str(counts.idxmax())] -= 1
    rng = np.random.default_rng(seed)
    chosen = [
        rng.choice(np.flatnonzero(table["label"] == label), size, replace=False) for label, size in counts.items()
    ]
    return table.iloc[np.sort(np.concatenate(chosen))]


def listed(tiles: TileSet, rows: pd.DataFrame, *, folder: Path) -> str:
    """Return rows of a data set as the text of a CSV file that `prepare --data` takes from a folder.

    Args:
        tiles: the data set.
        rows: path, label, group, split.
        folder: where the file will stand; paths are relative to it.
    """
    start = os.path.relpath(tiles.root.resolve(), folder.resolve())
    table = rows.assign(path=[f"{start}/{path}" for path in rows["path"]])
    out = io.StringIO()
    table[["path", "label", "group", "split"]].to_csv(out, index=False, lineterminator="\n")
    return out.getvalue()
