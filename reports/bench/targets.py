"""Judge tables of the benchmark against the project's targets; print one line for each target.

    python reports/bench/targets.py reports/bench/intel-xeon-amx-2-cores.csv
    python reports/bench/targets.py MACHINE.csv MACHINE-engines.csv MACHINE-hdf5.csv --figure MACHINE.png

Tables are those of `python -m pipeline.bench` and of the scripts of this folder.
"""

import argparse
import csv
import dataclasses
import statistics
from pathlib import Path

from figures import draw_rates

EMBED_RATIO, EMBED_SHARE = 3.5, 0.85
TRAIN_RATIO = 2.4
SVM_RATIO, XGBOOST_RATIO = 8.0, 3.0
COSINE, SAME_CLASS, ACCURACY_POINTS = 0.999, 0.998, 0.2
HDF5_SHARE = 0.05
GPU_EMBEDDED, GPU_TRAINED = 25_000.0, 5_000.0
"""Tiles a second, on a GPU of the class of an H200."""

PLAIN, OURS = "plain", "ours"


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a table: the median, lowest and highest of n values, and what they are compared with."""

    part: str
    what: str
    precision: str
    batch: int | None
    unit: str
    median: float
    low: float
    high: float
    n: int
    ratio: float | None
    share: float | None
    note: str

    @property
    def name(self):
        """An engine in words, e.g. "openvino bf16 at batch 8"."""
        return f"{self.what} {self.precision} at batch {self.batch}"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A target and what became of it; `is_met` is None if it was not measured."""

    target: str
    is_met: bool | None = None
    found: str = ""

    @property
    def line(self):
        word = {True: "Met", False: "Missed", None: "Not measured"}[self.is_met]
        return f"{word}: {self.target}. {self.found}".rstrip()


def read_table(path):
    """Return the rows of a table."""

    def optional(kind, text):
        return kind(text) if text else None

    with path.open(encoding="utf-8", newline="") as file:
        return [
            Row(
                *(line[name] for name in ("part", "what", "precision")),
                optional(int, line["batch"]),
                line["unit"],
                *(float(line[name]) for name in ("median", "low", "high")),
                int(line["n"]),
                *(optional(float, line[name]) for name in ("ratio", "share")),
                line["note"],
            )
            for line in csv.DictReader(file)
        ]


def find(table, part, what, unit=""):
    """Return the first row of a part with this name (and unit), None if it was not measured."""
    rows = (row for row in table if row.part == part and row.what == what and unit in ("", row.unit))
    return next(rows, None)


def best_engine(table):
    """Return the fastest row of an engine in fp32 or bf16, which need no calibration data; None if there is none."""
    rows = [
        row for row in table if row.part == "embed" and row.what not in (PLAIN, "limit") and row.precision != "int8"
    ]
    return max(rows, key=lambda row: row.median, default=None)


def embedding_ratio(table):
    target = f"embedding is at least {EMBED_RATIO:g} times as fast as a plain fp32 loop"
    best = best_engine(table)
    if best is None or best.ratio is None:
        return Verdict(target)
    return Verdict(target, best.ratio >= EMBED_RATIO, f"{best.name}: {best.ratio:.2f} times")


def embedding_share(table):
    """Judge the speed of embedding against the machine's limit: the higher one of fp32 and bf16."""
    target = f"embedding reaches {100 * EMBED_SHARE:.0f} % of what the machine's matrix products allow"
    best = best_engine(table)
    limits = [row for row in table if row.part == "embed" and row.what == "limit"]
    if best is None or best.share is None or not limits:
        return Verdict(target)
    limit = max(limits, key=lambda row: row.median)
    share = best.share if best.precision == limit.precision else best.median / limit.median
    return Verdict(target, share >= EMBED_SHARE, f"{best.name}: {100 * share:.0f} % of the {limit.precision} limit")


def agreement(table):
    """Judge whether the fastest engine predicts what fp32 predicts."""
    target = (
        f"the fastest engine agrees with fp32: cosine {COSINE} or more, the same class for {100 * SAME_CLASS:g} % of "
        f"the tiles, accuracy of a head within {ACCURACY_POINTS} points"
    )
    best = best_engine(table)
    key = best and ("agreement", best.what, best.precision)
    rows = {row.unit: row for row in table if (row.part, row.what, row.precision) == key}
    if not rows:
        return Verdict(target)
    cosine, same, points = (rows[unit].median for unit in ("cosine", "share of tiles", "points"))
    is_met = cosine >= COSINE and same >= SAME_CLASS and abs(points) <= ACCURACY_POINTS
    found = (
        f"cosine {cosine:.5f}, {100 * same:.2f} % of the tiles ({rows['share of tiles'].note}), {points:+.2f} points"
    )
    return Verdict(target, is_met, f"{best.what} {best.precision}: {found}")


