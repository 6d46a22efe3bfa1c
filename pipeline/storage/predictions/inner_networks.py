"""Decide on a class by the mean probabilities of a fold's inner networks."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.evaluation.decision import decided, decision_offsets
from pipeline.evaluation.validate import FloatArray
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


def mean_predictions(tables: Sequence[pd.DataFrame], offsets: Mapping[str, FloatArray]) -> pd.DataFrame:
    """Return the first table with mean probabilities, and the class that each row's head decides on.

    Each network is calibrated separately, as in scikit-learn's CalibratedClassifierCV(ensemble=True).

    Args:
        tables: the same rows by each network, with the columns head, predicted and p_<class>.
        offsets: as `mean_offsets` returns them.
    """
    names = [name for name in tables[0].columns if name.startswith("p_")]
    p = np.mean([table[names].to_numpy() for table in tables], axis=0)
    shift = np.zeros_like(p)
    for head, own in offsets.items():
        shift[(tables[0]["head"] == head).to_numpy()] = own
    mean = tables[0].copy()
    mean[names] = p
    mean["predicted"] = np.array([name[2:] for name in names], dtype=object)[decided(p, shift)]
    return mean
