"""Name the commands, the heads and the splits."""

COMMANDS = (
    *("prepare", "train", "extract", "merge", "baselines", "fit_heads", "robustness", "report", "verify"),
    *("tile", "predict", "export", "compare", "doctor", "demo_slide", "bench", "ablate"),
)
"""The commands of one stage: `python -m pipeline.NAME`, and the first word after `histoheads`."""


MAIN = ("softmax", "svm", "xgboost")
"""The heads that the comparison is about, in the order of every table."""

BASELINES = ("majority", "histogram_svm", "handcrafted_xgboost", "untrained_svm", "knn", "linear")
"""What a head must beat to be worth its cost: no tile looked at, no texture, no network, no training, no tuning."""

FILES = {"svm": "heads/svm.skops", "xgboost": "heads/xgboost.ubj"}
"""Head -> its file in the run folder; softmax is the model's own, baselines are not kept."""

SUMMARY = "heads/heads.json"
"""The file in the run folder that says how each head was chosen and calibrated."""

SPELLING = {
    "softmax": "softmax",
    "svm": "SVM",
    "xgboost": "XGBoost",
    "majority": "majority class",
    "histogram_svm": "colour histogram + SVM",
    "handcrafted_xgboost": "hand-crafted features + XGBoost",
    "untrained_svm": "untrained ResNet-50 + SVM",
    "knn": "20 nearest neighbours",
    "linear": "linear probe",
}
"""How a head is called in text; one that is not listed keeps its own name."""


SPLITS = ("train", "val", "test")
"""Names of the splits; their order is the code stored in embeddings.h5 (`/split` uint8)."""
