"""How much memory fitting heads takes, and what a stated budget leaves for rows that do not fit into it.

Estimates from above: of what the steps hold at once, not of what they leave behind. Block and sample depend on the
budget and the rows' number alone, so that a stated budget repeats its results (P6).
"""

import dataclasses

from pipeline.errors import BadInput
from pipeline.heads.landmarks import LANDMARKS

BASE_BYTES = 1_000_000_000
"""Python with torch, scikit-learn, XGBoost and pandas: 820 to 880 MB were measured with some hundred rows."""

ROW_BYTES = 4_000
"""Of a row beside its features: names, hash, what nine heads say of it, and its lines of predictions.csv."""

COPIES = 6
"""Times the features, as float32, that fitting in memory holds: all, the splits, standardised ones of several fits."""

SHARE = 0.8
"""Of the free memory that is taken where no budget is stated."""

MOST_BLOCK, LEAST_BLOCK = 4096, 64
"""Rows read at once."""

MOST_SAMPLE, LEAST_SAMPLE = 10_000, 100
"""Rows of a split in a sample: what a search or the bins of a histogram gain by more is below their noise."""


@dataclasses.dataclass(frozen=True)
class Room:
    """What a budget leaves for rows that are read from their file."""

    block_rows: int
    sample_rows: int
    """Of each split."""


def free_share() -> int:
    """Return the bytes that are taken where no budget is stated."""
    import torch

    from pipeline.network.memory import free_bytes

    return int(SHARE * free_bytes(torch.device("cpu")))


def needed(n_rows: int, n_fit: int, width: int, *, svm_rows: int) -> int:
    """Return the bytes that fitting in memory takes.

    Args:
        n_rows: all rows.
        n_fit: rows that heads are fitted on.
        width: D.
        svm_rows: rows of an exact SVM at most.
    """
    kernel = 8 * n_fit**2 if n_fit <= svm_rows else 8 * n_fit * LANDMARKS
    return BASE_BYTES + n_rows * (ROW_BYTES + 4 * width * COPIES) + kernel


def room(memory: int, n_rows: int, width: int) -> Room:
    """Return how many rows may be held at once within `memory` bytes.

    Half is for samples, which are fitted on in memory; a quarter for a block with its kernel values or XGBoost's pages,
    of which four are under way.

    Raises:
        BadInput: not even the smallest block and sample fit; says what would.
    """
    left = memory - BASE_BYTES - n_rows * ROW_BYTES
    of_sample, of_block = 2 * 4 * width * COPIES, 20 * width + 24 * LANDMARKS
    sample, block = int(left / 2 / of_sample), int(left / 4 / of_block)
    if sample < LEAST_SAMPLE or block < LEAST_BLOCK:
        least = memory - left + max(2 * LEAST_SAMPLE * of_sample, 4 * LEAST_BLOCK * of_block)
        raise BadInput(
            f"--memory {memory / 1e6:.0f}MB: too little for a block of the {n_rows} rows of {width} features beside "
            f"what is always held: give {-(-least // 10**6)}MB or more"
        )
    return Room(min(block, MOST_BLOCK), min(sample, MOST_SAMPLE))
