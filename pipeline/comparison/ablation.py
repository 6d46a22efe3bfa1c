"""Runs that differ in one thing each -> one table: how well every head does, and by how much better than in the first.

Scores are those of the test rows, pooled over seeds, with bootstrap intervals over the units of the report (whole
groups, or tiles after a random split). Differences are paired: same tiles, same seeds.
"""

import csv
import dataclasses
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
import pandas as pd

from pipeline.comparison.predictions import Predictions
from pipeline.comparison.read import read_predictions
from pipeline.comparison.scores import Resampling, choose_resampling
from pipeline.comparison.sections.cross_validation import aligned
from pipeline.evaluation.bootstrap import Difference, paired_difference
from pipeline.evaluation.metrics import scalar_metrics
from pipeline.markup.document import Block, Document, Note, Section, Table, Text, to_markdown
from pipeline.markup.number_format import count, head_name, interval, level_text, listing, number, points, seconds
from pipeline.storage import atomic, records
from pipeline.storage.model_reuse import network_folders
from pipeline.storage.predictions.corrupted import NONE, blocks, read_robustness

SCHEMA = "ablation/1.0"

METRICS = ("accuracy", "macro_f1", "nll")
PAIRED = ("accuracy", "macro_f1")
RAN = {
    "training": ("model.safetensors", ("device", "precision", "threads", "processes")),
    "embedding": ("embeddings.h5", ("device", "precision", "engine")),
}
"""Work -> the artefact whose record says how it was finished, and the facts to look for there."""

APART = {"training": "their times do not compare", "embedding": "rounding is among their differences"}
"""Work -> what it means that it was done differently."""

READ = ("history.csv", "model.json", *(records.record_path(Path(name)).name for name, _ in RAN.values()))
"""What `read_arm` reads beside predictions and robustness, in the folder of each network."""

LEVEL, N_DRAWS = 0.95, 2000


@dataclasses.dataclass(frozen=True)
class Arm:
    """One finished run of the ablation."""

    name: str
    predictions: Predictions
    corrupted: pd.DataFrame
    """Content of robustness.csv."""

    train_seconds: float
    """Time of all steps, of all its networks together."""

    start: str | None = None
    """What its networks started from, None for scratch."""

    ran: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
    """Work of `RAN` -> fact -> what the records of its networks or embeddings say, e.g. "threads" -> "1"."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of ablation.csv; what is undefined is NaN."""

    arm: str
    head: str
    metric: str
    value: float
    low: float = math.nan
    high: float = math.nan
    lowest_seed: float = math.nan
    """The value of the seed that comes out lowest, and highest."""
    highest_seed: float = math.nan
    difference: float = math.nan
    """From the first arm, paired."""
    difference_low: float = math.nan
    difference_high: float = math.nan
    n: int = 0
    """Test rows: a tile counts once per seed."""


def read_arm(run: Path, name: str) -> Arm:
    """Return what a run of the ablation came to.

    Raises:
        BadArtifact, StaleInput, BadInput: as the readers of its files do.
    """
    folders = [run / part for part, _ in network_folders(run)]
    starts = dict.fromkeys(atomic.from_json(folder / "model.json").get("init") for folder in folders)
    given = [str(start) for start in starts if start is not None]
    return Arm(
        name,
        predictions=read_predictions(run / "predictions.csv"),
        corrupted=read_robustness(run / "robustness.csv"),
        train_seconds=float(sum(pd.read_csv(folder / "history.csv")["seconds"].sum() for folder in folders)),
        start=listing(given) if given else None,
        ran=how_it_ran(folders),
    )


def how_it_ran(folders: Sequence[Path]) -> dict[str, dict[str, str]]:
    """Return how the networks and embeddings in the folders of an arm were finished; what no record says is "not said".

    Raises:
        BadArtifact: a record is missing or damaged.
    """
    found: dict[str, dict[str, str]] = {}
    for work, (name, facts) in RAN.items():
        kept = [records.read_record_alone(folder / name) for folder in folders]
        said = [record["details"] | {"device": record.get("device")} for record in kept]
        values = {fact: list(dict.fromkeys(str(one.get(fact, "not said")) for one in said)) for fact in facts}
        found[work] = {fact: listing(each) for fact, each in values.items()}
    return found


