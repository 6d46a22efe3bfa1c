"""Name the commands, the heads and the splits."""

from collections.abc import Mapping
from typing import NamedTuple

COMMANDS = (
    *("prepare", "train", "extract", "merge", "baselines", "fit_heads", "robustness", "report", "verify"),
    *("tile", "predict", "export", "compare", "doctor", "demo_slide", "bench", "ablate"),
)
"""The commands of one stage: `python -m pipeline.NAME`, and the first word after `histoheads`."""


class HeadName(NamedTuple):
    """Name and place of a head; `heads.registry` has the code for each name."""

    label: str
    """Name in text, tables and figures."""

    file: str | None = None
    """File in the run folder. None: softmax is in the model's file, a baseline is not saved."""

    features: str | None = None
    """For a baseline, the features it takes: those of the embeddings, or a data set of baselines.h5."""


HEADS: Mapping[str, HeadName] = {
    "softmax": HeadName("softmax"),
    "svm": HeadName("SVM", file="heads/svm.skops"),
    "xgboost": HeadName("XGBoost", file="heads/xgboost.ubj"),
    "majority": HeadName("majority class", features="embeddings"),
    "histogram_svm": HeadName("colour histogram + SVM", features="colour_histogram"),
    "handcrafted_xgboost": HeadName("hand-crafted features + XGBoost", features="handcrafted"),
    "untrained_svm": HeadName("untrained ResNet-50 + SVM", features="untrained"),
    "knn": HeadName("20 nearest neighbours", features="embeddings"),
    "linear": HeadName("linear probe", features="embeddings"),
}
"""All heads, in the order of every table."""

MAIN = tuple(name for name, head in HEADS.items() if head.features is None)
"""The heads that the report compares."""

SOURCES = {name: head.features for name, head in HEADS.items() if head.features is not None}
"""Baseline -> the features that it takes."""

BASELINES = tuple(SOURCES)
"""Each baseline omits one part: the tile, the texture, the network, its training, or a tuned classifier."""

FILES = {name: head.file for name, head in HEADS.items() if head.file is not None}
"""Head -> its file in the run folder."""

SPELLING = {name: head.label for name, head in HEADS.items()}
"""Head -> its name in text; a head that is not listed keeps its own name."""

SUMMARY = "heads/heads.json"
"""File in the run folder that states how each head was chosen and calibrated."""

SPLITS = ("train", "val", "test")
"""Names of the splits; their order is the code stored in embeddings.h5 (`/split` uint8)."""

IMAGENET = "imagenet"
"""What `--init` takes for torchvision's weights, not for a file (that one is ./imagenet)."""
