"""Write the tables of a slide's maps: areas, agreement of heads, Jaccard index of each class."""

import math

from pipeline.evaluation.map_agreement import jaccard_index
from pipeline.maps.cells import REJECTED, class_areas
from pipeline.maps.map_data import MapData, pairs
from pipeline.storage.csv_files import csv_text, no_formula


def areas_csv(maps: MapData) -> str:
    """Return head, class, n_cells, mm2, share (of the area that has a class); outliers are the last class, rejected."""
    rows = []
    for head, class_map in maps.by_head.items():
        n_cells, mm2 = class_areas(class_map)
        for k, name in enumerate(maps.classes):
            rows.append([head, no_formula(name), int(n_cells[k]), float(mm2[k]), float(mm2[k] / (mm2.sum() or 1))])
        if maps.rejection is not None:
            rejected = class_map.code == REJECTED
            rows.append(
                [head, "rejected", int(rejected.sum()), float(class_map.grid.areas_mm2[rejected].sum()), math.nan]
            )
    return csv_text(["head", "class", "n_cells", "mm2", "share"], rows, digits=6)


def agreement_csv(maps: MapData) -> str:
    """Return head, other, n_cells, share, kappa for each pair of heads."""
    rows = [[pair.head, pair.other, int(pair.matrix.sum()), pair.share, pair.kappa] for pair in pairs(maps)]
    return csv_text(["head", "other", "n_cells", "share", "kappa"], rows, digits=6)


def iou_csv(maps: MapData) -> str:
    """Return head, cells, class, iou, n_cells (mapped squares whose true class it is).

    `cells` is all, and with rejected cells also accepted.
    """
    rows = [
        [head, cells, no_formula(name), float(iou), int(n)]
        for cells, scores in (("all", maps.scores), ("accepted", maps.accepted))
        for head, score in scores.items()
        for name, iou, n in zip(maps.classes, jaccard_index(score.matrix), score.matrix.sum(axis=1), strict=True)
    ]
    return csv_text(["head", "cells", "class", "iou", "n_cells"], rows, digits=6)