def unlike(arms: Sequence[Arm], work: str) -> str:
    """Return in which respects some work of the arms was done differently and for which how; "" if it was alike."""
    said = []
    for fact in RAN[work][1]:
        having: dict[str, list[str]] = {}
        for arm in arms:
            having.setdefault(arm.ran.get(work, {}).get(fact, "not said"), []).append(arm.name)
        if len(having) > 1:
            said.append(f"{fact}: " + ", ".join(f"{value} ({listing(names)})" for value, names in having.items()))
    return "; ".join(said)


def compare(arms: Sequence[Arm], *, seed: int) -> list[Row]:
    """Return all rows: of each arm its training time, then for each head scores and falls under corruptions.

    Args:
        arms: the first is what the others are held against.
        seed: of the bootstrap.
    """
    rows = []
    for arm in arms:
        resampling = choose_resampling(arm.predictions, n_draws=N_DRAWS, seed=seed, level=LEVEL)
        rows.append(Row(arm.name, "", "train_seconds", arm.train_seconds))
        for head in arm.predictions.main_heads:
            rows += _scores(arm, arms[0], head, resampling)
            rows += _falls(arm, head, resampling)
    return rows


class _Drawn(TypedDict):
    n_draws: int
    seed: int
    level: float


def _drawn(resampling: Resampling) -> _Drawn:
    return {"n_draws": resampling.n_draws, "seed": resampling.seed, "level": resampling.level}


def _scores(arm: Arm, first: Arm, head: str, resampling: Resampling) -> Iterator[Row]:
    ours, test = arm.predictions, arm.predictions.rows("test")
    y, predicted = ours.y[test], ours.predicted[head][test]
    p = ours.probabilities(head, test)
    values, bounds = ours.scored(head, "test", units=resampling.ids, **_drawn(resampling))
    seeds = ours.tiles["seed"].to_numpy()[test]
    each = [scalar_metrics(y[own], p[own], predicted[own]) for own in (seeds == seed for seed in np.unique(seeds))]
    for metric in METRICS:
        by_seed = [found[metric] for found in each]
        gap = Difference(math.nan, math.nan, math.nan, n_units=0)
        if metric in PAIRED and arm is not first and head in first.predictions.main_heads:
            here, there = aligned(ours, first.predictions)
            both = np.isin(here, test)
            here, there = here[both], there[both]
            gap = paired_difference(
                ours.y[here],
                ours.predicted[head][here],
                first.predictions.predicted[head][there],
                metric=metric,
                units=resampling.ids[here],
                **_drawn(resampling),
            )
        yield Row(
            arm.name,
            head,
            metric,
            values[metric],
            *bounds[metric],
            lowest_seed=min(by_seed),
            highest_seed=max(by_seed),
            difference=gap.value,
            difference_low=gap.low,
            difference_high=gap.high,
            n=len(test),
        )
    yield Row(arm.name, head, "errors", float((y != predicted).sum()), n=len(test))


def _falls(arm: Arm, head: str, resampling: Resampling) -> Iterator[Row]:
    """Yield macro-F1 under each corruption; `difference` is the fall from the same tiles as they are."""
    code = {name: i for i, name in enumerate(arm.predictions.classes)}
    found = {name: rows for name, which, rows in blocks(arm.corrupted) if which == head}
    clean = found[NONE]
    y, as_it_is = (clean[column].map(code).to_numpy(dtype=np.int64) for column in ("label", "predicted"))
    units = np.unique(clean["group" if resampling.unit == "group" else "tile_id"].to_numpy(str), return_inverse=True)[1]
    for name, rows in found.items():
        if name == NONE:
            continue
        said = rows["predicted"].map(code).to_numpy(dtype=np.int64)
        fall = paired_difference(
            y,
            said,
            as_it_is,
            metric="macro_f1",
            units=units,
            **_drawn(resampling),
        )
        value = scalar_metrics(y, np.eye(len(code))[said], said)["macro_f1"]
        gap = {"difference": fall.value, "difference_low": fall.low, "difference_high": fall.high}
        yield Row(arm.name, head, f"macro_f1[{name}]", value, **gap, n=len(y))


