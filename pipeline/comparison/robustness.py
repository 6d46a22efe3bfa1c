"""Measure how much macro-F1 each head loses on corrupted test tiles: colours, stain, light, sharpness, rotation."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from scipy import sparse

from pipeline.comparison.choice import by_cost
from pipeline.comparison.pairwise_tests import METRIC
from pipeline.comparison.predictions import Predictions, row_keys
from pipeline.comparison.scores import FEW_UNITS, Resampling
from pipeline.errors import StaleInput
from pipeline.evaluation.bootstrap import percentile_interval, resampling_counts
from pipeline.evaluation.metrics import scores_from_confusion
from pipeline.evaluation.validate import FloatArray, IntArray
from pipeline.storage import freshness
from pipeline.storage.predictions.columns import hash_names
from pipeline.storage.predictions.corrupted import NONE, SCHEMA, blocks, read_robustness

Code = Literal["one_head", "no_interval", "too_few_units", "decided", "undecided"]
"""Whether the head with the smallest mean loss loses less than the next one, beyond chance."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A value with its interval; the bounds are NaN with fewer than two units."""

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Losses:
    """Macro-F1 under every corruption, and the loss against the uncorrupted tiles."""

    heads: list[str]
    corruptions: list[str]
    """Without `NONE`."""

    score: Mapping[tuple[str, str], float]
    """(head, corruption or `NONE`) -> macro-F1."""

    loss: Mapping[tuple[str, str], Estimate]
    """(head, corruption) -> the loss of macro-F1; above 0: worse than on the uncorrupted tiles."""

    mean: Mapping[str, Estimate]
    """Head -> the mean of its losses."""

    ranking: list[str]
    """The heads by their mean loss, the smallest first, the cheapest of equals."""

    lead: Estimate | None
    """The second smallest mean loss less the smallest; None with one head."""

    unit: str
    """group or tile."""

    n_units: int

    @property
    def code(self) -> Code:
        """Whether the first head of the ranking loses less than the second, beyond chance."""
        if self.lead is None:
            return "one_head"
        if not np.isfinite(self.lead.low):
            return "no_interval"
        if self.n_units < FEW_UNITS:
            return "too_few_units"
        return "decided" if self.lead.low > 0 else "undecided"


def read_corrupted(path: Path, predictions: Predictions, *, force: bool = False) -> pd.DataFrame:
    """Read robustness.csv and check it against its record, its inputs and the report's predictions.

    Args:
        path: robustness.csv of a run.
        predictions: of the same run.
        force: use it although an input of it has changed since.

    Raises:
        BadArtifact: missing or damaged, or its content breaks the schema.
        StaleInput: it was made from files that have changed since, or its rows of the uncorrupted tiles are not
            those of the predictions.
    """
    freshness.checked_record(path, schema=SCHEMA, force=force)
    corrupted = read_robustness(path)
    stale = StaleInput(
        f"{path}: its '{NONE}' rows are not those of predictions.csv: run `python -m pipeline.robustness`"
    )
    if not set(corrupted["label"]) | set(corrupted["predicted"]) <= set(predictions.classes):
        raise stale
    for corruption, head, rows in blocks(corrupted):
        if corruption != NONE:
            break
        if head not in predictions.predicted:
            raise stale
        place = predictions.places(row_keys(hash_names(rows["tile_id"]), rows["seed"].to_numpy()))
        if (place < 0).any():
            raise stale
        known = predictions.tiles.iloc[place].assign(
            predicted=np.array(predictions.classes, dtype=object)[predictions.predicted[head][place]]
        )
        for name in ("tile_id", "seed", "group", "label", "predicted"):
            if known[name].tolist() != rows[name].tolist():
                raise stale
    return corrupted


