"""Search, fit and calibrate heads, the steps of `fit_heads`; every choice uses scores of held-out rows.

`train`: a head is fitted on training rows; validation rows choose the point and calibrate. `heldout`: a head is fitted
on validation rows, which the network was not trained on, so that embeddings are as at test time; cross-validation over
their groups chooses the point and calibrates (as scikit-learn's StackingClassifier fits its last step on
cross-validated outputs).

Rows that do not fit into memory are searched on a stratified sample. The chosen point is then fitted on all of them,
read block by block, and its held-out scores are of all validation rows.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard, cast

import numpy as np

from pipeline.evaluation.calibration_choice import choose_calibration
from pipeline.evaluation.decision import choose_prior_correction
from pipeline.evaluation.folds import assign_folds
from pipeline.heads.base import AnyRows, Head, Params, Rows, SavableHead, Softmax
from pipeline.heads.cluster.client import connected
from pipeline.heads.config import FitConfig
from pipeline.heads.kind import HeadKind
from pipeline.heads.memory_budget import Memory
from pipeline.heads.outputs import calibrated_output, mean_entry, with_means
from pipeline.heads.rows import HeadData, features_of
from pipeline.heads.search_result import Point, Search, cross_search
from pipeline.heads.streamed_rows import StreamedRows, sampled, scores_of
from pipeline.names import MEANS, SOURCES
from pipeline.runtime.console import log
from pipeline.runtime.progress import progress
from pipeline.storage import atomic, records
from pipeline.storage.predictions.csv_table import HeadOutput

HELDOUT_FOLDS = 3
"""Folds of the held-out rows for `heldout`."""


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """The points that were tried for a head."""

    found: Search
    seconds: float
    sizes: Mapping[str, int]
    """Split -> number of rows of the search."""


@dataclasses.dataclass(frozen=True)
class FitResult:
    """A head with the scores that its calibration is fitted on."""

    head: Head
    held_scores: np.ndarray
    """(M, K) held-out scores of the validation rows."""

    held: Rows
    """The M validation rows."""

    facts: dict[str, Any]
    """The entry of heads.json so far."""


class CalibratedHead(NamedTuple):
    """A fitted and calibrated head."""

    head: Head | None
    """None: a mean of other heads."""

    facts: dict[str, Any]
    """Its entry of heads.json: search, chosen, notes, seconds, calibration."""


@contextlib.contextmanager
def open_fit_backend(
    config: FitConfig, memory: Memory, *, folder: Path, cluster: str | None
) -> Iterator[tuple[FitConfig, Path | None]]:
    """Yield the config for the available memory, and a folder for streamed rows or a cluster.

    Streamed rows and rows on a cluster are fitted on the CPU.

    Args:
        config: config for this process with rows in memory.
        memory: division of the memory.
        folder: the run folder; the yielded folder is in it and is removed after the block.
        cluster: "local", the address of a scheduler, or None.

    Raises:
        BadInput: the cluster does not answer, or has other versions.
    """
    if memory.room is None and cluster is None:
        yield config, None
        return
    if memory.room is not None:
        config = dataclasses.replace(config, svm_rows=memory.room.svm_rows)
    with contextlib.ExitStack() as stack:
        cache = stack.enter_context(atomic.temporary_folder(folder))
        pool = None if cluster is None else stack.enter_context(connected(cluster, memory, folder=cache))
        yield dataclasses.replace(config, device="cpu", pool=pool), cache


def search_head(name: str, kind: HeadKind, rows: Mapping[str, Rows], config: FitConfig) -> SearchResult:
    """Score the points of a head, of streamed rows on a sample.

    Raises:
        BadInput: a head cannot be fitted on so many rows, or on so few.
    """
    start = time.perf_counter()
    points = kind.points(rows[config.fit_split], config)
    sample = sampled(rows, seed=config.seed)
    folds = heldout_folds(sample["val"], config)
    with progress(len(points) * max(1, folds.max() + 1), unit="point", label=f"{name} search") as bar:
        found = evaluate(sample, folds, lambda fit, held: kind.search(fit, held, points, config, bar.update), config)
    found.best  # noqa: B018  (it is cached: computed here, where its time counts)
    used = ("train", "val") if config.fit_on == "train" else ("val",)
    return SearchResult(found, time.perf_counter() - start, {name: len(sample[name].y) for name in used})


def fit_head(
    name: str, kind: HeadKind, rows: Mapping[str, Rows], searched: SearchResult, config: FitConfig
) -> FitResult:
    """Fit the best point of a search on all rows, unless the search has done so.

    Args:
        name: as for the search.
        kind: kind of the head.
        rows: rows of train and val, as for the search.
        searched: from `search_head`.
        config: as for the search.

    Raises:
        DiskFull: no room for what streamed rows keep on disk.
    """
    start, fit_rows, chosen = time.perf_counter(), rows[config.fit_split], searched.found.best
    seconds, notes = 0.0 if is_streamed(rows) or chosen.head is None else chosen.seconds, []
    if is_streamed(rows):
        chosen = _refit_head(name, kind, rows, chosen.params, config)
        samples = ", ".join(f"{n} of {len(rows[split].y)} {split} rows" for split, n in searched.sizes.items())
        notes = [f"streamed: fitted on all {len(fit_rows.y)} rows, block by block; searched on {samples}"]
    head = chosen.head or kind.fit(fit_rows, chosen.params, config)
    is_scored = chosen.head is not None or config.fit_on == "heldout"
    held_scores = chosen.scores if is_scored else scores_of(head, rows["val"])
    facts = {
        "search": searched.found.facts,
        "chosen": chosen.params,
        "notes": kind.notes(head, fit_rows, chosen.params, config) + notes,
        "search_seconds": round(searched.seconds - seconds, 3),
        "fit_seconds": round(seconds + time.perf_counter() - start, 3),
    }
    return FitResult(head, held_scores, rows["val"], facts)


def _refit_head(
    name: str, kind: HeadKind, rows: Mapping[str, StreamedRows], params: Params, config: FitConfig
) -> Point:
    """Return a point with its held-out scores of all streamed validation rows."""
    folds = heldout_folds(rows["val"], config)
    with progress(0, unit="step", label=f"{name}, all rows") as bar:
        return evaluate(
            rows,
            folds,
            lambda fit, held: kind.refit(fit, held, params, config, bar.update),
            config,
            one_by_one=kind.shares_workers,
        ).best


def fit_baseline(name: str, kind: HeadKind, rows: Mapping[str, Rows], config: FitConfig) -> FitResult:
    """Search and fit a baseline in this process on the rows of the heads, of streamed rows on a sample.

    Args:
        name: name of the baseline.
        kind: kind of the baseline.
        rows: rows of train and val, with the features that the baseline takes.
        config: as for the heads.
    """
    config = dataclasses.replace(config, pool=None)
    sample = sampled(rows, seed=config.seed)
    fitted = fit_head(name, kind, sample, search_head(name, kind, sample, config), config)
    fitted.facts["features"] = SOURCES[name]
    fit_rows, n_rows = sample[config.fit_split], len(rows[config.fit_split].y)
    missing = fit_rows.n_classes - len(np.unique(fit_rows.y))
    if missing:
        fitted.facts["notes"].append(f"{missing} class(es) without a fitted row, which it can never predict")
    if n_rows > len(fit_rows.y):
        fitted.facts["notes"].append(
            f"fitted on a stratified sample of {len(fit_rows.y)} of {n_rows} rows, which do not fit into memory"
        )
    return fitted


def fit_softmax(rows: Mapping[str, Rows]) -> FitResult | None:
    """Return the network's own head, which was trained with it; None for a frozen encoder, which has no such head."""
    head, val = Softmax(), rows["val"]
    if not val.logits.shape[1]:
        return None
    n_weights = (val.features.shape[1] + 1) * val.n_classes
    notes = ["the network's last layer; its logits were computed with the embeddings"]
    facts = {"search": [], "chosen": {}, "notes": notes, "bytes": 4 * n_weights, "search_seconds": 0, "fit_seconds": 0}
    return FitResult(head, head.scores(val), val, facts)


