"""What the project wants to reach, and whether the measurements say that it does."""

import dataclasses
import statistics
from collections.abc import Callable, Sequence

from pipeline.benchmark.measurement import OURS, PLAIN, Measurement, find

EMBED_RATIO, EMBED_SHARE = 3.5, 0.85
TRAIN_RATIO = 2.4
SVM_RATIO, XGBOOST_RATIO = 8.0, 3.0
COSINE, SAME_ANSWER, ACCURACY_POINTS = 0.999, 0.998, 0.2
HDF5_SHARE = 0.05
GPU_EMBEDDED, GPU_TRAINED = 25_000.0, 5_000.0
"""Tiles a second, of the class of an H200."""

EXACT = ("fp32", "bf16")
"""Precisions that need no calibration data; the targets are about these."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A target and what became of it."""

    target: str
    is_met: bool | None
    """None: it was not measured."""

    found: str

    @property
    def line(self) -> str:
        """The verdict as a sentence."""
        word = {True: "Met", False: "Missed", None: "Not measured"}[self.is_met]
        return f"{word}: {self.target}. {self.found}"


def best_engine(table: Sequence[Measurement]) -> Measurement | None:
    """Return the fastest row of an engine in fp32 or bf16, None if no engine was measured."""
    rows = [row for row in table if row.part == "embed" and row.what not in (PLAIN, "limit") and row.precision in EXACT]
    return max(rows, key=lambda row: row.median, default=None)


def named(row: Measurement) -> str:
    """Return an engine's row by name, e.g. "openvino bf16 at batch 8"."""
    return f"{row.what} {row.precision} at batch {row.batch}"


def embedding_ratio(table: Sequence[Measurement]) -> Verdict:
    """Judge the speed of embedding against the plain loop's."""
    target = f"embedding is at least {EMBED_RATIO:g} times as fast as a plain fp32 loop"
    best = best_engine(table)
    if best is None or best.ratio is None:
        return Verdict(target, None, "")
    return Verdict(target, best.ratio >= EMBED_RATIO, f"{named(best)}: {best.ratio:.2f} times")


def embedding_share(table: Sequence[Measurement]) -> Verdict:
    """Judge the speed of embedding against the machine's limit: the higher one of fp32 and bf16."""
    target = f"embedding reaches {EMBED_SHARE:.0%} of what the machine's matrix products allow".replace("%", " %")
    best = best_engine(table)
    limits = [row for row in table if row.part == "embed" and row.what == "limit"]
    if best is None or best.share is None or not limits:
        return Verdict(target, None, "")
    limit = max(limits, key=lambda row: row.median)
    share = best.share if best.precision == limit.precision else best.median / limit.median
    return Verdict(target, share >= EMBED_SHARE, f"{named(best)}: {100 * share:.0f} % of the {limit.precision} limit")


def agreement(table: Sequence[Measurement]) -> Verdict:
    """Judge whether the fastest engine says what fp32 says."""
    target = (
        f"the fastest engine agrees with fp32: cosine {COSINE} or more, the same class for {100 * SAME_ANSWER:g} % of "
        f"the tiles, accuracy of a head within {ACCURACY_POINTS} points"
    )
    best = best_engine(table)
    rows = {
        row.unit: row
        for row in table
        if best is not None and (row.part, row.what, row.precision) == ("agreement", best.what, best.precision)
    }
    if best is None or not rows:
        return Verdict(target, None, "")
    cosine, same, points = (rows[unit].median for unit in ("cosine", "share of tiles", "points"))
    tiles = rows["share of tiles"].note
    is_met = cosine >= COSINE and same >= SAME_ANSWER and abs(points) <= ACCURACY_POINTS
    alike = f"cosine {cosine:.5f}, {100 * same:.2f} % of the tiles ({tiles}), {points:+.2f} points"
    found = f"{best.what} {best.precision}: {alike}"
    return Verdict(target, is_met, found)


