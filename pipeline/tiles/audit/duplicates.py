"""Find copies among tiles: with equal pixels, or changed."""

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipeline.names import SPLITS
from pipeline.tiles.audit.finding import Finding, Severity, finding_of_sets
from pipeline.tiles.audit.measure import Measurements
from pipeline.tiles.audit.perceptual_hash import near_duplicates

SAME = "the same pixels"
ALIKE = "almost the same pixels (turned, mirrored, re-encoded, resized or brightened)"


def equal_sets(table: pd.DataFrame) -> list[np.ndarray]:
    """Return the rows of each set of tiles with equal pixels, in the order of their first tiles."""
    hashes = table["sha256"].to_numpy()
    doubled = np.flatnonzero(table["sha256"].duplicated(keep=False) & (table["sha256"] != ""))
    return [
        doubled[where] for where in pd.Series(hashes[doubled]).groupby(hashes[doubled], sort=False).indices.values()
    ]


def alike_sets(table: pd.DataFrame, measurements: Measurements) -> list[np.ndarray]:
    """Return the rows of each set of tiles that are changed copies of each other, with their equal copies.

    A set is a chain of near-duplicates; sets of equal tiles are left to `equal_sets`.
    """
    codes, names = pd.factorize(table["sha256"])
    first = np.flatnonzero(~pd.Series(codes).duplicated() & (table["sha256"] != "").to_numpy())
    pairs = first[near_duplicates(measurements.hashes[first], measurements.thumbnails[first])]
    if not len(pairs):
        return []
    a, b = codes[pairs].T
    graph = coo_array((np.ones(len(a), dtype=bool), (a, b)), shape=(len(names), len(names)))
    component = connected_components(graph, directed=False)[1][codes]
    members = np.flatnonzero(np.isin(component, component[pairs[:, 0]]))
    grouped = pd.Series(members).groupby(component[members], sort=False).indices.values()
    return [members[where] for where in grouped]


def set_findings(
    sets: list[np.ndarray], table: pd.DataFrame, *, sides: np.ndarray, what: str, across: Severity
) -> list[Finding]:
    """Return at most three findings on sets of tiles: on several sides, under several labels, and the others.

    Args:
        sets: rows of tiles that belong together.
        table: columns tile_id and label.
        sides: side of the split of each row, (N,).
        what: property that the tiles of a set share.
        across: severity of a set that is on several sides.
    """
    names, labels = table["tile_id"].to_numpy(), table["label"].to_numpy()
    named = set(sides) <= set(SPLITS)
    spread = [rows for rows in sets if len(set(sides[rows])) > 1]
    doubtful = [rows for rows in sets if len(set(labels[rows])) > 1]
    plain = [rows for rows in sets if len(set(sides[rows])) == 1 and len(set(labels[rows])) == 1]

    def finding(severity: Severity, found: list[np.ndarray], one: str, many: str) -> list[Finding]:
        text = one if len(found) == 1 else many.format(n=len(found), tiles=sum(map(len, found)))
        return [finding_of_sets(severity, text, [list(names[rows]) for rows in found])] if found else []

    places = "are in several splits" if named else "can be on two sides of a split"
    where = f"are in {', '.join(sorted(set(sides[spread[0]])))}" if spread and named else places
    given = ", ".join(sorted(set(labels[doubtful[0]]))) if doubtful else ""
    sets_of = f"{{n}} sets of tiles ({{tiles}} tiles) with {what}"
    return [
        *finding(across, spread, f"leakage: {what} {where}", f"leakage: {sets_of} {places}"),
        *finding("warning", doubtful, f"{what} are labelled {given}", f"{sets_of} are labelled differently"),
        *finding(
            "note", plain, f"two tiles with {what} are on one side of the split", f"{sets_of} are on one side each"
        ),
    ]


def duplicate_findings(
    table: pd.DataFrame, measurements: Measurements, *, sides: np.ndarray, strict: bool
) -> list[Finding]:
    """Return findings on equal and on almost equal tiles; unreadable tiles are left out of the comparison.

    Args:
        table: manifest columns, (N) rows.
        measurements: measurements of the same rows.
        sides: side of the split of each row, (N,).
        strict: almost equal tiles on several sides are an error, not a warning.
    """
    return [
        *set_findings(equal_sets(table), table, sides=sides, what=SAME, across="error"),
        *set_findings(
            alike_sets(table, measurements), table, sides=sides, what=ALIKE, across="error" if strict else "warning"
        ),
    ]