def training_ratio(table):
    target = f"training is at least {TRAIN_RATIO:g} times as fast as a plain fp32 loop"
    ours = find(table, "train", OURS)
    if ours is None or ours.ratio is None:
        return Verdict(target)
    found = f"{ours.precision} at batch {ours.batch}: {ours.ratio:.2f} times, {ours.median:.4g} tiles/s"
    return Verdict(target, ours.ratio >= TRAIN_RATIO, found)


def svm_ratio(table):
    target = f"the SVM search is at least {SVM_RATIO:g} times as fast as GridSearchCV and chooses the same"
    ours, same = find(table, "svm", OURS, "s"), find(table, "svm", "same choice")
    if ours is None or ours.ratio is None or same is None:
        return Verdict(target)
    chosen = "the same choice" if same.median == 1 else "ANOTHER choice"
    return Verdict(target, ours.ratio >= SVM_RATIO and same.median == 1, f"{ours.ratio:.1f} times, {chosen}")


def xgboost_ratio(table):
    """Judge XGBoost as we set it against its defaults: time, and log-loss on validation rows.

    A loss counts if our mean over the seeds is above the defaults' by more than two standard deviations of ours. A
    table keeps the median and the range of the seeds: of three seeds these are all values.
    """
    target = (
        f"XGBoost is at least {XGBOOST_RATIO:g} times as fast as with its defaults, at no higher validation log-loss"
    )
    ours = find(table, "xgboost", OURS, "s")
    own, theirs = (find(table, "xgboost", what, "log-loss") for what in (OURS, PLAIN))
    if ours is None or ours.ratio is None or own is None or theirs is None:
        return Verdict(target)
    values = [own.low, own.median, own.high]
    noise = statistics.stdev(values)
    apart = statistics.mean(values) - theirs.median
    found = f"{ours.ratio:.1f} times; log-loss {apart:+.4f} against the defaults', seeds differ by {noise:.4f} (sd)"
    return Verdict(target, ours.ratio >= XGBOOST_RATIO and apart <= 2 * noise, found)


def storing(table):
    target = f"writing HDF5 takes at most {100 * HDF5_SHARE:g} % of an extraction"
    row, best = find(table, "hdf5", OURS), best_engine(table)
    if row is None or best is None:
        return Verdict(target)
    writing, embedding = 1 / row.median, 1 / best.median
    share = writing / (writing + embedding)
    return Verdict(target, share <= HDF5_SHARE, f"{100 * share:.1f} % of an extraction by {best.name}")


def gpu_embedding(table):
    target, best = (
        f"{GPU_EMBEDDED:,.0f} tiles a second are embedded on a GPU of the class of an H200",
        best_engine(table),
    )
    return (
        Verdict(target, best.median >= GPU_EMBEDDED, f"{best.median:,.0f} ({best.name})") if best else Verdict(target)
    )


def gpu_training(table):
    target = f"{GPU_TRAINED:,.0f} tiles a second are trained on a GPU of the class of an H200"
    rows = [row for row in table if row.part == "train" and row.what.startswith(OURS)]
    best = max(rows, key=lambda row: row.median, default=None)
    return Verdict(target, best.median >= GPU_TRAINED, f"{best.median:,.0f} ({best.name})") if best else Verdict(target)


ON_CPU = (embedding_ratio, embedding_share, agreement, training_ratio, svm_ratio, xgboost_ratio, storing)
ON_GPU = (gpu_embedding, agreement, gpu_training, svm_ratio, xgboost_ratio, storing)


def draw(path, table):
    """Draw the engines' rates by batch size, and the speed-ups with their targets."""
    curves = {}
    for row in table:
        if row.part == "embed" and row.what not in (PLAIN, "limit"):
            curves.setdefault((row.what, row.precision), {})[row.batch] = (row.median, row.low, row.high)
    lines = [row for row in table if row.part == "embed" and row.what in (PLAIN, "limit")]
    found = {
        "embedding": (best_engine(table), EMBED_RATIO),
        "training": (find(table, "train", OURS), TRAIN_RATIO),
        "SVM search": (find(table, "svm", OURS, "s"), SVM_RATIO),
        "XGBoost": (find(table, "xgboost", OURS, "s"), XGBOOST_RATIO),
    }
    ratios = {name: (row.ratio, target) for name, (row, target) in found.items() if row and row.ratio is not None}
    draw_rates(path, curves, levels={f"{row.what} {row.precision}": row.median for row in lines}, ratios=ratios)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", type=Path, nargs="+")
    parser.add_argument("--gpu", action="store_true", help="the targets of a GPU")
    parser.add_argument("--figure", type=Path, help="also draw rates and speed-ups into this PNG")
    args = parser.parse_args()
    table = [row for path in args.tables for row in read_table(path)]
    for target in ON_GPU if args.gpu else ON_CPU:
        print(target(table).line)
    if args.figure:
        draw(args.figure, table)


if __name__ == "__main__":
    main()
