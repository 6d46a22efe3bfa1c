"""Name the columns of predictions, and hash the names of their tiles."""

import numpy as np
import pandas as pd

COLUMNS = ("tile_id", "group", "split", "label", "head", "predicted")
"""Columns before the probabilities `p_<class>`, which follow in the order of the classes."""

PART_COLUMNS = ("seed", "fold")
"""Columns of a plan's pooled predictions; readers fill in 0 for other files."""

TILE_COLUMNS = ("tile_id", "group", "split", "label", *PART_COLUMNS)
"""Columns that are the same for every head."""

BLOCK_ROWS = 100_000
"""Most lines of a row group: some 10 MB."""

CODED = ("group", "split", "label", "head", "predicted")
"""Text columns with few different values, stored as codes."""

SUM_TOLERANCE = 1e-6
"""How far the probabilities of a row may be from 1: nine digits are written in a CSV file, float32 in Parquet."""


def hash_names(names: "pd.Series[str]") -> np.ndarray:
    """Return (N,) uint64 hashes of texts, the same on every machine."""
    found = np.empty(len(names), np.uint64)
    for start in range(0, len(names), BLOCK_ROWS):  # Python strings take much memory
        block = names.iloc[start : start + BLOCK_ROWS].to_numpy(dtype=object)
        found[start : start + BLOCK_ROWS] = pd.util.hash_array(block, categorize=False)
    return found
