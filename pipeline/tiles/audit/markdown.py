"""Write audit.md: the findings, worst first, with counts and measurements."""

import pandas as pd

from pipeline.markup.escape import markdown_cell
from pipeline.names import SPLITS
from pipeline.tiles.audit.confounding import confounding, confounding_line, group_table
from pipeline.tiles.audit.finding import Finding
from pipeline.tiles.audit.measure import Measurements
from pipeline.tiles.audit.quality import blank

MOST_GROUPS = 40
"""Most groups with a column each."""

SHOWN = ("brightness", "contrast", "saturation", "background", "sharpness")
"""Measurements whose medians are shown for each class."""


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    """Return the lines of a table: the first column aligned left, the others right, then an empty line."""
    lines = [header, *rows]
    text = ["| " + " | ".join(map(markdown_cell, line)) + " |" for line in lines]
    return [text[0], "|---|" + "---:|" * (len(header) - 1), *text[1:], ""]


def _counts(counts: pd.DataFrame) -> list[str]:
    """Return a table of counts with sums; 0 is a dash."""
    header = ["class", *map(str, counts.columns), "all"]
    rows = [[str(label), *(str(n) if n else "-" for n in row), str(row.sum())] for label, row in counts.iterrows()]
    return _table(header, rows)


def _groups(good: pd.DataFrame) -> list[str]:
    """Return the section on classes and groups."""
    counts = group_table(good)
    if counts.shape[1] <= MOST_GROUPS:
        lines = _counts(counts)
    else:
        rows = [
            [str(label), str((row > 0).sum()), str((row == 0).sum()), f"{row[row > 0].median():.0f}", str(row.max())]
            for label, row in counts.iterrows()
        ]
        header = ["class", "groups with it", "groups without", "median tiles per group", "most tiles"]
        lines = [f"{counts.shape[1]} groups.", "", *_table(header, rows)]
    line = confounding_line(confounding(good["label"], good["group"]))
    return ["## Tiles by class and group", "", *lines, f"{line[0].upper()}{line[1:]}.", ""]


def _measurements(good: pd.DataFrame, measurements: Measurements) -> list[str]:
    """Return the section on measurements."""
    quality = measurements.quality.iloc[good.index]
    medians = quality[list(SHOWN)].groupby(good["label"]).median()
    n_blank = pd.Series(blank(quality), index=good.index).groupby(good["label"]).sum().to_dict()
    rows = [[str(label), *(f"{value:.3g}" for value in row), str(n_blank[label])] for label, row in medians.iterrows()]
    return [
        "## Measurements, medians by class",
        "",
        *_table(["class", *SHOWN, "blank tiles"], rows),
        (
            "Brightness, contrast (standard deviation) and saturation are 0..1, background is the share of white or "
            "black pixels, sharpness the variance of the Laplacian of the grey values (0..255), all at 128 x 128 px."
        ),
        "",
    ]


def audit_markdown(
    table: pd.DataFrame, findings: list[Finding], *, measurements: Measurements, name: str, protocol: str
) -> str:
    """Return audit.md: findings, counts per class and split, class x group, and measurements.

    Args:
        table: manifest columns, index 0..N-1.
        findings: worst first.
        measurements: measurements of the same tiles.
        name: name of the data set.
        protocol: protocol of the split.
    """
    good = table[table["problem"] == ""]
    splits = [split for split in SPLITS if (good["split"] == split).any()]
    lines = [
        f"# Audit of {markdown_cell(name)}",
        "",
        f"{len(table)} tiles, {len(table) - len(good)} unreadable. Split: {protocol}.",
        "",
        "## Findings",
        "",
        *([f"- **{finding.severity}**: {markdown_cell(finding.line)}" for finding in findings] or ["- none"]),
        "",
        "## Tiles by class and split",
        "",
        *_counts(pd.crosstab(good["label"], good["split"]).reindex(columns=splits, fill_value=0)),
    ]
    if good["group"].nunique() > 1:
        lines += _groups(good)
    if len(good):
        lines += _measurements(good, measurements)
    return "\n".join(lines).rstrip("\n") + "\n"