def units_of(tiles: pd.DataFrame, resampling: Resampling) -> IntArray:
    """Return the unit (N,) that the bootstrap draws for each row: its group or, over all seeds, its tile."""
    column = "group" if resampling.unit == "group" else "tile_id"
    return np.unique(tiles[column].to_numpy(dtype=str), return_inverse=True)[1]


def measure_losses(corrupted: pd.DataFrame, classes: Sequence[str], resampling: Resampling) -> Losses:
    """Return macro-F1 and its losses with paired intervals over whole units.

    In every draw all heads and corruptions are scored on the same resampled units, as by
    `bootstrap.paired_difference`, which gives the same intervals for equal seeds and draws.

    Args:
        corrupted: rows of robustness.csv as `read_robustness` returns them.
        classes: K class names; every label and prediction is one of them.
        resampling: unit, size, seed and level of the bootstrap.
    """
    codes = {name: code for code, name in enumerate(classes)}
    width = len(classes) ** 2
    cells: dict[tuple[str, str], IntArray] = {}
    first = None
    for corruption, head, rows in blocks(corrupted):
        first = rows if first is None else first
        y, predicted = (rows[name].map(codes).to_numpy(dtype=np.int64) for name in ("label", "predicted"))
        cells[head, corruption] = y * len(classes) + predicted
    assert first is not None, "read_robustness refuses an empty table"  # noqa: S101
    heads = list(dict.fromkeys(head for head, _ in cells))
    corruptions = [name for name in dict.fromkeys(name for _, name in cells) if name != NONE]
    units = units_of(first, resampling)
    n_units = int(units.max()) + 1
    score = {key: float(_macro_f1(np.bincount(each, minlength=width)[None])[0]) for key, each in cells.items()}
    drawn = _draws(cells, units, width, resampling)

    def estimate(value: float, draws: FloatArray) -> Estimate:
        if not len(draws):
            return Estimate(value, np.nan, np.nan)
        return Estimate(value, *percentile_interval(draws, level=resampling.level, n_units=n_units))

    loss: dict[tuple[str, str], Estimate] = {}
    mean, mean_draws = {}, {}
    for head in heads:
        values = {name: score[head, NONE] - score[head, name] for name in corruptions}
        draws = {name: drawn[head, NONE] - drawn[head, name] for name in corruptions}
        loss |= {(head, name): estimate(values[name], draws[name]) for name in corruptions}
        mean_draws[head] = np.mean(list(draws.values()), axis=0)
        mean[head] = estimate(float(np.mean(list(values.values()))), mean_draws[head])
    order = sorted(by_cost(heads), key=lambda head: mean[head].value)
    lead = None
    if len(order) > 1:
        best, second = order[:2]
        lead = estimate(mean[second].value - mean[best].value, mean_draws[second] - mean_draws[best])
    return Losses(heads, corruptions, score, loss, mean, order, lead, resampling.unit, n_units)


def _macro_f1(counts: FloatArray | IntArray) -> FloatArray:
    """Return macro-F1 of flat confusion counts (N, K * K)."""
    k = round(counts.shape[1] ** 0.5)
    return scores_from_confusion(counts.reshape(-1, k, k))[METRIC]


def _draws(
    cells: Mapping[tuple[str, str], IntArray], units: IntArray, width: int, resampling: Resampling
) -> dict[tuple[str, str], FloatArray]:
    """Return macro-F1 in every draw; no draws with fewer than two units."""
    n_units = int(units.max()) + 1
    parts: dict[tuple[str, str], list[FloatArray]] = {key: [] for key in cells}
    if n_units >= 2:
        sums = {
            key: sparse.csr_array((np.ones(len(units)), (each, units)), shape=(width, n_units))
            for key, each in cells.items()
        }
        for counts in resampling_counts(n_units, n_draws=resampling.n_draws, seed=resampling.seed, n_sums=width):
            for key, statistics in sums.items():
                parts[key].append(_macro_f1((statistics @ counts).T))
    return {key: np.concatenate(values) if values else np.zeros(0) for key, values in parts.items()}
