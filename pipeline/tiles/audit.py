"""What a data set hides: unreadable tiles, equal pixels, odd sizes, classes bound to groups. Found before training."""

import dataclasses
from collections import Counter
from typing import Literal

import pandas as pd

from pipeline.tiles.datasets import list_names

FEW = 20
"""A class with fewer tiles than this gets a warning: its figures will say little."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that a reader of the results must know."""

    severity: Literal["error", "warning", "note"]
    what: str
    tiles: list[str]

    @property
    def line(self) -> str:
        """The finding as one line with the first tiles' names."""
        return self.what + (f": {list_names(self.tiles)}" if self.tiles else "")


def duplicate_findings(table: pd.DataFrame) -> list[Finding]:
    """Return findings on tiles with equal pixels: within a split, across splits, under two labels.

    Args:
        table: manifest columns; unreadable tiles (no hash) are left out of the comparison.
    """
    readable = table[table["sha256"] != ""]
    doubled = readable[readable["sha256"].duplicated(keep=False)]
    findings = []
    for _, same in doubled.groupby("sha256", sort=False):
        names = list(same["tile_id"])
        if same["split"].nunique() > 1:
            splits = ", ".join(sorted(set(same["split"])))
            findings.append(Finding("error", f"leakage: the same pixels stand in {splits}", names))
        if same["label"].nunique() > 1:
            labels = ", ".join(sorted(set(same["label"])))
            findings.append(Finding("warning", f"the same pixels are labelled {labels}", names))
        if same["split"].nunique() == 1 and same["label"].nunique() == 1:
            findings.append(Finding("note", "the same pixels stand twice in one split", names))
    return findings


def audit(table: pd.DataFrame, *, ignored: list[str]) -> list[Finding]:
    """Return all findings on a manifest's table, worst first."""
    findings = duplicate_findings(table)
    bad = table[table["problem"] != ""]
    findings += [
        Finding("warning", f"unreadable, left out ({problem})", [tile_id])
        for tile_id, problem in zip(bad["tile_id"], bad["problem"], strict=True)
    ]
    good = table[table["problem"] == ""]
    sizes = Counter(zip(good["width"], good["height"], strict=True)).most_common()
    if len(sizes) > 1:
        listing = ", ".join(f"{width}x{height} ({n})" for (width, height), n in sizes[:6])
        findings.append(Finding("warning", f"tiles have {len(sizes)} sizes, all are resized to one: {listing}", []))
    if any(width != height for (width, height), _ in sizes):
        findings.append(Finding("warning", "tiles that are not square are squeezed when they are resized", []))
    counts = good["label"].value_counts()
    for label, n in counts[counts < FEW].items():
        findings.append(Finding("warning", f"class '{label}' has {n} tiles: its figures say little", []))
    for split in ("train", "val", "test"):
        absent = sorted(set(good["label"]) - set(good.loc[good["split"] == split, "label"]))
        if absent:
            findings.append(Finding("warning", f"{split} holds no tile of {', '.join(absent)}", []))
    if (good["group"] != "").any():
        spread = good.groupby("label")["group"].nunique()
        for label in spread[spread <= 2].index:
            groups = ", ".join(sorted(good.loc[good["label"] == label, "group"].unique()))
            findings.append(
                Finding("warning", f"class '{label}' stands only in group(s) {groups}: source and class are bound", [])
            )
        across = good.groupby("group")["split"].nunique()
        if (across > 1).any():
            n = int((across > 1).sum())
            findings.append(
                Finding("warning", f"{n} group(s) stand in several splits (random protocol): results flatter", [])
            )
    else:
        findings.append(
            Finding("warning", "no groups are known: tiles of one slide may stand on both sides of the split", [])
        )
    if ignored:
        findings.append(Finding("note", "passed over (no tile by its name, in no class folder, or unknown)", ignored))
    order = {"error": 0, "warning": 1, "note": 2}
    return sorted(findings, key=lambda finding: order[finding.severity])


def audit_markdown(table: pd.DataFrame, findings: list[Finding], *, name: str, protocol: str) -> str:
    """Return audit.md: counts per class and split, class x group, and the findings."""
    good = table[table["problem"] == ""]
    lines = [
        f"# Audit of {markdown_cell(name)}",
        "",
        f"{len(table)} tiles, {len(table) - len(good)} unreadable. Split: {protocol}.",
        "",
    ]

    def cross(column: str, order: list[str]) -> list[str]:
        counts = pd.crosstab(good["label"], good[column]).reindex(columns=order, fill_value=0)
        rows = [f"| class | {' | '.join(map(markdown_cell, order))} | all |", "|---|" + "---:|" * (len(order) + 1)]
        for label, row in counts.iterrows():
            cells = " | ".join("-" if n == 0 else str(n) for n in row)
            rows.append(f"| {markdown_cell(str(label))} | {cells} | {row.sum()} |")
        return [*rows, ""]

    lines += ["## Tiles by class and split", "", *cross("split", ["train", "val", "test"])]
    groups = sorted(good["group"].unique())
    if 1 < len(groups) <= 40:
        lines += ["## Tiles by class and group", "", *cross("group", groups)]
    elif len(groups) > 40:
        lines += [f"{len(groups)} groups.", ""]
    lines += ["## Findings", ""]
    lines += [f"- **{finding.severity}**: {markdown_cell(finding.line)}" for finding in findings] or ["- none"]
    return "\n".join(lines) + "\n"


def markdown_cell(text: str) -> str:
    """Return text that cannot break a Markdown table or become markup."""
    for character in "\\|<>*_`[]~":
        text = text.replace(character, "\\" + character)
    return " ".join(text.split())
