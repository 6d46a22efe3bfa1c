"""Plan a comparison before it runs: which tiles each network is trained on, validated on and tested on.

A plan has one part for each seed, fold and arm (the protocol, and its random-split control if there is one).
With inner networks (`--inner`) a fold has several parts; each tile of the training side is held out by one of them.
"""

import dataclasses
from typing import Literal

import numpy as np
import pandas as pd

from pipeline.errors import BadInput
from pipeline.names import SPLITS
from pipeline.runtime.console import log
from pipeline.storage.protocol import PartEntry
from pipeline.tiles.splits.folds import fold_numbers, held_out
from pipeline.tiles.splits.holdout import grouped_split, random_split

TRAIN, VAL, TEST = range(len(SPLITS))

Arm = Literal["grouped", "random", "given"]
"""How the tiles of a part were split: by whole groups, singly, or by the data's own split column."""

ProtocolName = Literal["grouped", "random", "logo"]
"""Values of `--protocol`; logo leaves one group out."""


@dataclasses.dataclass(frozen=True)
class SplitOptions:
    """How tiles are split."""

    protocol: ProtocolName | None
    """None: grouped."""

    folds: int | None
    """None: one split by `fractions`; for logo as many folds as groups."""

    seeds: tuple[int, ...]
    """Seeds; each gives one network per fold, and its own folds."""

    inner: int = 0
    """Inner networks per fold; 0: the fold has one network."""

    random_control: bool = False
    """Add the same parts under the random protocol."""

    fractions: tuple[float, float, float] = (0.70, 0.15, 0.15)
    """Shares of train, val and test. With folds, the first two divide the tiles that are not tested."""


@dataclasses.dataclass(frozen=True)
class Part:
    """One training of the plan, in a run folder of its own."""

    arm: Arm
    seed: int
    fold: int
    inner: int | None
    """Which inner network of the fold; None: the fold has one network."""

    split: list[str]
    """train, val or test of each tile, (N,)."""

    @property
    def name(self) -> str:
        """Name of the part's folder."""
        return f"{self.arm}-seed{self.seed}-fold{self.fold}" + (f"-inner{self.inner}" if self.inner is not None else "")

    def entry(self, table: pd.DataFrame) -> PartEntry:
        """Return the part as protocol.json lists it, without the hash of its manifest.

        Args:
            table: label and group of the N tiles that were split.
        """
        tested = table["group"].to_numpy()[np.asarray(self.split) == "test"]
        return PartEntry(
            name=self.name,
            arm=self.arm,
            seed=self.seed,
            fold=self.fold,
            inner=self.inner,
            manifest_sha256="",
            n={name: self.split.count(name) for name in SPLITS},
            test_groups=sorted(set(tested) - {""}) if self.arm != "random" else [],
            absent=absent_classes(self, list(table["label"])),
        )


@dataclasses.dataclass(frozen=True)
class SplitPlan:
    """The parts of a comparison; a single split is a plan of one part."""

    protocol: str
    """random, grouped, logo, or given."""

    n_folds: int
    parts: list[Part]

    @property
    def is_single(self) -> bool:
        """Whether the run folder is the only part."""
        return len(self.parts) == 1

    def sides(self, table: pd.DataFrame) -> "pd.Series[str]":
        """Return a value per tile for the audit: tiles with different values can be on two sides of a split.

        Args:
            table: columns tile_id, group and split (of the first part) of the tiles.
        """
        arm = self.parts[0].arm
        column = "split" if self.is_single or arm == "given" else "tile_id" if arm == "random" else "group"
        sides: pd.Series[str] = table[column].copy()
        return sides


def make_plan(table: pd.DataFrame, options: SplitOptions, *, where: str) -> SplitPlan:
    """Return the protocol, the number of folds and the parts.

    Args:
        table: columns path, label, group and split of the readable tiles, (N) rows. If every tile has a split, it is
            used.
        options: options of the split.
        where: the data set, for messages.

    Raises:
        BadInput: the protocol is impossible with these labels and groups.
    """
    labels, groups = list(table["label"]), list(table["group"])
    if (table["split"] != "").all():
        return _given_plan(table, options, where=where)
    protocol = options.protocol or "grouped"
    if protocol != "random" and "" in groups:
        unnamed = table[table["group"] == ""]
        some = f"no group for {len(unnamed)} of {len(table)} tiles, such as {unnamed['path'].iloc[0]}"
        what = "no groups (slides, patients) are known" if len(unnamed) == len(table) else some
        raise BadInput(
            f"{where}: {what}, so tiles of one slide would be in train and test: name the groups by --group-regex or a "
            "CSV column 'group', or accept that with --protocol random"
        )
    n_folds = options.folds or (len(set(groups)) if protocol == "logo" else 1)
    if options.random_control and n_folds < 2:
        raise BadInput(
            "--random-control compares the same tiles under both protocols, which needs folds: add --folds 5"
        )
    parts = make_parts(labels, None if protocol == "random" else groups, options, n_folds=n_folds)
    if options.random_control:
        parts += make_parts(labels, None, options, n_folds=n_folds)
    check_parts(parts, labels)
    return SplitPlan(protocol, n_folds, parts)


