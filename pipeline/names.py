"""Name the commands, the heads and the splits."""

from collections.abc import Mapping
from typing import NamedTuple

COMMANDS = (
    *("prepare", "train", "extract", "merge", "baselines", "fit_heads", "robustness", "report", "verify"),
    *("tile", "predict", "export", "compare", "doctor", "demo_slide", "bench", "ablate", "import_embeddings"),
)
"""The commands of one stage: `python -m pipeline.NAME`, and the first word after `histoheads`."""


class HeadName(NamedTuple):
    """Name and place of a head; `heads.registry` has the code for each name."""

    label: str
    """Name in text, tables and figures."""

    file: str | None = None
    """File in the run folder. None: softmax is in the model's file, means and two baselines are not saved."""

    features: str | None = None
    """For a baseline, the features it takes: those of the embeddings, or a feature set of baselines.h5."""

    fused: bool = False
    """Whether a head of the embeddings takes hand-crafted features and the colour histogram, too."""

    mean_of: tuple[str, ...] = ()
    """Heads whose log-odds are averaged, as far as they were fitted; empty: the head is fitted itself."""


COLOUR_AND_TEXTURE = ("histogram_svm", "handcrafted_xgboost", "histogram_handcrafted_svm")
"""Baselines that are fitted on colours and texture."""

HEADS: Mapping[str, HeadName] = {
    "softmax": HeadName("softmax"),
    "logistic": HeadName("logistic regression", file="heads/logistic.skops"),
    "svm": HeadName("SVM", file="heads/svm.skops"),
    "xgboost": HeadName("XGBoost", file="heads/xgboost.ubj"),
    "fused_svm": HeadName("fused SVM", file="heads/fused_svm.skops", fused=True),
    "fused_xgboost": HeadName("fused XGBoost", file="heads/fused_xgboost.ubj", fused=True),
    "mean": HeadName("mean of heads", mean_of=("softmax", "logistic", "svm", "xgboost")),
    "fused_mean": HeadName(
        "mean of fused heads and baselines",
        mean_of=("softmax", "logistic", "fused_svm", "fused_xgboost", *COLOUR_AND_TEXTURE),
        fused=True,
    ),
    "majority": HeadName("majority class", features="embeddings"),
    "histogram_svm": HeadName("colour histogram + SVM", "heads/histogram_svm.skops", "colour_histogram"),
    "handcrafted_xgboost": HeadName("hand-crafted features + XGBoost", "heads/handcrafted_xgboost.ubj", "handcrafted"),
    "histogram_handcrafted_svm": HeadName(
        "histogram and hand-crafted + SVM", "heads/histogram_handcrafted_svm.skops", "histogram_handcrafted"
    ),
    "baseline_mean": HeadName(
        "mean of colour and texture baselines", features="histogram_handcrafted", mean_of=COLOUR_AND_TEXTURE
    ),
    "untrained_svm": HeadName("untrained ResNet-50 + SVM", "heads/untrained_svm.skops", "untrained"),
    "knn": HeadName("20 nearest neighbours", features="embeddings"),
    "linear": HeadName("linear probe", "heads/linear.skops", "embeddings"),
}
"""All heads, in the order of every table, where `mean` follows its members."""

MAIN = tuple(name for name, head in HEADS.items() if head.features is None)
"""The heads that the report compares."""

REFERENCES = ("softmax", "logistic")
"""The head that others are compared with: softmax, or of a frozen encoder, which has none, logistic regression."""

FUSED = frozenset(name for name, head in HEADS.items() if head.fused)
"""Heads that take features of the tile's pixels next to its embedding."""

SOURCES = {name: head.features for name, head in HEADS.items() if head.features is not None}
"""Baseline -> the features that it takes."""

BASELINES = tuple(SOURCES)
"""Each baseline omits one part: the tile, the texture, the network, its training, or a tuned classifier."""

MEANS = {name: head.mean_of for name, head in HEADS.items() if head.mean_of}
"""Mean -> the heads whose log-odds it averages."""

DEFAULT_HEADS = ("svm", "xgboost")
"""The heads that `fit_heads` fits unless others are named."""

FILES = {name: head.file for name, head in HEADS.items() if head.file is not None}
"""Head or baseline -> its file in the run folder."""

ON_REQUEST = tuple(name for name in MAIN if name in FILES)
"""What `fit_heads --heads` takes."""

RUN_ONLY = frozenset({*BASELINES} - {*FILES, *MEANS})
"""Baselines that predict the rows of the run only: they are not saved."""

SPELLING = {name: head.label for name, head in HEADS.items()}
"""Head -> its name in text; a head that is not listed keeps its own name."""

UNTRAINED = ("majority", *COLOUR_AND_TEXTURE, "baseline_mean", "untrained_svm")
"""Baselines that need no training of a network, the cheapest first."""

COST_ORDER = (
    *UNTRAINED,
    "softmax",
    "logistic",
    "linear",
    "xgboost",
    "svm",
    "fused_xgboost",
    "fused_svm",
    "mean",
    "fused_mean",
    "knn",
)
"""All heads, the cheapest first: what a head adds to training and to one pass over a tile. Softmax is the network's
last layer, k-NN keeps all embeddings."""


class RunFile:
    """Names of the files in a run folder, or in the folder of a part of a plan."""

    MANIFEST = "manifest.csv"
    AUDIT = "audit.json"
    PROTOCOL = "protocol.json"
    """The plan of several folds or seeds."""

    CHECKPOINT = "checkpoint.pt"
    MODEL = "model.safetensors"
    MODEL_FACTS = "model.json"
    HISTORY = "history.csv"
    EMBEDDINGS = "embeddings.h5"
    BASELINES = "baselines.h5"
    """Features that the baselines take."""

    HEADS = "heads/heads.json"
    """How each head was chosen and calibrated."""

    PREDICTIONS = "predictions.csv"
    RANDOM_CONTROL = "predictions-random.csv"
    """Predictions of the random-split control."""

    ROBUSTNESS = "robustness.csv"
    COMPARISON = "comparison.csv"
    """Scores of the heads; the report."""

    PER_GROUP = "per_group.csv"
    GROUPS = "groups.csv"
    LABEL_ERRORS = "label_errors.csv"
    RUNS = "compare.csv"
    """Several runs in one table."""


SPLITS = ("train", "val", "test")
"""Names of the splits; their order is the code stored in embeddings.h5 (`/split` uint8)."""

IMAGENET = "imagenet"
"""What `--init` takes for torchvision's weights, not for a file (that one is ./imagenet)."""

TRAINED = "trained"
"""Value of `--encoder`, and of the attribute of embeddings.h5, for a network that was trained on the run's tiles."""

IMPORTED = "imported"
"""Value of the attribute `encoder` of embeddings.h5 for rows that another program made."""