def to_csv(rows: Sequence[Row]) -> str:
    """Return ablation.csv; NaN is an empty cell."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(field.name for field in dataclasses.fields(Row))
    for row in rows:
        cells = dataclasses.astuple(row)
        writer.writerow(
            ("" if math.isnan(cell) else f"{cell:.10g}") if isinstance(cell, float) else cell for cell in cells
        )
    return out.getvalue()


def to_page(rows: Sequence[Row], *, arms: Sequence[Arm], setting: str) -> str:
    """Return ablation.md.

    Args:
        rows: of `compare`.
        arms: in order.
        setting: one sentence on the tiles and what the arms share.
    """
    by_key = {(row.arm, row.head, row.metric): row for row in rows}
    first = arms[0]
    seeds = sorted(set(first.predictions.tiles["seed"]))
    resampling = choose_resampling(first.predictions, n_draws=N_DRAWS, seed=0, level=LEVEL)
    table, falls = [], []
    corruptions = [name for name in dict.fromkeys(first.corrupted["corruption"]) if name != NONE]
    for arm in arms:
        for head in arm.predictions.main_heads:
            f1, accuracy = (by_key[arm.name, head, metric] for metric in ("macro_f1", "accuracy"))
            gap = "-"
            if arm is not first:
                gap = points(f1.difference) + interval(100 * f1.difference_low, 100 * f1.difference_high, 1)
            table.append(
                [
                    arm.name,
                    head_name(head),
                    number(f1.value) + interval(f1.low, f1.high),
                    f"{number(f1.lowest_seed)} to {number(f1.highest_seed)}",
                    gap,
                    number(accuracy.value) + interval(accuracy.low, accuracy.high),
                    number(by_key[arm.name, head, "errors"].value, 0),
                    seconds(arm.train_seconds),
                ]
            )
            under = [by_key.get((arm.name, head, f"macro_f1[{name}]")) for name in corruptions]
            falls.append([arm.name, head_name(head), *(number(None if row is None else row.value) for row in under)])
    n = by_key[first.name, first.predictions.main_heads[0], "macro_f1"].n
    unit = "whole groups" if resampling.unit == "group" else "tiles"
    caption = (
        f"Test rows pooled over {count(len(seeds), 'seed')} ({n} rows). In parentheses: {level_text(LEVEL)} bootstrap "
        f"intervals over {unit}; they hold for these networks, seeds are not in them. Difference: macro-F1 in points "
        f"from {first.name}, paired by tile and seed. Training: time of all steps, which compares only between "
        "arms that ran alike (device, precision, threads) with nothing else running."
    )
    columns = ["arm", "head", "macro-F1", "by seed", "difference", "accuracy", "errors", "training"]
    body: list[Block] = [Text(setting)]
    if resampling.unit != "group":
        body.append(Note("Sources are not held out, or none are known: all figures flatter."))
    body += [
        Note(f"{arm.name} is not trained from scratch: it started from the weights {arm.start}.")
        for arm in arms
        if arm.start is not None
    ]
    body += [
        Note(f"The {work} of the arms was not done alike, so that {meaning}; {how}.")
        for work, meaning in APART.items()
        if (how := unlike(arms, work))
    ]
    body.append(Table(columns, table, caption, left=2))
    under_corruption = Table(
        ["arm", "head", *corruptions], falls, "Macro-F1 on corrupted test tiles; falls with intervals: CSV.", left=2
    )
    sections = [Section("What each arm comes to", body), Section("Under corruptions", [under_corruption])]
    return to_markdown(Document("Ablation", sections))
