"""Tables of a slide's maps that people read: areas, agreement, and the Jaccard index of each class."""

import csv
import io
from collections.abc import Iterable, Sequence

from pipeline.evaluation.map_agreement import jaccard_index
from pipeline.maps.cells import areas
from pipeline.maps.map_data import Maps, pairs
from pipeline.storage.csv_files import no_formula


def _csv(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table; floats with six digits, names that would be formulas defused."""
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


def areas_csv(maps: Maps) -> str:
    """Return head, class, n_cells, mm2, share (of the area that has a class)."""
    rows = []
    for head, found in maps.by_head.items():
        n_cells, mm2 = areas(found)
        for k, name in enumerate(maps.classes):
            rows.append([head, name, int(n_cells[k]), float(mm2[k]), float(mm2[k] / mm2.sum())])
    return _csv(["head", "class", "n_cells", "mm2", "share"], rows)


def agreement_csv(maps: Maps) -> str:
    """Return head, other, n_cells, share, kappa of each pair of heads."""
    rows = [[pair.head, pair.other, int(pair.matrix.sum()), pair.share, pair.kappa] for pair in pairs(maps)]
    return _csv(["head", "other", "n_cells", "share", "kappa"], rows)


def iou_csv(maps: Maps) -> str:
    """Return head, class, iou, n_cells (squares that truly have the class and are mapped)."""
    rows = [
        [head, name, float(iou), int(n)]
        for head, score in maps.truth.items()
        for name, iou, n in zip(maps.classes, jaccard_index(score.matrix), score.matrix.sum(axis=1), strict=True)
    ]
    return _csv(["head", "class", "iou", "n_cells"], rows)
