"""Decide on a class by the mean probabilities of a fold's inner networks."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.evaluation.decision import decided, decision_offsets
from pipeline.evaluation.validate import FloatArray, IntArray
from pipeline.names import RunFile
from pipeline.storage import atomic


def mean_offsets(folders: Sequence[Path]) -> dict[str, FloatArray]:
    """Return head -> mean over some parts of the offsets of its decision (K,); other heads take the largest one.

    Args:
        folders: of the parts; each has heads.json.
    """
    found: dict[str, list[FloatArray]] = {}
    for folder in folders:
        for head, entry in atomic.from_json(folder / RunFile.HEADS)["heads"].items():
            if (offsets := decision_offsets(entry)) is not None:
                found.setdefault(head, []).append(offsets)
    return {head: np.mean(each, axis=0) for head, each in found.items()}


def decided_by_head(p: FloatArray, heads: pd.Series, offsets: Mapping[str, FloatArray]) -> IntArray:
    """Return the class (N,) that each row's head decides on.

    Args:
        p: (N, K) probabilities.
        heads: (N,) name of the head of each row.
        offsets: as `mean_offsets` returns them.
    """
    shift = np.zeros_like(p)
    for head, own in offsets.items():
        shift[(heads == head).to_numpy()] = own
    return decided(p, shift)
