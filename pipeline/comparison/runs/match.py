"""Match the test tiles of several runs, so that all their heads are scored on the same rows."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from pipeline.comparison.predictions import Predictions
from pipeline.comparison.read import read_predictions
from pipeline.comparison.robustness import read_corrupted
from pipeline.comparison.runs.price import Price, read_price
from pipeline.errors import BadInput
from pipeline.evaluation.validate import FloatArray, IntArray
from pipeline.names import COST_ORDER, IMPORTED, SOURCES, SPELLING, UNTRAINED, RunFile
from pipeline.storage import records
from pipeline.storage.embeddings.reader import read_embeddings
from pipeline.storage.protocol import read_protocol
from pipeline.tiles.manifest import read_manifest

WITHOUT_NETWORK = tuple(head for head in UNTRAINED if SOURCES[head] != "untrained")
"""Baselines that run no network on a tile."""


@dataclasses.dataclass(frozen=True)
class RunHead:
    """One head of one run on the N test rows that all runs share."""

    run: str
    head: str
    predicted: IntArray
    """(N,) predicted class, a code of `Matched.classes`."""

    p: FloatArray
    """(N, K) calibrated probabilities."""

    gflops: float
    """Cost of the network for a tile; 0 for a baseline without a network, infinite where it is not known."""

    @property
    def key(self) -> str:
        """The name that no other head has."""
        return f"{self.run}/{self.head}"

    @property
    def text(self) -> str:
        """The head as it is written in a sentence."""
        return f"{SPELLING.get(self.head, self.head)} of {self.run}"

    @property
    def cost(self) -> tuple[float, int]:
        """What heads are ordered by, the cheapest first: the network, then the head."""
        known = COST_ORDER.index(self.head) if self.head in COST_ORDER else len(COST_ORDER)
        return self.gflops, known


@dataclasses.dataclass(frozen=True)
class Matched:
    """Runs on the same N test rows, a row being a tile under one seed."""

    classes: list[str]
    y: IntArray
    """(N,) true class."""

    tile: IntArray
    """(N,) number of each row's tile."""

    seed: IntArray
    group: IntArray | None
    """(N,) number of each row's group; None where no run knows them, or a run split at random."""

    is_random: bool
    """Whether a run split its tiles at random."""

    matched_by: Literal["pixels", "tile_id"]
    heads: list[RunHead]
    prices: dict[str, Price]
    """Run -> how it was made."""

    corrupted: dict[str, pd.DataFrame]
    """Run -> content of its robustness.csv, of the runs that have one."""


def match(runs: dict[str, Path], *, heads: Sequence[str] | None = None, force: bool = False) -> Matched:
    """Read runs and match their test rows by the SHA-256 of the pixels where all runs hold it, else by tile_id.

    Args:
        runs: name -> run folder, at least one.
        heads: names of the heads to compare; None: all. A baseline that uses no network and predicts the same in
            several runs is kept once.
        force: use predictions although an input of them has changed since.

    Raises:
        BadArtifact, StaleInput: as the readers of predictions.csv.
        BadInput: other classes, test rows, labels or groups than the runs before, or no head of that name.
    """
    read = {name: read_predictions(folder / RunFile.PREDICTIONS, force=force) for name, folder in runs.items()}
    hashes = [pixel_hashes(folder, read[name]) for name, folder in runs.items()]
    by_pixels = all(found is not None for found in hashes)
    tables = {
        name: _test_rows(predictions, found if by_pixels else None)
        for (name, predictions), found in zip(read.items(), hashes, strict=True)
    }
    first_name, first = next(iter(read.items()))
    table = tables[first_name]
    every = sorted({head for predictions in read.values() for head in predictions.heads})
    if unknown := sorted(set(heads or ()) - set(every)):
        raise BadInput(f"{', '.join(map(str, runs.values()))}: no head '{unknown[0]}', only {', '.join(every)}")
    found_heads, prices = list[RunHead](), {}
    for name, predictions in read.items():
        _check_same(name, predictions, tables[name], first_name, first, table)
        table["group"] = table["group"].where(table["group"] != "", tables[name]["group"].loc[table.index])
        own = tables[name]["row"].loc[table.index].to_numpy()
        order = [predictions.classes.index(label) for label in first.classes]
        code = np.argsort(order)
        prices[name] = price = read_price(runs[name])
        for head in predictions.heads:
            if heads is None or head in heads:
                gflops = 0.0 if head in WITHOUT_NETWORK else price.gflops if price.gflops is not None else np.inf
                p = predictions.probabilities(head, own)[:, order]
                found = RunHead(name, head, code[predictions.predicted[head][own]], p, gflops)
                if not any(_is_same_baseline(found, each) for each in found_heads):
                    found_heads.append(found)
    is_random = any(predictions.protocol == "random" for predictions in read.values())
    group = None
    if (table["group"] != "").all() and not is_random:
        group = np.unique(table["group"].to_numpy(str), return_inverse=True)[1]
    return Matched(
        classes=first.classes,
        y=first.y[table["row"].to_numpy()],
        tile=table.groupby(["key", "number"], sort=False).ngroup().to_numpy(),
        seed=table.index.get_level_values("seed").to_numpy(),
        group=group,
        is_random=is_random,
        matched_by="pixels" if by_pixels else "tile_id",
        heads=found_heads,
        prices=prices,
        corrupted={
            name: read_corrupted(path, read[name], force=force)
            for name, folder in runs.items()
            if (path := folder / RunFile.ROBUSTNESS).is_file()
        },
    )