def is_streamed(rows: Mapping[str, Rows]) -> TypeGuard[Mapping[str, StreamedRows]]:
    """Return whether the rows do not fit into memory."""
    return isinstance(rows["val"], StreamedRows)


def heldout_folds(val: Rows, config: FitConfig) -> np.ndarray:
    """Return the fold of each validation row, (M,); -1 for all where heads are fitted on training rows."""
    if config.fit_on == "train":
        return np.full(len(val.y), -1)
    return assign_folds(val.y, list(val.groups), seed=config.seed, folds=HELDOUT_FOLDS)[0]


def evaluate(
    rows: Mapping[str, AnyRows],
    folds: np.ndarray,
    search: Callable[[AnyRows, AnyRows], Search],
    config: FitConfig,
    *,
    one_by_one: bool = False,
) -> Search:
    """Score all points on the validation rows. With a pool, all folds at once unless `one_by_one`."""
    if config.fit_on == "train":
        return search(rows["train"], rows["val"])
    each_of = map if config.pool is None or one_by_one else config.pool.side_by_side
    return cross_search(rows["val"], folds, search, each_of=each_of)


def calibrate(fitted: FitResult, config: FitConfig) -> CalibratedHead:
    """Return a head with its calibration and decision, which are fitted on held-out scores of the val rows.

    For softmax, "auto" is a temperature, which keeps the network's own decisions.
    """
    method = config.calibration
    if isinstance(fitted.head, Softmax) and method == "auto":
        method = "temperature"
    held = fitted.held
    choice = choose_calibration(fitted.held_scores, held.y, list(held.groups), seed=config.seed, method=method)
    facts = dataclasses.asdict(choice.calibration) | {"rows": "val", "unit": choice.unit, "nll": choice.nll}
    correction = choose_prior_correction(
        fitted.held_scores, held.y, list(held.groups), method=choice.calibration.method, seed=config.seed
    )
    return CalibratedHead(fitted.head, fitted.facts | {"calibration": facts, "decision": correction._asdict()})


