"""Write the list of tiles of plan.toml and rest.toml: 1500 of colorectal5, every class in its share.

Run from the root, once: python reports/ablation/draw_tiles.py
"""

import os
from pathlib import Path

import numpy as np
import pandas as pd

DATA = Path("../shared/data/colorectal5")
N_TILES = 1500
OUT = Path(__file__).parent / f"colorectal5-{N_TILES}.csv"


def draw(table: pd.DataFrame, n: int, *, seed: int) -> pd.DataFrame:
    """Return n rows of a table in its order, drawn at random class by class in proportion.

    Args:
        table: with a column "label".
        n: at least the number of classes, at most the number of rows.
        seed: of the draw.
    """
    sizes = table["label"].value_counts().sort_index()
    exact = sizes * n / len(table)
    counts = exact.astype(int).clip(lower=1)
    for label in (exact - counts).sort_values(ascending=False, kind="stable").index[: max(0, n - counts.sum())]:
        counts[label] += 1
    while counts.sum() > n:  # rare classes got their one tile
        counts[str(counts.idxmax())] -= 1
    rng = np.random.default_rng(seed)
    chosen = [rng.choice(np.flatnonzero(table["label"] == name), size, replace=False) for name, size in counts.items()]
    return table.iloc[np.sort(np.concatenate(chosen))]


if __name__ == "__main__":
    paths = sorted(path for path in DATA.glob("*/*") if path.suffix.lower() in (".png", ".jpg", ".tif"))
    table = pd.DataFrame({"path": [os.path.relpath(path, OUT.parent) for path in paths]})
    table["label"] = [path.parent.name for path in paths]
    draw(table, N_TILES, seed=0).to_csv(OUT, index=False, lineterminator="\n")
    print(f"{N_TILES} of {len(paths)} tiles in {OUT}")