def _given_plan(table: pd.DataFrame, options: SplitOptions, *, where: str) -> SplitPlan:
    """Return the plan of a split that the data gives: its protocol is `given`, or `random` if it divides groups.

    Raises:
        BadInput: a split is missing, divides a group, or leaves train without a class; or folds are requested.
    """
    if options.folds not in (None, 1) or options.protocol == "logo" or options.inner or options.random_control:
        raise BadInput(
            f"{where}: it has a split column, which excludes --folds, --protocol logo, --inner and --random-control: "
            "drop the column or those options"
        )
    if missing := set(SPLITS) - set(table["split"]):
        raise BadInput(f"{where}: its split column has no '{min(missing)}' rows; all three are needed")
    spread = table[table["group"].ne("")].groupby("group")["split"].nunique()
    cut = list(spread.index[spread > 1])
    if cut and options.protocol != "random":
        raise BadInput(
            f"{where}: its split column puts group '{cut[0]}' into several splits: correct it, or pass --protocol "
            "random to accept results that are biased upwards"
        )
    if absent := set(table["label"]) - set(table.loc[table["split"] == "train", "label"]):
        raise BadInput(f"{where}: its split column has no train tile of '{min(absent)}'")
    log.info(f"prepare: the split column of {where} is used; --protocol and --fractions do not apply")
    split = list(table["split"])
    return SplitPlan("random" if cut else "given", 1, [Part("given", seed, 0, None, split) for seed in options.seeds])


def make_parts(labels: list[str], groups: list[str] | None, options: SplitOptions, *, n_folds: int) -> list[Part]:
    """Return the parts of one arm, by seed, fold and inner network.

    Args:
        labels: class name of each tile, (N,), in the manifest's order.
        groups: group of each tile, (N,), to be kept whole; None: the random arm.
        options: seeds, fractions and inner networks.
        n_folds: 1: one split by `fractions` per seed.

    Raises:
        BadInput: too few groups or tiles.
    """
    arm: Arm = "random" if groups is None else "grouped"
    parts = []
    for seed in options.seeds:
        for fold, codes in enumerate(_test_codes(labels, groups, options.fractions, n_folds=n_folds, seed=seed)):
            rows = np.flatnonzero(codes != TEST)
            for inner, is_val in enumerate(_validation_rows(labels, groups, options, codes, seed=seed, fold=fold)):
                split = np.full(len(labels), TEST)
                split[rows] = np.where(is_val, VAL, TRAIN)
                names = [SPLITS[code] for code in split]
                parts.append(Part(arm, seed, fold, inner if options.inner else None, names))
    return parts


def _test_codes(
    labels: list[str], groups: list[str] | None, fractions: tuple[float, float, float], *, n_folds: int, seed: int
) -> list[np.ndarray]:
    """Return for each fold the split of each tile as its index in `SPLITS`, (N,); with folds, val is not chosen yet."""
    if n_folds > 1:
        folds = fold_numbers(labels, groups, n_folds=n_folds, seed=seed)
        return [np.where(folds == fold, TEST, TRAIN) for fold in range(n_folds)]
    if groups is None:
        split = random_split(labels, fractions=fractions, seed=seed)
    else:
        split = grouped_split(labels, groups, fractions=fractions, seed=seed)
    return [np.array([SPLITS.index(name) for name in split])]


def _validation_rows(
    labels: list[str], groups: list[str] | None, options: SplitOptions, codes: np.ndarray, *, seed: int, fold: int
) -> list[np.ndarray]:
    """Return for each inner network (or the only one) a mask (M,) of the held-out tiles of the training side."""
    rows = np.flatnonzero(codes != TEST)
    own_labels = [labels[row] for row in rows]
    own_groups = None if groups is None else [groups[row] for row in rows]
    if options.inner:
        try:
            inner = fold_numbers(own_labels, own_groups, n_folds=options.inner, seed=seed)
        except BadInput as error:
            raise BadInput(f"training side of seed {seed}, fold {fold}, for --inner {options.inner}: {error}") from None
        return [inner == number for number in range(options.inner)]
    if (codes == VAL).any():
        return [codes[rows] == VAL]
    train, val, _ = options.fractions
    return [held_out(own_labels, own_groups, share=val / (train + val), seed=seed)]


def check_parts(parts: list[Part], labels: list[str]) -> None:
    """Check that every part of a plan can be trained.

    Raises:
        BadInput: train or val is empty, or train (of an inner network also val, on which its heads are fitted) holds
            one class only; names the part.
    """
    names = np.asarray(labels, dtype=object)
    for part in parts:
        split = np.asarray(part.split, dtype=object)
        n_classes = len(set(names[split == "train"]))
        if n_classes < 2 or not (split == "val").any():
            what = f"{n_classes} class(es) to train on" if n_classes < 2 else "no tile to validate on"
            raise BadInput(f"the plan's part {part.name} has {what}: give more sources, or fewer --folds")
        if part.inner is not None and len(set(names[split == "val"])) < 2:
            raise BadInput(
                f"the plan's part {part.name} holds out one class only, no head can be fitted on that: give more "
                "sources, or fewer --inner"
            )


def absent_classes(part: Part, labels: list[str]) -> dict[str, list[str]]:
    """Return the classes that each split of a part lacks; only splits that lack any."""
    names, split = np.asarray(labels, dtype=object), np.asarray(part.split, dtype=object)
    holes = {where: sorted(set(labels) - set(names[split == where])) for where in SPLITS}
    return {where: missing for where, missing in holes.items() if missing}
