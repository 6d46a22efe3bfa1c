"""How much memory fitting heads takes, and what a stated budget leaves for rows that do not fit into it.

Estimates from above: of what the steps hold at once, not of what they leave behind. Block and sample depend on the
budget and the rows' number alone, so that a stated budget repeats its results (P6).
"""

import dataclasses
import math
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import BadInput
from pipeline.heads.svm.kernels import gram_bytes
from pipeline.heads.svm.nystroem import LANDMARKS
from pipeline.names import SPLITS
from pipeline.storage import baseline_features as stored_baselines
from pipeline.storage.embeddings import reader as stored
from pipeline.storage.embeddings.feature_rows import width_of

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

    from pipeline.runtime.memory import free_bytes

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


LEAST_SHARE = 2_000_000_000
"""Memory of a process of a local cluster at least, where there is as much: fewer processes with more."""


class Shares(NamedTuple):
    """How memory is shared out."""

    n_workers: int
    """Processes of a local cluster; 0 without one."""

    each: int
    """Bytes for each of them and for this process."""


def shares(memory: int, cores: int, address: str | None) -> Shares:
    """Return how memory is shared out.

    Args:
        memory: bytes; of a local cluster for all of its processes and this one, else for each.
        cores: that may be used.
        address: of the cluster, if there is one.
    """
    if address != "local":
        return Shares(0, memory)
    n_workers = max(1, min(cores, memory // LEAST_SHARE - 1))
    return Shares(n_workers, memory // (n_workers + 1))


class Memory(NamedTuple):
    """What the processes of a command may take, and what of the rows fits into that."""

    shared: Shares
    room: Room | None
    """How many rows may be held at once; None: all of them."""


def memory_for(
    stated: int | None,
    path: Path,
    baselines: Path | None,
    *,
    cores: int,
    cluster: str | None,
    fit_on: str,
    svm_rows: int,
) -> Memory:
    """Return how memory is shared out, and whether rows have to stay in their file.

    Args:
        stated: bytes that the whole command may take; None: a share of what is free now, before rows are read.
        path: the embeddings file.
        baselines: baselines.h5, if baselines are fitted on it.
        cores: that may be used.
        cluster: its address, if there is one.
        fit_on: train or heldout.
        svm_rows: rows of an exact SVM at most.

    Raises:
        BadInput: not even some rows fit.
        BadArtifact: a file is not what its schema says.
    """
    shared = shares(free_share() if stated is None else stated, cores, cluster)
    return Memory(shared, room_for(shared.each, path, baselines, fit_on=fit_on, svm_rows=svm_rows))


def room_for(memory: int, path: Path, baselines: Path | None, *, fit_on: str, svm_rows: int) -> Room | None:
    """Return how many rows may be held at once if not all fit into memory; None if they do.

    Only sizes and splits are read, no row.

    Args:
        memory: bytes that a process may take.
        path: the embeddings file.
        baselines: baselines.h5, if baselines are fitted on it.
        fit_on: train or heldout.
        svm_rows: rows of an exact SVM at most.

    Raises:
        BadInput: not even some rows fit.
        BadArtifact: a file is not what its schema says.
    """
    header = stored.read_header(path)
    n_rows, width = header.shape
    n_classes = len(header.attrs["classes"])
    widths = [width]
    if baselines is not None:
        widths += [width_of(baselines, stored_baselines.SCHEMA, name) for name in stored_baselines.FEATURES]
    fitted = SPLITS.index("train" if fit_on == "train" else "val")
    n_fit = int((stored.read_split(path) == fitted).sum())
    if needed(n_rows, n_classes, n_fit, sum(widths), svm_rows=svm_rows) <= memory:
        return None
    return room(memory, n_rows, n_classes, max(widths), svm_rows=svm_rows)
