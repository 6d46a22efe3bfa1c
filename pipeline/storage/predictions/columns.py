"""Name the columns of predictions, and hash the names of their tiles."""

import numpy as np
import pandas as pd

COLUMNS = ("tile_id", "group", "split", "label", "head", "predicted")
"""Columns before the probabilities `p_<class>`, which stand in the order of the classes."""

PART_COLUMNS = ("seed", "fold")
"""Columns that only a plan's pooled predictions have in the file; readers fill in 0."""

TILE_COLUMNS = ("tile_id", "group", "split", "label", *PART_COLUMNS)
"""Columns that are the same for every head."""

BLOCK_ROWS = 100_000
"""Lines of a row group, at most: some 10 MB."""

CODED = ("group", "split", "label", "head", "predicted")
"""Texts that repeat."""

SUM_TOLERANCE = 1e-6
"""How far the probabilities of a row may be from 1: nine digits are written in a CSV file, float32 in Parquet."""


def hash_names(names: "pd.Series[str]") -> np.ndarray:
    """Return (N,) uint64 of texts: the same on every machine, and as good as drawn at random."""
    found = np.empty(len(names), np.uint64)
    for start in range(0, len(names), BLOCK_ROWS):  # as Python objects, texts take much memory
        block = names.iloc[start : start + BLOCK_ROWS].to_numpy(dtype=object)
        found[start : start + BLOCK_ROWS] = pd.util.hash_array(block, categorize=False)
    return found
