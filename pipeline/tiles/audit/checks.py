"""Audit a data set: unreadable tiles, copies, neighbours, odd tiles, classes bound to groups.

It uses the manifest's table and the `Measurements` of `survey`.
"""

from collections import Counter

import pandas as pd

from pipeline.markup.escape import markdown_cell
from pipeline.names import SPLITS
from pipeline.runtime.console import list_names
from pipeline.tiles.audit.adjacency import neighbour_findings
from pipeline.tiles.audit.confounding import group_findings
from pipeline.tiles.audit.duplicates import duplicate_findings
from pipeline.tiles.audit.finding import Finding, counted
from pipeline.tiles.audit.markdown import audit_markdown
from pipeline.tiles.audit.measure import Measurements
from pipeline.tiles.audit.quality import quality_findings
from pipeline.tiles.audit.source_colours import colour_findings
from pipeline.tiles.datasets.layout import class_note
from pipeline.tiles.datasets.sources import TileSet

__all__ = ["Finding", "audit", "audit_markdown", "markdown_cell"]

FEW = 20
"""Fewest tiles of a class without a warning."""


def file_findings(table: pd.DataFrame, measurements: Measurements) -> list[Finding]:
    """Return findings on unreadable tiles, on notes of reading, and on sizes."""
    findings = []
    bad = table[table["problem"] != ""]
    if len(bad):
        reasons = Counter(bad["problem"]).most_common(4)
        listing = counted({f"{reason}:": n for reason, n in reasons})
        findings.append(
            Finding("warning", f"{len(bad)} tile(s) are unreadable, left out ({listing})", list(bad["tile_id"]))
        )
    notes = pd.Series(measurements.notes, index=table.index)
    for note in sorted(set(notes) - {""}):
        names = list(table.loc[notes == note, "tile_id"])
        findings.append(Finding("warning", f"{len(names)} tile(s): {note}", names))
    good = table[table["problem"] == ""]
    sizes = Counter(zip(good["width"], good["height"], strict=True)).most_common()
    if len(sizes) > 1:
        listing = ", ".join(f"{width}x{height} ({n})" for (width, height), n in sizes[:6])
        findings.append(Finding("warning", f"tiles have {len(sizes)} sizes, all are resized to one: {listing}", []))
    if any(width != height for (width, height), _ in sizes):
        findings.append(Finding("warning", "tiles that are not square are distorted when they are resized", []))
    return findings


def class_findings(good: pd.DataFrame) -> list[Finding]:
    """Return findings on classes with few tiles and on classes that a split lacks.

    Args:
        good: columns label and split of the readable tiles. If all are in one split, there is no finding on splits.
    """
    findings = []
    counts = good["label"].value_counts(sort=True)
    few = counts[counts < FEW]
    if len(few) == 1:
        text = f"class '{few.index[0]}' has {few.iloc[0]} tiles: its results are uncertain"
        findings.append(Finding("warning", text, []))
    elif len(few):
        text = f"{len(few)} classes have fewer than {FEW} tiles, their results are uncertain: {counted(few.to_dict())}"
        findings.append(Finding("warning", text, []))
    if good["split"].nunique() > 1:
        absent = {
            split: sorted(set(good["label"]) - set(good.loc[good["split"] == split, "label"])) for split in SPLITS
        }
        lacks = [f"{split} has no tile of {', '.join(labels)}" for split, labels in absent.items() if labels]
        if lacks:
            findings.append(Finding("warning", "; ".join(lacks), []))
    return findings


def data_findings(tiles: TileSet) -> list[Finding]:
    """Return findings on how the tiles were found: copies, notes of reading a table, ignored files, annotations."""
    findings = []
    if tiles.copies:
        listing = list_names([f"{copy} of {original}" for copy, original in tiles.copies])
        findings.append(Finding("warning", f"{len(tiles.copies)} name(s) look like copies: {listing}", []))
    if warning := class_note(list(tiles.table["label"])):
        findings.append(Finding("warning", warning, []))
    if tiles.notes:
        findings.append(Finding("note", f"{tiles.name} was read with: {'; '.join(tiles.notes)}", []))
    if tiles.ignored:
        text = "ignored: no images, in no class folder, system folders, or unknown columns"
        findings.append(Finding("note", text, tiles.ignored))
    return [*findings, *tiles.findings]


def audit(
    table: pd.DataFrame, measurements: Measurements, tiles: TileSet, *, sides: "pd.Series[str]", protocol: str
) -> list[Finding]:
    """Return all findings on a manifest's table, worst first; an error is leakage between sides of the split.

    Args:
        table: manifest columns, index 0..N-1.
        measurements: measurements of the same tiles.
        tiles: their data set.
        sides: one value per tile, index as the table's: two tiles with different values can be on two sides of a
            split. The split itself; the group for folds of groups; the tile's id for random folds.
        protocol: "random" leaves near-duplicates on two sides a warning; under all others they are an error.
    """
    good = table["problem"] == ""
    readable = table[good].reset_index(drop=True)
    rows = table.index[good].to_numpy()
    seen = measurements.take(rows)
    where = sides.to_numpy(dtype=object)[rows]
    findings = [
        *duplicate_findings(readable, seen, sides=where, strict=protocol != "random"),
        *file_findings(table, measurements),
        *neighbour_findings(readable, sides=where),
        *group_findings(readable, sides=where),
        *class_findings(readable),
        *quality_findings(readable, seen.quality),
        *colour_findings(readable, seen.quality),
        *data_findings(tiles),
    ]
    order = {"error": 0, "warning": 1, "note": 2}
    return sorted(findings, key=lambda finding: order[finding.severity])
