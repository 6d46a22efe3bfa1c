"""Measure how far classes are bound to groups: then a network can use the slide's stain to predict the class."""

import dataclasses

import numpy as np
import pandas as pd

from pipeline.tiles.audit.finding import Finding, counted

FEW_GROUPS = 2
"""A class in this many groups or fewer is bound to them."""

ONE_CLASS = 0.9
"""Share of one class from which a group looks like one class only."""

NOTED, WARNED = 0.05, 0.25
"""Gain of the group over the most frequent class (see `Confounding.gain`) from which there is a note, a warning."""


@dataclasses.dataclass(frozen=True)
class Confounding:
    """How well the group of a tile predicts its class."""

    guessed: float
    """Share of tiles whose class is the most frequent one among the other tiles of their group."""

    majority: float
    """Share of the most frequent class: the accuracy of always predicting it."""

    information: float
    """Mutual information of class and group, adjusted for chance: 0 independent, 1 each determines the other."""

    @property
    def gain(self) -> float:
        """Improvement by the group, as a share of that from `majority` to 1; below 0 if the group misleads."""
        return (self.guessed - self.majority) / (1 - self.majority) if self.majority < 1 else 0.0


def group_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return the number of tiles per class (rows) and group (columns), both sorted."""
    return pd.crosstab(table["label"], table["group"])


def confounding(labels: pd.Series, groups: pd.Series) -> Confounding:
    """Return how well the group predicts the class.

    Each tile is predicted from the other tiles of its group; ties, and groups of one tile, are decided by the overall
    frequency of the classes. The mutual information is adjusted for chance (Vinh et al.
    2010, scikit-learn's `adjusted_mutual_info_score`).
    """
    from sklearn.metrics import adjusted_mutual_info_score

    counts = pd.crosstab(labels, groups).to_numpy()
    totals = counts.sum(axis=1)
    frequent = totals / (totals.sum() + 1)  # below 1: decides ties only
    right = 0
    for code in range(len(counts)):
        others = counts.astype(float) + frequent[:, None]
        others[code] -= 1
        right += int(counts[code, np.argmax(others, axis=0) == code].sum())
    return Confounding(
        guessed=right / len(labels),
        majority=float(totals.max() / totals.sum()),
        information=float(adjusted_mutual_info_score(labels, groups)),
    )


def group_findings(table: pd.DataFrame, *, sides: np.ndarray) -> list[Finding]:
    """Return findings on groups: unknown, divided by the split, bound to classes.

    Args:
        table: columns label and group of the readable tiles, (N) rows.
        sides: side of the split of each, (N,).
    """
    if (table["group"] == "").all():
        text = "no groups are known: tiles of one slide may be on both sides of the split"
        return [Finding("warning", text, [])]
    findings = []
    spread = pd.Series(sides).groupby(table["group"].to_numpy()).nunique()
    if (spread > 1).any():
        text = f"{int((spread > 1).sum())} group(s) are in several splits (random protocol): results are biased upwards"
        findings.append(Finding("warning", text, []))
    counts = group_table(table)
    n_groups = counts.shape[1]
    there = (counts > 0).sum(axis=1)
    bound = [
        f"'{label}' ({', '.join(counts.columns[counts.loc[label] > 0])})" for label in there.index[there <= FEW_GROUPS]
    ]
    if bound:
        text = f"{len(bound)} class(es) are in one or two groups only, bound to their stain: {', '.join(bound)}"
        findings.append(Finding("warning", text, []))
    missing = (n_groups - there)[(there > FEW_GROUPS) & (there < n_groups)].sort_values(ascending=False, kind="stable")
    if len(missing):
        listing = ", ".join(f"'{label}' in {n}" for label, n in missing.items())
        text = f"classes are missing in groups, of {n_groups}: {listing}"
        findings.append(Finding("warning" if missing.iloc[0] > n_groups / 2 else "note", text, []))
    several = counts.columns[counts.sum(axis=0) > 1]
    single = several[(counts[several] > 0).sum(axis=0) == 1]
    if len(single):
        of = counts[single].gt(0).sum(axis=1).to_dict()
        text = f"{len(single)} of {n_groups} groups have one class only ({counted(of)})"
        findings.append(Finding("warning", text, []))
    bias = confounding(table["label"], table["group"])
    if bias.gain >= NOTED and n_groups > 1:
        findings.append(Finding("warning" if bias.gain >= WARNED else "note", confounding_line(bias), []))
    share = counts[several].max(axis=0) / counts[several].sum(axis=0)
    if n_nearly := int((share >= ONE_CLASS).sum()):
        text = (
            f"in {n_nearly} of {n_groups} groups at least {100 * ONE_CLASS:.0f} % of the tiles are of one class: "
            "fit_heads --relative group may harm there"
        )
        findings.append(Finding("note", text, []))
    return findings


def confounding_line(bias: Confounding) -> str:
    """Return the numbers as a sentence."""
    return (
        f"guessing a tile's class from the other tiles of its group is right for {bias.guessed:.1%} of the tiles, "
        f"always guessing the most frequent class for {bias.majority:.1%} (adjusted mutual information of class and "
        f"group {bias.information:.2f})"
    ).replace("%", " %")
