"""Pack the test rows of a report for its page: typed arrays as base64, thumbnails as one JPEG sheet."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.comparison.choice import CHANCE, by_cost
from pipeline.comparison.explorer.carried import Carried
from pipeline.comparison.explorer.nearest import nearest_training_tiles
from pipeline.comparison.explorer.thumbnails import thumbnail_sheet
from pipeline.comparison.report_figures import EmbeddingMap
from pipeline.comparison.scores import FEW_UNITS
from pipeline.evaluation.bootstrap import resampling_counts, tail_probabilities
from pipeline.evaluation.bootstrap_sums import dense_units
from pipeline.evaluation.metrics import ECE_BINS
from pipeline.evaluation.significance import EXACT_UNITS
from pipeline.markup.inline_data import encode, inline_json
from pipeline.markup.number_format import head_name
from pipeline.names import REFERENCES, UNTRAINED, RunFile

if TYPE_CHECKING:
    from pipeline.comparison.report_data import ReportData

MOST_DRAWS = 4_000_000
"""Counts of units in draws that the page carries, one byte each; above, it recomputes no interval."""

MOST_UNITS = 2000
"""Units of the bootstrap with which the page carries draws and the tail probabilities of all fewer units."""

LEVELS = (0.8, 0.9, 0.95, 0.99)
"""Levels of the intervals that a reader can choose, next to the report's own."""

MANY_TILES = 10_000
"""Above, thumbnails are smaller."""

LARGE_THUMBNAIL, SMALL_THUMBNAIL = 48, 32
"""Side in px."""

FEW_TILES = 3000
"""Up to so many test tiles and nearest training tiles, the latter have thumbnails, small ones; above, names alone."""


def explorer_payload(data: "ReportData", carried: Carried) -> str:
    """Return the JSON that explorer/view.js reads; its arrays are in the order of the carried rows."""
    predictions, rows = data.predictions, carried.rows
    columns = predictions.tiles.iloc[rows]
    names, tile = np.unique(columns["tile_id"].to_numpy(dtype=str), return_inverse=True)
    n_units, unit = dense_units(data.resampling.ids[rows], n_rows=len(rows))
    paths = _paths(data, names)
    payload = {
        "classes": predictions.classes,
        "groups": predictions.group_code[1] if predictions.groups_known else [],
        "tiles": {"id": names.tolist(), "path": paths},
        "n": len(rows),
        "sample": _counts(carried) if carried.is_sample else None,
        "y": encode(predictions.y[rows], "i4"),
        "tile": encode(tile, "i4"),
        "group": encode(predictions.group_code[0][rows], "i4"),
        "fold": encode(columns["fold"], "i4"),
        "seed": encode(columns["seed"], "i4"),
        "unit": encode(unit, "i4"),
        "unit_name": data.resampling.unit,
        "n_units": n_units,
        "edges": np.linspace(0.0, 1.0, ECE_BINS + 1)[1:-1].tolist(),
        "heads": [
            {
                "name": head,
                "title": head_name(head),
                "main": head in predictions.main_heads,
                "untrained": head in UNTRAINED,
                "chance": head == CHANCE,
                "reference": head in REFERENCES,
                "cost": by_cost(predictions.heads).index(head),
                "predicted": encode(predictions.predicted[head][rows], "i4"),
                "p": encode(predictions.p[head][rows], "f8") if head in carried.heads else None,
            }
            for head in predictions.heads
        ],
        "printed": [] if carried.is_sample else _printed(data),
        "draws": None if carried.is_sample else _draws(data, n_units),
        "verdict": _verdict(data, n_units),
        "map": _points(data.map, names) if isinstance(data.map, EmbeddingMap) else None,
        "thumbnails": _thumbnails(data, names),
        "neighbours": _neighbours(data, names),
        "findings": _findings(data, set(names.tolist())),
    }
    return inline_json(payload)


def _counts(carried: Carried) -> dict[str, Any]:
    """Return the counts of all test rows, for a page that carries a sample."""
    return {
        "n": carried.n_all,
        "groups": encode(carried.groups, "i4"),
        "heads": {
            head: {name: encode(values, "i4") for name, values in vars(counts).items()}
            for head, counts in carried.counts.items()
        },
    }