def training_ratio(table: Sequence[Measurement]) -> Verdict:
    """Judge the speed of training against a plain loop's."""
    target = f"training is at least {TRAIN_RATIO:g} times as fast as a plain fp32 loop"
    ours = find(table, "train", OURS)
    if ours is None or ours.ratio is None:
        return Verdict(target, None, "")
    found = f"{ours.precision} at batch {ours.batch}: {ours.ratio:.2f} times, {ours.median:.4g} tiles/s"
    return Verdict(target, ours.ratio >= TRAIN_RATIO, found)


def svm_ratio(table: Sequence[Measurement]) -> Verdict:
    """Judge the SVM search against scikit-learn's: its time, and what it chooses."""
    target = f"the SVM search is at least {SVM_RATIO:g} times as fast as GridSearchCV and chooses the same"
    ours, same = find(table, "svm", OURS, "s"), find(table, "svm", "same choice")
    if ours is None or ours.ratio is None or same is None:
        return Verdict(target, None, "")
    chosen = "the same choice" if same.median == 1 else "ANOTHER choice"
    return Verdict(target, ours.ratio >= SVM_RATIO and same.median == 1, f"{ours.ratio:.1f} times, {chosen}")


def xgboost_ratio(table: Sequence[Measurement]) -> Verdict:
    """Judge XGBoost as we set it against its defaults: time, and log-loss on validation rows.

    A loss counts if our mean over the seeds lies above the defaults' by more than two standard deviations of ours.
    """
    target = (
        f"XGBoost is at least {XGBOOST_RATIO:g} times as fast as with its defaults, at no higher validation log-loss"
    )
    ours = find(table, "xgboost", OURS, "s")
    losses = [find(table, "xgboost", what, "log-loss") for what in (OURS, PLAIN)]
    if ours is None or ours.ratio is None or losses[0] is None or losses[1] is None:
        return Verdict(target, None, "")
    own, theirs = losses[0].values, losses[1].values
    noise = statistics.stdev(own) if len(own) > 1 else 0.0
    apart = statistics.mean(own) - statistics.mean(theirs)
    found = f"{ours.ratio:.1f} times; log-loss {apart:+.4f} against the defaults', seeds differ by {noise:.4f} (sd)"
    return Verdict(target, ours.ratio >= XGBOOST_RATIO and apart <= 2 * noise, found)


def storing(table: Sequence[Measurement]) -> Verdict:
    """Judge the time that writing takes in an extraction."""
    target = f"writing HDF5 takes at most {100 * HDF5_SHARE:g} % of an extraction"
    row = find(table, "hdf5", OURS)
    if row is None or row.share is None:
        return Verdict(target, None, "")
    return Verdict(target, row.share <= HDF5_SHARE, f"{100 * row.share:.1f} %; {row.note}")


def gpu_rate(part: str, what: str, least: float) -> Callable[[Sequence[Measurement]], Verdict]:
    """Return the judge of a rate that is wanted of a GPU of the class of an H200."""
    target = f"{least:,.0f} tiles a second are {what} on a GPU of the class of an H200"

    def judge_rate(table: Sequence[Measurement]) -> Verdict:
        if part == "embed":
            best = best_engine(table)
        else:
            rows = [row for row in table if row.part == part and row.what.startswith(OURS)]
            best = max(rows, key=lambda row: row.median, default=None)
        if best is None:
            return Verdict(target, None, "")
        return Verdict(target, best.median >= least, f"{best.median:,.0f} ({named(best)})")

    return judge_rate


ON_CPU = (embedding_ratio, embedding_share, agreement, training_ratio, svm_ratio, xgboost_ratio, storing)
ON_GPU = (
    gpu_rate("embed", "embedded", GPU_EMBEDDED),
    agreement,
    gpu_rate("train", "trained", GPU_TRAINED),
    svm_ratio,
    xgboost_ratio,
    storing,
)


def judge(table: Sequence[Measurement], *, is_gpu: bool) -> list[Verdict]:
    """Return the verdict on every target that applies to the device."""
    return [target(table) for target in (ON_GPU if is_gpu else ON_CPU)]
