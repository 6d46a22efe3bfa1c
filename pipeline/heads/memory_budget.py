"""How much memory fitting heads takes, and what a stated budget leaves for rows that do not fit into it.

Estimates from above: of what the steps hold at once, not of what they leave behind. Block and sample depend on the
budget and the rows' number alone, so that a stated budget repeats its results (P6).
"""

import dataclasses
import math

from pipeline.errors import BadInput
from pipeline.heads.kernels import gram_bytes
from pipeline.heads.landmarks import LANDMARKS

BASE_BYTES = 1_000_000_000
"""Python with torch, scikit-learn, XGBoost and pandas: 820 to 880 MB were measured with some hundred rows."""

ROW_BYTES, CLASS_BYTES = 1_000, 64
"""Of a row beside its features: names, hash, numbers; for each class what a head says of it, XGBoost's gradients."""

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

    svm_rows: int
    """Rows of a sample that an exact SVM may be fitted on."""


def free_share() -> int:
    """Return the bytes that are taken where no budget is stated."""
    import torch

    from pipeline.network.memory import free_bytes

    return int(SHARE * free_bytes(torch.device("cpu")))


def always_held(n_rows: int, n_classes: int) -> int:
    """Return the bytes that are held beside features."""
    return BASE_BYTES + n_rows * (ROW_BYTES + CLASS_BYTES * n_classes)


def needed(n_rows: int, n_classes: int, n_fit: int, width: int, *, svm_rows: int) -> int:
    """Return the bytes that fitting in memory takes.

    Args:
        n_rows: all rows.
        n_classes: K.
        n_fit: rows that heads are fitted on.
        width: D.
        svm_rows: rows of an exact SVM at most.
    """
    kernel = gram_bytes(n_fit) if n_fit <= svm_rows else 8 * n_fit * LANDMARKS
    return always_held(n_rows, n_classes) + n_rows * 4 * width * COPIES + kernel


def room(memory: int, n_rows: int, n_classes: int, width: int, *, svm_rows: int) -> Room:
    """Return how many rows may be held at once within `memory` bytes.

    Half is for samples, which are fitted on in memory, with the landmarks' kernel values of the search; a quarter for a
    block with its kernel values or XGBoost's pages, of which four are under way.

    Args:
        memory: bytes.
        n_rows: all rows.
        n_classes: K.
        width: D, of the widest features.
        svm_rows: rows of an exact SVM at most.

    Raises:
        BadInput: not even the smallest block and sample fit; says what would.
    """
    left = memory - always_held(n_rows, n_classes)
    of_sample, of_block = 2 * 4 * width * COPIES + 24 * LANDMARKS, 20 * width + 24 * LANDMARKS
    sample, block = int(left / 2 / of_sample), int(left / 4 / of_block)
    if sample < LEAST_SAMPLE or block < LEAST_BLOCK:
        least = memory - left + max(2 * LEAST_SAMPLE * of_sample, 4 * LEAST_BLOCK * of_block)
        raise BadInput(
            f"--memory: {memory / 1e6:.0f}MB for a process are too little for a block of the {n_rows} rows of {width} "
            f"features beside what is always held: give {-(-least // 10**6)}MB or more for each"
        )
    exact = math.isqrt(left // 2 // gram_bytes(1))
    return Room(min(block, MOST_BLOCK), min(sample, MOST_SAMPLE), min(exact, svm_rows))
