"""Measure how robust the embeddings of a run are against the source of a tile, on its test tiles."""

from pathlib import Path

import numpy as np

from pipeline.evaluation.robustness_margin import NEIGHBOURS, RobustnessMargin, robustness_margins, summarise_margins
from pipeline.evaluation.validate import FloatArray
from pipeline.names import SPLITS, RunFile
from pipeline.storage.embeddings.reader import OK, feature_rows, read_embeddings
from pipeline.storage.protocol import read_protocol

MOST_ROWS = 4000
"""Test tiles of a part that are used at most, drawn at random: the distances of all pairs are needed."""


def read_margin(run: Path, *, seed: int) -> RobustnessMargin | str:
    """Return the robustness margins of a run, or why there are none.

    The parts of a plan are measured one by one, since a trained network of each part has its own embeddings; the
    margins of all parts are pooled. The source of a tile is its group; each tile is a sample of its own.

    Args:
        run: the run folder.
        seed: seed of the sample of tiles.

    Raises:
        BadArtifact: an embeddings file breaks its schema.
    """
    protocol = read_protocol(run)
    parts = [] if protocol is None else [part for part in protocol.parts if part.arm == protocol.main_arm]
    folders = [run] if protocol is None else [protocol.folder(part) for part in parts]
    margins = []
    for folder in folders:
        if not (folder / RunFile.EMBEDDINGS).is_file():
            return "no embeddings.h5"
        found = _margins(folder / RunFile.EMBEDDINGS, seed=seed)
        if isinstance(found, str):
            return found
        margins.append(found)
    summary = summarise_margins(np.concatenate(margins))
    if summary.n_scored:
        return summary
    if parts and all(len(part.test_groups) == 1 for part in parts):
        return "each part tests one group: there are no tiles from other groups"
    return f"no tile has {NEIGHBOURS} of its class from other groups and {NEIGHBOURS} of other classes from its own"


def _margins(path: Path, *, seed: int) -> FloatArray | str:
    """Return the margins of the test tiles of a file, of a sample if there are many."""
    rows = read_embeddings(path, with_features=False)
    group, names = np.array(rows.group, dtype=str), np.array(rows.tile_id, dtype=str)
    chosen = np.flatnonzero((rows.split == SPLITS.index("test")) & (rows.status == OK) & (rows.label >= 0))
    if not len(chosen) or (group[chosen] == "").any():
        return "groups are not known"
    if len(chosen) > MOST_ROWS:
        # the same tiles in every run, whatever the order of its rows
        chosen = chosen[np.argsort(names[chosen], kind="stable")]
        chosen = np.sort(np.random.default_rng(seed).choice(chosen, MOST_ROWS, replace=False))
    source = np.unique(group[chosen], return_inverse=True)[1]
    return robustness_margins(feature_rows(path, chosen), rows.label[chosen], source)
