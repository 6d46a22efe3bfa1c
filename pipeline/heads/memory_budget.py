"""Decide how much memory fitting heads may take, and whether the rows fit into it.

Estimates are upper bounds of what the steps hold at once. They depend on the stated or the machine's whole memory and
on the rows' number alone, so that a command repeats its results on a busy machine (P6).
"""

import dataclasses
import math
from pathlib import Path

from pipeline.errors import BadInput
from pipeline.heads.config import LANDMARKS, FitConfig
from pipeline.names import SPLITS
from pipeline.runtime.memory import total_bytes
from pipeline.storage import baseline_features
from pipeline.storage.embeddings import reader
from pipeline.storage.embeddings.feature_rows import width_of

BASE_BYTES = 1_000_000_000
"""Python with torch, scikit-learn, XGBoost and pandas: 820 to 880 MB were measured with some hundred rows."""

ROW_BYTES, CLASS_BYTES = 1_000, 64
"""For a row without its features: names, hash, numbers; for each class the heads' output and XGBoost's gradients."""

COPIES = 6
"""Times the features, as float32, that fitting in memory holds: all, the splits, standardised ones of several fits."""

SHARE = 0.5
"""Share of the machine's memory that is taken where no memory is stated."""

MOST_BLOCK, LEAST_BLOCK = 4096, 64
"""Rows read at once."""

MOST_SAMPLE, LEAST_SAMPLE = 10_000, 100
"""Rows of a split in a sample: what a search or the bins of a histogram gain by more is below their noise."""

LEAST_SHARE = 2_000_000_000
"""Least memory of a process of a local cluster, where there is as much: fewer processes with more memory each."""


@dataclasses.dataclass(frozen=True)
class Room:
    """The rows that may be in memory at once while all are read from their file."""

    block_rows: int
    sample_rows: int
    """Rows of each split."""

    svm_rows: int
    """Most rows of a sample that an exact SVM is fitted on."""

    def __str__(self) -> str:
        """Return the numbers in words."""
        return f"they are read {self.block_rows} at once, and searches take up to {self.sample_rows} of a split"


@dataclasses.dataclass(frozen=True)
class Memory:
    """How memory is shared among the processes of a command."""

    n_workers: int
    """Processes of a local cluster; 0 without one."""

    each: int
    """Bytes for each of them and for this process."""

    room: Room | None = None
    """None: all rows fit into `each`."""


def share_out(total: int, cores: int, cluster: str | None) -> Memory:
    """Return how memory is shared, without a decision about rows.

    Args:
        total: bytes; with a local cluster for all of its processes and this one, else for each process.
        cores: that may be used.
        cluster: "local", the address of a scheduler, or None.
    """
    if cluster != "local":
        return Memory(0, total)
    n_workers = max(1, min(cores, total // LEAST_SHARE - 1))
    return Memory(n_workers, total // (n_workers + 1))


def decide_memory(
    stated: int | None, path: Path, baselines: Path | None, config: FitConfig, *, cluster: str | None
) -> Memory:
    """Return how memory is shared, and the room for rows that do not fit. Only sizes and splits are read, no row.

    Args:
        stated: bytes that the whole command may take; None: a share of the machine's memory.
        path: the embeddings file.
        baselines: baselines.h5, if baselines are fitted on it.
        config: threads, the split that heads are fitted on, and the most rows of an exact SVM.
        cluster: "local", the address of a scheduler, or None.

    Raises:
        BadInput: not even the smallest block and sample fit.
        BadArtifact: a file breaks its schema.
    """
    memory = share_out(int(SHARE * total_bytes()) if stated is None else stated, config.jobs, cluster)
    header = reader.read_header(path)
    n_rows, width = header.shape
    n_classes, widths = len(header.attrs["classes"]), [width]
    if baselines is not None:
        widths += [width_of(baselines, baseline_features.SCHEMA, name) for name in baseline_features.FEATURES]
    n_fit = int((reader.read_split(path) == SPLITS.index(config.fit_split)).sum())
    if needed(n_rows, n_classes, n_fit, sum(widths), svm_rows=config.svm_rows) <= memory.each:
        return memory
    space = room(memory.each, n_rows, n_classes, max(widths), svm_rows=config.svm_rows)
    return dataclasses.replace(memory, room=space)


def always_held(n_rows: int, n_classes: int) -> int:
    """Return the bytes in memory without any features."""
    return BASE_BYTES + n_rows * (ROW_BYTES + CLASS_BYTES * n_classes)


def needed(n_rows: int, n_classes: int, n_fit: int, width: int, *, svm_rows: int) -> int:
    """Return the bytes that fitting in memory takes.

    Args:
        n_rows: all rows.
        n_classes: K.
        n_fit: rows that heads are fitted on.
        width: D, of all features together.
        svm_rows: most rows of an exact SVM.
    """
    kernel = gram_bytes(n_fit) if n_fit <= svm_rows else 8 * n_fit * LANDMARKS
    return always_held(n_rows, n_classes) + n_rows * 4 * width * COPIES + kernel


def room(memory: int, n_rows: int, n_classes: int, width: int, *, svm_rows: int) -> Room:
    """Return how many rows may be in memory at once within `memory` bytes.

    Half is for samples, which are fitted on in memory, with the landmarks' kernel values of the search. A quarter is
    for a block with its kernel values or XGBoost's pages, of which four are in use.

    Args:
        memory: bytes.
        n_rows: all rows.
        n_classes: K.
        width: D, of the widest features.
        svm_rows: most rows of an exact SVM.

    Raises:
        BadInput: not even the smallest block and sample fit; names the least memory that is enough.
    """
    left = memory - always_held(n_rows, n_classes)
    of_sample, of_block = 2 * 4 * width * COPIES + 24 * LANDMARKS, 20 * width + 24 * LANDMARKS
    sample, block = int(left / 2 / of_sample), int(left / 4 / of_block)
    if sample < LEAST_SAMPLE or block < LEAST_BLOCK:
        least = memory - left + max(2 * LEAST_SAMPLE * of_sample, 4 * LEAST_BLOCK * of_block)
        raise BadInput(
            f"--memory: {memory / 1e6:.0f}MB for a process are too little for a block of the {n_rows} rows of {width} "
            f"features next to what is always in memory: give {-(-least // 10**6)}MB or more for each"
        )
    exact = math.isqrt(left // 2 // gram_bytes(1))
    return Room(min(block, MOST_BLOCK), min(sample, MOST_SAMPLE), min(exact, svm_rows))


def gram_bytes(n: int) -> int:
    """Return the size of the kernel values of n rows with one another in float64, which is what libsvm reads."""
    return 8 * n * n


def check_memory(n: int, *, total: int | None = None) -> None:
    """Check that the kernel values of n rows take at most half of the memory.

    Args:
        n: rows.
        total: bytes of memory; None: this machine's.

    Raises:
        BadInput: names the possible number of rows.
    """
    memory = total_bytes() if total is None else total
    if gram_bytes(n) > memory / 2:
        raise BadInput(
            f"an exact SVM of {n} rows holds {gram_bytes(n) / 2**30:.1f} GiB of kernel values, more than half of this "
            f"machine's {memory / 2**30:.1f} GiB: give --svm-rows {math.isqrt(memory // 16)} or less"
        )