def _is_same_baseline(one: RunHead, other: RunHead) -> bool:
    """Return whether two runs have the same baseline without a network, with the same predictions."""
    is_same = one.head == other.head and one.head in WITHOUT_NETWORK and one.run != other.run
    return is_same and np.array_equal(one.predicted, other.predicted)


def read_files(run: Path) -> list[Path]:
    """Return the files of a run that a comparison reads, of those that are there."""
    protocol = read_protocol(run)
    folders = [run] if protocol is None else [run, *(protocol.folder(part) for part in protocol.parts)]
    own = [records.existing_table(run / RunFile.PREDICTIONS), run / RunFile.HEADS]
    own += [run / name for name in (RunFile.MANIFEST, RunFile.ROBUSTNESS, RunFile.PROTOCOL)]
    names = (
        RunFile.MODEL_FACTS,
        f"{RunFile.MODEL}.json",
        RunFile.HISTORY,
        RunFile.EMBEDDINGS,
        f"{RunFile.EMBEDDINGS}.json",
    )
    own += [folder / name for folder in folders for name in names]
    return [path for path in own if path.is_file()]


def pixel_hashes(run: Path, predictions: Predictions) -> dict[str, str] | None:
    """Return tile_id -> SHA-256 of the pixels, or None where neither manifest nor embeddings hold all test tiles."""
    ids = set(predictions.tiles["tile_id"].iloc[predictions.rows("test")])
    if (run / RunFile.MANIFEST).is_file():
        table = read_manifest(run / RunFile.MANIFEST).table
        found = dict(zip(table["tile_id"], table["sha256"], strict=True))
        if ids <= set(found):
            return found
    if (run / RunFile.EMBEDDINGS).is_file():
        embeddings = read_embeddings(run / RunFile.EMBEDDINGS, with_features=False)
        if embeddings.attrs["encoder"] == IMPORTED:
            return None  # the pixels were not seen
        hashes = [bytes(each).hex() for each in embeddings.sha256]
        found = dict(zip(embeddings.tile_id, hashes, strict=True))
        if ids <= set(found):
            return found
    return None


def _test_rows(predictions: Predictions, hashes: dict[str, str] | None) -> pd.DataFrame:
    """Return the test rows (row, label, group) by key, number and seed; tiles of equal pixels are numbered by name."""
    rows = predictions.rows("test")
    tiles = predictions.tiles.iloc[rows]
    table = pd.DataFrame({name: tiles[name].astype(object).to_numpy() for name in ("tile_id", "label", "group")})
    table["row"], table["seed"] = rows, tiles["seed"].to_numpy()
    table["key"] = table["tile_id"] if hashes is None else table["tile_id"].map(hashes)
    table = table.sort_values(["key", "seed", "tile_id"], kind="stable")
    table["number"] = table.groupby(["key", "seed"]).cumcount()
    return table.set_index(["key", "number", "seed"])[["row", "label", "group"]]


def _check_same(
    name: str,
    predictions: Predictions,
    table: pd.DataFrame,
    first_name: str,
    first: Predictions,
    expected: pd.DataFrame,
) -> None:
    """Refuse a run whose classes, test rows, labels or groups are not those of the first run."""
    start = f"{name} cannot be compared with {first_name}"
    if set(predictions.classes) != set(first.classes):
        differ = set(predictions.classes) ^ set(first.classes)
        raise BadInput(f"{start}: {len(differ)} classes are in one run only, such as '{min(differ)}'")
    missing, more = len(expected.index.difference(table.index)), len(table.index.difference(expected.index))
    if missing or more:
        raise BadInput(
            f"{start}: of its {len(table)} test rows (tile and seed) {more} are not among the {len(expected)} of "
            f"{first_name}, and {missing} of those are missing: compare runs with the same tiles, split and seeds"
        )
    for column, noun in (("label", "labels"), ("group", "groups")):
        ours, theirs = table[column].loc[expected.index], expected[column]
        is_known = (ours != "") & (theirs != "")
        if n := int((is_known & (ours != theirs)).sum()):
            raise BadInput(f"{start}: the {noun} of {n} of {len(expected)} test rows differ: prepare both runs alike")
