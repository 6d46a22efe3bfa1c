"""The plan of a comparison: which tiles every network is trained on, chosen by and tested on; made before it runs.

A plan has one part for each seed, fold and arm (the protocol, and its random-split control if there is one).
With inner networks (`--inner`) a fold has several parts, whose held-out tiles take turns over the training side.
"""

import dataclasses
from typing import Literal

import numpy as np

from pipeline.errors import BadInput
from pipeline.names import SPLITS
from pipeline.tiles.splits.folds import fold_numbers, held_out
from pipeline.tiles.splits.holdout import grouped_split, random_split

Arm = Literal["grouped", "random", "given"]
"""How a part's tiles were dealt: by whole groups, singly, or by the data's own split column."""


@dataclasses.dataclass(frozen=True)
class Part:
    """One training of the plan; each part is a run folder of its own."""

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


def make_parts(
    labels: list[str],
    groups: list[str],
    *,
    arm: Arm,
    n_folds: int,
    seeds: list[int],
    fractions: tuple[float, float, float],
    n_inner: int = 0,
) -> list[Part]:
    """Return the parts of one arm, by seed, fold and inner network.

    Args:
        labels: class name of each tile, (N,), in the manifest's order.
        groups: group of each tile, (N,); not looked at by the random arm.
        arm: whether groups are kept whole.
        n_folds: 1: one split by `fractions` per seed; else folds, and `fractions` only gives the validation share of
            what is left.
        seeds: one network (per fold) is trained from each; folds are drawn anew for each seed too.
        fractions: shares of train, val and test.
        n_inner: 0: one network per fold; else as many, whose held-out tiles are the folds of the training side.

    Raises:
        BadInput: too few groups or tiles.
    """
    whole = groups if arm == "grouped" else None
    share = fractions[1] / (fractions[0] + fractions[1])
    parts = []
    for seed in seeds:
        if n_folds == 1:
            split = (
                grouped_split(labels, groups, fractions=fractions, seed=seed)
                if arm == "grouped"
                else random_split(labels, fractions=fractions, seed=seed)
            )
            codes = [np.array([SPLITS.index(name) for name in split])]
        else:
            folds = fold_numbers(labels, whole, n_folds=n_folds, seed=seed)
            codes = [np.where(folds == fold, 2, 0) for fold in range(n_folds)]
        for fold, code in enumerate(codes):
            side = np.flatnonzero(code != 2)
            side_labels = [labels[i] for i in side]
            side_groups = [whole[i] for i in side] if whole is not None else None
            if n_inner:
                try:
                    turn = fold_numbers(side_labels, side_groups, n_folds=n_inner, seed=seed)
                except BadInput as error:
                    raise BadInput(
                        f"training side of seed {seed}, fold {fold}, for --inner {n_inner}: {error}"
                    ) from None
                held = [turn == inner for inner in range(n_inner)]
            elif n_folds == 1:
                held = [code[side] == 1]
            else:
                held = [held_out(side_labels, side_groups, share=share, seed=seed)]
            for inner, is_val in enumerate(held):
                full = np.full(len(labels), 2)
                full[side] = np.where(is_val, 1, 0)
                split = [SPLITS[c] for c in full]
                parts.append(Part(arm, seed, fold, inner if n_inner else None, split))
    return parts


def check_parts(parts: list[Part], labels: list[str]) -> None:
    """Refuse a plan with a part that cannot be trained at all.

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
