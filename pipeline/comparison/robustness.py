"""How far each head falls when the same test tiles come with other colours, stains, light, sharpness, or turned."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from pipeline.comparison.predictions import Predictions, row_keys
from pipeline.comparison.report_data import ReportData
from pipeline.comparison.scores import Resampling
from pipeline.comparison.verdict import FEW_UNITS
from pipeline.errors import StaleInput
from pipeline.evaluation.bootstrap import percentile_interval, resampling_counts
from pipeline.evaluation.metrics import scores_from_confusion
from pipeline.evaluation.validate import FloatArray, IntArray
from pipeline.figures.robustness import draw_falls
from pipeline.markup.document import Figure, Note, Section, Table, Text
from pipeline.markup.number_format import count, head_name, interval, level_text, listing, number, points
from pipeline.storage import freshness, records
from pipeline.storage.predictions.columns import hash_names
from pipeline.storage.predictions.corrupted import NONE, SCHEMA, blocks, read_robustness
from pipeline.tiles.corruptions import CORRUPTIONS

FIGURE = "robustness.png"
"""Everything that this module may draw."""

METRIC = "macro_f1"

LIMITS = (
    "Each corruption has one fixed strength, chosen before any result was seen, and is computed, not scanned: the "
    "figures rank the heads under these changes and do not foretell a new scanner or laboratory. The heads share one "
    "network, so that most of a fall is the network's."
)


@dataclasses.dataclass(frozen=True)
class Amount:
    """A value with its interval; bounds are NaN where there are fewer than two units."""

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Falls:
    """Macro-F1 under every corruption, and what it lost."""

    heads: list[str]
    corruptions: list[str]
    """Without `NONE`."""

    score: Mapping[tuple[str, str], float]
    """(head, corruption or `NONE`) -> macro-F1."""

    fall: Mapping[tuple[str, str], Amount]
    """(head, corruption) -> the macro-F1 lost; above 0: worse than on the tiles as they are."""

    mean: Mapping[str, Amount]
    """Head -> the mean of its falls."""

    lead: Amount | None
    """Mean fall of the head second to the least, minus the least; None with one head."""

    unit: str
    """group or tile."""

    n_units: int

    @property
    def ranking(self) -> list[str]:
        """The heads by their mean fall, the least first."""
        return sorted(self.heads, key=lambda head: self.mean[head].value)


def read_answers(path: Path, predictions: Predictions, *, force: bool = False) -> pd.DataFrame:
    """Read robustness.csv and check it against its record, its inputs and the report's predictions.

    Args:
        path: robustness.csv of a run.
        predictions: of the same run.
        force: use it although an input of it has changed since.

    Raises:
        BadArtifact: missing, damaged, or not what the schema says.
        StaleInput: it was made from files that have changed since, or its rows of the tiles as they are are not
            those of the predictions.
    """
    record = records.check_artifact(path, schema=SCHEMA)
    if not force:
        freshness.check_inputs_unchanged(path, record)
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


def measure_falls(corrupted: pd.DataFrame, classes: Sequence[str], resampling: Resampling) -> Falls:
    """Return macro-F1 and its falls with paired intervals over whole units.

    In every draw all heads and corruptions are scored on the same resampled units, as by
    `intervals.paired_difference`, which gives the same intervals for equal seeds and draws.

    Args:
        corrupted: rows of robustness.csv as `read_robustness` returns them.
        classes: K class names; every label and answer is one of them.
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

    def amount(value: float, draws: FloatArray) -> Amount:
        if not len(draws):
            return Amount(value, np.nan, np.nan)
        return Amount(value, *percentile_interval(draws, level=resampling.level, n_units=n_units))

    fall: dict[tuple[str, str], Amount] = {}
    mean, mean_draws = {}, {}
    for head in heads:
        values = {name: score[head, NONE] - score[head, name] for name in corruptions}
        draws = {name: drawn[head, NONE] - drawn[head, name] for name in corruptions}
        fall |= {(head, name): amount(values[name], draws[name]) for name in corruptions}
        mean_draws[head] = np.mean(list(draws.values()), axis=0)
        mean[head] = amount(float(np.mean(list(values.values()))), mean_draws[head])
    order = sorted(heads, key=lambda head: mean[head].value)
    lead = None
    if len(order) > 1:
        least, next_least = order[:2]
        lead = amount(mean[next_least].value - mean[least].value, mean_draws[next_least] - mean_draws[least])
    return Falls(heads, corruptions, score, fall, mean, lead, resampling.unit, n_units)


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
        for counts in resampling_counts(n_units, n_draws=resampling.n_draws, seed=resampling.seed):
            for key, statistics in sums.items():
                parts[key].append(_macro_f1((statistics @ counts).T))
    return {key: np.concatenate(values) if values else np.zeros(0) for key, values in parts.items()}