def mean_of(name: str, heads: Mapping[str, CalibratedHead]) -> dict[str, CalibratedHead]:
    """Return a mean by its name, of those of its members that were fitted; nothing if these are fewer than two."""
    members = [member for member in MEANS[name] if member in heads]
    if len(members) < 2:
        return {}
    return {name: CalibratedHead(None, mean_entry(members, {member: heads[member].facts for member in members}))}


def predict_all(heads: Mapping[str, CalibratedHead], data: HeadData) -> Iterator[tuple[str, HeadOutput]]:
    """Yield each head's name and its output for all rows, with the features that the head takes.

    The speed of a head, `predict_tiles_per_second`, goes into its facts.
    """

    def fitted() -> Iterator[tuple[str, HeadOutput]]:
        for name, (head, facts) in heads.items():
            if head is not None:
                rows = data.every[features_of(name)]
                start = time.perf_counter()
                scores = scores_of(head, rows)
                speed = None if scores is rows.logits else round(len(rows.y) / (time.perf_counter() - start), 1)
                facts["predict_tiles_per_second"] = speed
                yield name, calibrated_output(facts, scores)

    return with_means(fitted(), {name: made.facts for name, made in heads.items() if made.head is None})


def save(made: CalibratedHead, artifact: records.Artifact, check_inputs: Callable[[], object], *, device: str) -> None:
    """Write the file of a head, check its inputs, and write its record: the head outlasts an interruption."""
    cast("SavableHead", made.head).save(artifact.path)  # heads of SAVED_KINDS are
    made.facts["bytes"] = artifact.path.stat().st_size
    check_inputs()
    records.write_record(artifact, details=made.facts, device=device)
    seconds = made.facts["search_seconds"] + made.facts["fit_seconds"]
    log.info(f"fit_heads: {artifact.path.stem} fitted in {seconds:.0f} s")
