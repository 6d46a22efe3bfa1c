"""Measure how far the colours of the sources differ: the recipe of a training follows that."""

import numpy as np
import pandas as pd

from pipeline.tiles.audit.finding import Finding

COLOURS = ["red", "green", "blue"]
"""Columns of `Measurements.quality`: means of a tile."""

NOTED = 0.5
"""Share of the variance from which there is a note."""


def colour_share(labels: "pd.Series[str]", groups: "pd.Series[str]", colours: pd.DataFrame) -> float | None:
    """Return the share of the variance of mean colours that sources explain within classes, 0..1.

    The intraclass correlation of the one-way analysis of variance with random effects (Fisher 1925; Searle, Casella
    and McCulloch 1992, section 3.6), with the variances summed over the channels and averaged over the classes by
    their tiles. It does not count that sources differ in their classes.

    Args:
        labels: class of each tile, (N,).
        groups: source of each tile, "" if unknown, (N,).
        colours: mean red, green and blue of each tile, (N, 3).

    Returns:
        None if no class has two sources and more tiles than sources.
    """
    known = (groups != "").to_numpy()
    values = pd.DataFrame(colours[COLOURS].to_numpy(float)[known])
    label, group = labels.to_numpy()[known], groups.to_numpy()[known]
    between = within = total = 0.0
    for name in np.unique(label):
        own = values[label == name]
        cells = own.groupby(group[label == name])
        n, n_tiles = cells.size().to_numpy(), len(own)
        if len(n) < 2 or n_tiles == len(n):
            continue
        means = cells.mean().to_numpy()
        error = float(((own - cells.transform("mean")) ** 2).to_numpy().sum()) / (n_tiles - len(n))
        spread = float((n[:, None] * (means - own.to_numpy().mean(axis=0)) ** 2).sum()) / (len(n) - 1)
        size = (n_tiles - (n**2).sum() / n_tiles) / (len(n) - 1)
        between += n_tiles * max(0.0, (spread - error) / size)
        within += n_tiles * error
        total += n_tiles
    if not total:
        return None
    return round(between / (between + within), 3) if between + within else 0.0


def colour_findings(good: pd.DataFrame, quality: pd.DataFrame) -> list[Finding]:
    """Return a note if sources explain at least `NOTED` of the variance of colours.

    Args:
        good: columns label and group of the readable tiles, (N) rows.
        quality: `Measurements.quality` of the same tiles.
    """
    share = colour_share(good["label"], good["group"], quality)
    if share is None or share < NOTED:
        return []
    text = f"sources differ in colour: within a class they explain {share:.0%} of the variance of the tiles' colours"
    return [Finding("note", text, [])]