def section(material: ReportData) -> Section:
    """Return the section; its figure is drawn into the run's folder."""
    title = "Robustness"
    corrupted = material.corrupted
    if corrupted is None:
        reason = material.context.missing.get("robustness.csv", "not there")
        return Section(
            title, [Text(f"n/a: robustness.csv was left out ({reason}): python -m pipeline.robustness makes it.")]
        )
    falls = measure_falls(corrupted, material.predictions.classes, material.resampling)
    level = level_text(material.resampling.level)
    heads = [head_name(head) for head in falls.heads]
    draw_falls(
        material.run / "figures" / FIGURE,
        {head_name(head): [_in_points(falls.fall[head, name]) for name in falls.corruptions] for head in falls.heads},
        heads=heads,
        corruptions=[name.replace("_", " ") for name in falls.corruptions],
        level=level,
    )
    first = corrupted[(corrupted["head"] == falls.heads[0]) & (corrupted["corruption"] == NONE)]
    n_seeds = first["seed"].nunique()
    over = f", each under {count(n_seeds, 'seed')}" if n_seeds > 1 else ""
    intervals = (
        f"{level} intervals from {material.resampling.n_draws} paired resamples of {count(falls.n_units, falls.unit)}"
        if falls.n_units > 1
        else f"no intervals, for all tiles are of one {falls.unit}"
    )
    caption = (
        f"{material.flattering}Macro-F1 on {count(first['tile_id'].nunique(), 'test tile')}{over}, as they are and "
        f"under each corruption, and in points what was lost ({intervals}). All heads answer to the same pixels."
    )
    table = [
        ["none", "the tiles as they are", *(number(falls.score[head, NONE]) for head in falls.heads)],
        *(
            [
                name.replace("_", " "),
                CORRUPTIONS[name].description if name in CORRUPTIONS else "n/a",
                *(f"{number(falls.score[head, name])}; {_text(falls.fall[head, name])}" for head in falls.heads),
            ]
            for name in falls.corruptions
        ),
        ["mean fall", "", *(_text(falls.mean[head]) for head in falls.heads)],
    ]
    figure = Figure(
        f"figures/{FIGURE}",
        "Macro-F1 lost by each head under each corruption",
        f"{material.flattering}What each corruption costs each head: macro-F1 on the same tiles as they are minus "
        "that under the corruption. Points left of 0 gained.",
    )
    sentence = verdict(falls)
    return Section(
        title,
        [Note(sentence), figure, Table(["corruption", "what it does", *heads], table, caption, left=2), Text(LIMITS)],
    )


def verdict(falls: Falls) -> str:
    """Return the sentence that says which head loses least on average, and whether the next one differs."""
    order = falls.ranking
    each = listing([f"{head_name(head)} {points(falls.mean[head].value)}" for head in order])
    start = f"On average over {count(len(falls.corruptions), 'corruption')} the loss of macro-F1 in points is: {each}."
    if falls.lead is None:
        return start
    least, next_least = head_name(order[0]), head_name(order[1])
    if not np.isfinite(falls.lead.low):
        return f"{start} {least} loses least, but one {falls.unit} does not tell whether by chance."
    if falls.n_units < FEW_UNITS:
        return f"{start} Which head loses least is undecided: {count(falls.n_units, falls.unit)} are too few."
    if falls.lead.low > 0:
        return f"{start} {least} loses least; {next_least} loses {_text(falls.lead)} points more."
    undecided = f"Whether {least} or {next_least} loses less is undecided"
    return f"{start} {undecided}: they differ by {_text(falls.lead)} points."


def _in_points(amount: Amount) -> tuple[float, float, float]:
    return 100 * amount.value, 100 * amount.low, 100 * amount.high


def _text(amount: Amount) -> str:
    """Return an amount in points with its interval."""
    value, low, high = (round(each, 1) + 0.0 for each in _in_points(amount))
    return f"{number(value, 1)}{interval(low, high, 1)}"
