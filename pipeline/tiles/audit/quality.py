"""Find tiles that are blank, blurred, or of a colour that the others do not have."""

import numpy as np
import pandas as pd

from pipeline.tiles.audit.finding import Finding, counted

BLANK_CONTRAST = 0.03
"""Standard deviation of the grey values (0..1) below which a tile is blank."""

BLANK_SHARE = 0.95
"""Share of background above which a tile is blank."""

OUTLYING = 3.5
"""Modified z-score of an outlier (Iglewicz and Hoaglin 1993)."""

BLURRED = 4.0
"""A blurred tile is also this many times less sharp than the median tile, however alike the tiles are."""

OFF_COLOUR = 12.0
"""A tile off in colour is also this far from the median tile in CIELAB's a or b."""

COMPARED = 20
"""With fewer tiles than this nothing is an outlier."""


def modified_z(values: np.ndarray) -> np.ndarray:
    """Return 0.6745 (x - median) / MAD of values, (N,); MAD: median absolute deviation. All alike: 0 or infinite."""
    apart = values - np.median(values)
    spread = float(np.median(np.abs(apart)))
    scores: np.ndarray = 0.6745 * apart / max(spread, 1e-12)
    return scores


def blank(quality: pd.DataFrame) -> np.ndarray:
    """Return which tiles show no tissue, (N,) bool."""
    return ((quality["contrast"] < BLANK_CONTRAST) | (quality["background"] > BLANK_SHARE)).to_numpy()


def blurred(quality: pd.DataFrame) -> np.ndarray:
    """Return which tiles are blurred, (N,) bool.

    Both the variance of the Laplacian and its ratio to the variance of the grey values must be far below the
    others': the first alone is low for pale tissue, the second for tissue next to empty slide.
    """
    sharpness = np.log(np.maximum(quality["sharpness"].to_numpy(float), 1e-6))
    relative = sharpness - 2 * np.log(np.maximum(quality["contrast"].to_numpy(float), 1e-6))
    found = np.ones(len(quality), dtype=bool)
    for values in (sharpness, relative):
        found &= (modified_z(values) < -OUTLYING) & (values < np.median(values) - np.log(BLURRED))
    return found


def off_colour(quality: pd.DataFrame) -> np.ndarray:
    """Return which tiles' mean colour is far from the others' in CIELAB's a or b, (N,) bool; brightness is free."""
    from skimage.color import rgb2lab

    lab = rgb2lab(quality[["red", "green", "blue"]].to_numpy(float)[:, None])[:, 0]
    found = np.zeros(len(quality), dtype=bool)
    for axis in (lab[:, 1], lab[:, 2]):
        found |= (np.abs(modified_z(axis)) > OUTLYING) & (np.abs(axis - np.median(axis)) > OFF_COLOUR)
    return found


def quality_findings(table: pd.DataFrame, quality: pd.DataFrame) -> list[Finding]:
    """Return findings on blank, blurred and off-coloured tiles, one each.

    A class that is blank by half is taken to be meant so: its blank tiles are no finding.

    Args:
        table: columns tile_id and label of the readable tiles, (N) rows.
        quality: `Measurements.quality` of the same tiles.
    """
    names, labels = table["tile_id"].to_numpy(), table["label"].to_numpy()
    is_blank = blank(quality)
    shares = pd.Series(is_blank).groupby(labels).mean()
    empty = is_blank & np.isin(labels, shares.index[shares < 0.5])
    rest = np.flatnonzero(~is_blank)
    findings = []

    def add(rows: np.ndarray, what: str) -> None:
        if len(rows):
            of = pd.Series(labels[rows]).value_counts().to_dict()
            findings.append(Finding("warning", f"{len(rows)} tile(s) {what} ({counted(of)})", list(names[rows])))

    add(np.flatnonzero(empty), "are blank, though their class is not")
    if len(rest) >= COMPARED:
        add(rest[blurred(quality.iloc[rest])], "are blurred, compared with the others")
        add(rest[off_colour(quality.iloc[rest])], "have a colour far from the others'")
    return findings
