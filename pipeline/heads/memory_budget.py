"""Decide how much memory fitting heads may take, and whether the rows fit into it.

Estimates are upper bounds of the memory of each step. They depend only on `--memory` or the machine's total memory, and
on the number of rows, so that a command repeats its results on a busy machine (P6).
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
"""Bytes of Python with torch, scikit-learn, XGBoost and pandas; measured: 820 to 880 MB."""

ROW_BYTES, CLASS_BYTES = 1_000, 64
"""Bytes of a row without features (names, hash, numbers), and more for each class (output, gradients of XGBoost)."""

COPIES = 6
"""Copies of the float32 features while fitting in memory: all, the splits, standardised ones of several fits."""

SHARE = 0.5
"""Share of the machine's total memory (or its cgroup's limit) that is used without `--memory`."""

MOST_BLOCK, LEAST_BLOCK = 4096, 64
"""Rows read at once."""

MOST_SAMPLE, LEAST_SAMPLE = 10_000, 100
"""Rows of a split in a sample; more rows improve a search by less than its noise."""

LEAST_SHARE = 2_000_000_000
"""Least bytes for a process of a local cluster; with less in all, there is one process."""


@dataclasses.dataclass(frozen=True)
class Room:
    """The numbers of rows that may be in memory at once while streaming."""

    block_rows: int
    sample_rows: int
    """Rows of each split."""

    svm_rows: int
    """Most rows of a sample that an exact SVM is fitted on."""

    def __str__(self) -> str:
        """Return a text with the numbers."""
        return f"they are read {self.block_rows} at once, and searches take up to {self.sample_rows} of a split"


@dataclasses.dataclass(frozen=True)
class Memory:
    """Division of the memory among the processes of a command."""

    n_workers: int
    """Processes of a local cluster; 0 without one."""

    each: int
    """Bytes for each of them and for this process."""

    room: Room | None = None
    """None: all rows fit into `each`."""


def share_out(total: int, cores: int, cluster: str | None) -> Memory:
    """Return the division of the memory, without a decision about rows.

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
    stated: int | None,
    path: Path,
    baselines: Path | None,
    config: FitConfig,
    *,
    cluster: str | None,
) -> Memory:
    """Return the division of the memory, with `room` if the rows do not fit. Only sizes and splits are read.

    Args:
        stated: bytes for the whole command (`--memory`); None: `SHARE` of the machine's memory.
        path: the embeddings file.
        baselines: baselines.h5, if baselines are fitted on it.
        config: threads, the split that heads are fitted on, and the most rows of an exact SVM.
        cluster: "local", the address of a scheduler, or None.

    Raises:
        BadInput: not even the smallest block and sample fit; fused heads without baselines.h5, or with rows that do
            not fit.
        BadArtifact: a file breaks its schema.
    """
    if config.fused and baselines is None:
        raise BadInput(
            f"{path.parent}: fused heads need baselines.h5: run `python -m pipeline.baselines`, and leave out "
            "--no-baselines"
        )
    memory = share_out(int(SHARE * total_bytes()) if stated is None else stated, config.jobs, cluster)
    header = reader.read_header(path)
    n_rows, width = header.shape
    n_classes, widths = len(header.attrs["classes"]), [width]
    if baselines is not None:
        found = {name: width_of(baselines, baseline_features.SCHEMA, name) for name in baseline_features.FEATURES}
        joined = found["colour_histogram"] + found["handcrafted"]
        widths += [*found.values(), joined, *([joined + width] if config.fused else [])]
    if config.relative == "group":
        widths = [2 * each for each in widths]
    n_fit = int((reader.read_split(path) == SPLITS.index(config.fit_split)).sum())
    if needed(n_rows, n_classes, n_fit, sum(widths), svm_rows=config.svm_rows) <= memory.each:
        return memory
    if config.fused:
        raise BadInput(f"{path}: fused heads need all rows in memory: give more --memory, or leave them out")
    space = room(memory.each, n_rows, n_classes, max(widths), svm_rows=config.svm_rows)
    return dataclasses.replace(memory, room=space)


def base_bytes(n_rows: int, n_classes: int) -> int:
    """Return the bytes in memory besides the features."""
    return BASE_BYTES + n_rows * (ROW_BYTES + CLASS_BYTES * n_classes)


def needed(n_rows: int, n_classes: int, n_fit: int, width: int, *, svm_rows: int) -> int:
    """Return the bytes for fitting in memory.

    Args:
        n_rows: all rows.
        n_classes: K.
        n_fit: rows that heads are fitted on.
        width: D, of all features together.
        svm_rows: most rows of an exact SVM.
    """
    kernel = gram_bytes(n_fit) if n_fit <= svm_rows else 8 * n_fit * LANDMARKS
    return base_bytes(n_rows, n_classes) + n_rows * 4 * width * COPIES + kernel


def room(memory: int, n_rows: int, n_classes: int, width: int, *, svm_rows: int) -> Room:
    """Return the numbers of rows that may be in memory at once.

    Half of the memory is for samples, with the kernel values of the search. A quarter is for a block with its kernel
    values, or for the four pages of XGBoost.

    Args:
        memory: bytes.
        n_rows: all rows.
        n_classes: K.
        width: D, of the widest features.
        svm_rows: most rows of an exact SVM.

    Raises:
        BadInput: not even the smallest block and sample fit; names the least memory that is enough.
    """
    left = memory - base_bytes(n_rows, n_classes)
    sample_bytes, block_bytes = 2 * 4 * width * COPIES + 24 * LANDMARKS, 20 * width + 24 * LANDMARKS
    sample, block = int(left / 2 / sample_bytes), int(left / 4 / block_bytes)
    if sample < LEAST_SAMPLE or block < LEAST_BLOCK:
        least = memory - left + max(2 * LEAST_SAMPLE * sample_bytes, 4 * LEAST_BLOCK * block_bytes)
        raise BadInput(
            f"--memory: {memory / 1e6:.0f}MB for a process are too little for a block of the {n_rows} rows of {width} "
            f"features next to what is always in memory: give {-(-least // 10**6)}MB or more for each"
        )
    exact = math.isqrt(left // 2 // gram_bytes(1))
    return Room(min(block, MOST_BLOCK), min(sample, MOST_SAMPLE), min(exact, svm_rows))


def gram_bytes(n: int) -> int:
    """Return the bytes of the kernel matrix of n rows in float64, the type of libsvm."""
    return 8 * n * n


def check_memory(n: int, *, total: int | None = None) -> None:
    """Check that the kernel matrix of n rows takes at most half of the memory.

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