def _paths(data: "ReportData", names: np.ndarray) -> list[str]:
    """Return the path of each tile in the manifest; without a manifest its name."""
    if data.files.manifest is None:
        return [str(name) for name in names]
    table = data.files.manifest.table
    table = table[table["tile_id"].isin(names)]
    known = dict(zip(table["tile_id"], table["path"], strict=True))
    return [str(known.get(name, name)) for name in names]


def _printed(data: "ReportData") -> list[list[str | float | None]]:
    """Return [head, metric, value, low, high] of every test score of comparison.csv; null for an undefined number."""
    return [
        [score.head, score.metric, *(None if math.isnan(x) else x for x in (score.value, score.low, score.high))]
        for score in data.scores.values()
        if score.split == "test"
    ]


def _verdict(data: "ReportData", n_units: int) -> dict[str, Any]:
    """Return what the verdict was made with: margin, level, sign-flip p of its pairs; and other levels to choose."""
    level, tails = data.resampling.level, None
    levels = sorted({*LEVELS, level})
    if 1 < n_units <= MOST_UNITS:
        units = np.arange(2, n_units + 1)
        tails = encode(np.stack([tail_probabilities(level=each, n_units=units) for each in levels]), "f8")
    return {
        "rope": data.verdict.rope,
        "level": level,
        "few_units": FEW_UNITS,
        "exact_units": EXACT_UNITS,
        "levels": levels,
        "tails": tails,
        "known": [[pair.tests.head, pair.tests.reference, pair.tests.flip.p] for pair in data.verdict.asked],
    }


def _draws(data: "ReportData", n_units: int) -> str | None:
    """Return how often each unit is in each draw, (draws, units) uint8."""
    resampling = data.resampling
    if not 1 < n_units <= min(MOST_UNITS, MOST_DRAWS // resampling.n_draws):
        return None
    chunks = resampling_counts(n_units, n_draws=resampling.n_draws, seed=resampling.seed)
    counts = np.concatenate([chunk.T for chunk in chunks])
    return encode(counts, "u1") if counts.max() <= np.iinfo(np.uint8).max else None


def _points(drawn: EmbeddingMap, names: np.ndarray) -> dict[str, str]:
    """Return the points of the map that are test tiles: number of the tile, x and y in 0..1."""
    low, high = drawn.points.min(axis=0), drawn.points.max(axis=0)
    scaled = (drawn.points - low) / np.maximum(high - low, np.finfo(float).tiny)
    place = np.minimum(np.searchsorted(names, drawn.tile_id), len(names) - 1)
    shown = names[place] == drawn.tile_id
    return {"tile": encode(place[shown], "i4"), "xy": encode(scaled[shown], "f8")}


def _thumbnails(data: "ReportData", names: np.ndarray) -> dict[str, Any] | None:
    """Return the sheet of the test tiles."""
    if data.files.manifest is None or not data.n_gallery:
        return None
    px = LARGE_THUMBNAIL if len(names) <= MANY_TILES else SMALL_THUMBNAIL
    return thumbnail_sheet(data.files.manifest, names.tolist(), px=px)


def _neighbours(data: "ReportData", names: np.ndarray) -> dict[str, Any] | None:
    """Return the nearest training tiles of each test tile, (T, k), and name, class and group of each of them."""
    embeddings, manifest = data.files.embeddings, data.files.manifest
    if embeddings is None or embeddings.classes != data.predictions.classes:
        return None
    nearest = nearest_training_tiles(data.run / RunFile.EMBEDDINGS, embeddings, names)
    if nearest is None:
        return None
    rows, of_tile = np.unique(nearest.row, return_inverse=True)
    ids = [embeddings.tile_id[row] for row in rows]
    with_pixels = manifest is not None and data.n_gallery and len(names) + len(ids) <= FEW_TILES
    return {
        "id": ids,
        "y": encode(embeddings.label[rows], "i4"),
        "group": [embeddings.group[row] for row in rows] if data.predictions.groups_known else None,
        "k": nearest.row.shape[1],
        "of_tile": encode(of_tile, "i4"),
        "cosine": encode(nearest.cosine, "f8"),
        "thumbnails": thumbnail_sheet(manifest, ids, px=SMALL_THUMBNAIL) if manifest and with_pixels else None,
    }


def _findings(data: "ReportData", names: set[str]) -> dict[str, list[str]]:
    """Return tile -> what the audit found about it."""
    found: dict[str, list[str]] = {}
    for finding in data.files.findings or []:
        for tile_id in names.intersection(finding.tiles):
            found.setdefault(tile_id, []).append(finding.what)
    return found
