"""Write the tables of a slide's maps: areas, agreement of heads, Jaccard index of each class."""

import csv
import io
import math
from collections.abc import Iterable, Sequence

from pipeline.evaluation.map_agreement import jaccard_index
from pipeline.maps.cells import REJECTED, class_areas
from pipeline.maps.map_data import MapData, pairs
from pipeline.storage.csv_files import no_formula


def _csv(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a CSV table: floats with six digits, text that a spreadsheet would take for a formula made harmless."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(head)
    for row in rows:
        writer.writerow(
            [
                "" if cell != cell else f"{cell:.6g}" if isinstance(cell, float) else no_formula(str(cell))
                for cell in row
            ]
        )
    return buffer.getvalue()


def areas_csv(maps: MapData) -> str:
    """Return head, class, n_cells, mm2, share (of the area that has a class); outliers are the last class, rejected."""
    rows = []
    for head, class_map in maps.by_head.items():
        n_cells, mm2 = class_areas(class_map)
        for k, name in enumerate(maps.classes):
            rows.append([head, name, int(n_cells[k]), float(mm2[k]), float(mm2[k] / (mm2.sum() or 1))])
        if maps.rejection is not None:
            rejected = class_map.code == REJECTED
            rows.append(
                [head, "rejected", int(rejected.sum()), float(class_map.grid.areas_mm2[rejected].sum()), math.nan]
            )
    return _csv(["head", "class", "n_cells", "mm2", "share"], rows)


def agreement_csv(maps: MapData) -> str:
    """Return head, other, n_cells, share, kappa for each pair of heads."""
    rows = [[pair.head, pair.other, int(pair.matrix.sum()), pair.share, pair.kappa] for pair in pairs(maps)]
    return _csv(["head", "other", "n_cells", "share", "kappa"], rows)


def iou_csv(maps: MapData) -> str:
    """Return head, cells, class, iou, n_cells (mapped squares whose true class it is).

    `cells` is all, and with rejected cells also accepted.
    """
    rows = [
        [head, cells, name, float(iou), int(n)]
        for cells, scores in (("all", maps.scores), ("accepted", maps.accepted))
        for head, score in scores.items()
        for name, iou, n in zip(maps.classes, jaccard_index(score.matrix), score.matrix.sum(axis=1), strict=True)
    ]
    return _csv(["head", "cells", "class", "iou", "n_cells"], rows)
