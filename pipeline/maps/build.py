"""Build a slide's class maps from its embeddings and the heads' outputs, and score them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import BadTile
from pipeline.inference.outliers import Rejection
from pipeline.maps.cells import class_map, grid_of, rejected_map
from pipeline.maps.ground_truth import GroundTruth, GroundTruthScore, score_map
from pipeline.maps.map_data import MapData
from pipeline.runtime.console import log
from pipeline.storage import freshness
from pipeline.storage.embeddings.reader import OK, Embeddings
from pipeline.storage.predictions.csv_table import HeadOutput
from pipeline.tiles.decoding import decode_tile


def build_maps(
    content: Embeddings,
    head_outputs: Mapping[str, HeadOutput],
    ground_truth: GroundTruth | None,
    *,
    details: Mapping[str, Any],
    fitted_on: Mapping[str, Any],
    sources: Mapping[str, str],
    outliers: tuple[Rejection, np.ndarray] | None = None,
) -> MapData:
    """Return the maps of all heads and their scores.

    Args:
        content: embeddings of a slide, N rows; the features are not needed.
        head_outputs: head -> its output for the M rows whose tiles could be read.
        ground_truth: ground truth of the slide, if it is known.
        details: details of the record of the slide's embeddings.
        fitted_on: record of the embeddings that the heads were fitted on.
        sources: file -> SHA-256 of the other files that the maps come from.
        outliers: how outliers were found, and the M scores divided by the threshold; None: none is rejected.
    """
    if content.slide is None or content.coords is None:
        raise ValueError("content must be that of a slide")
    slide, ok = content.slide, content.status == OK
    grid = grid_of(content.coords, slide, len(content.classes))
    by_head = {
        head: class_map(grid, content.coords, output.p, ok, patch=slide.patch_size_level0, offsets=output.offsets)
        for head, output in head_outputs.items()
    }
    scores = {head: score_map(one, ground_truth) for head, one in by_head.items()} if ground_truth else {}
    accepted: dict[str, GroundTruthScore] = {}
    outlier_score = None
    if outliers is not None:
        for head, found in by_head.items():
            by_head[head], outlier_score = rejected_map(
                found, content.coords[ok], outliers[1], patch=slide.patch_size_level0
            )
        accepted = {head: score_map(one, ground_truth) for head, one in by_head.items()} if ground_truth else {}
    own: dict[str, Any] = {"views": 1, **details}
    heads: dict[str, Any] = {"views": 1, **fitted_on["details"]}
    remarks = [
        f"The slide was embedded with {name} {own.get(name)}, the tiles that the heads were fitted on with "
        f"{heads.get(name)}: predictions can differ a little for that reason alone."
        for name in ("engine", "precision", "views")
        if own.get(name) != heads.get(name)
    ]
    saw_source = details.get("saw_source")
    return MapData(
        slide=slide,
        classes=content.classes,
        by_head=by_head,
        scores=scores,
        accepted=accepted,
        saw_source=saw_source if isinstance(saw_source, bool) else None,
        n_tiles=len(ok),
        n_unreadable=int((~ok).sum()),
        rejection=None if outliers is None else outliers[0],
        outlier=outlier_score,
        remarks=remarks,
        sources={
            "slide": slide.slide_sha256,
            "network": str(content.attrs["model_sha256"]),
            "features of the slide": str(content.attrs["features_sha256"]),
            **sources,
        },
    )


def read_thumbnail(path: Path, record: Mapping[str, Any]) -> np.ndarray | None:
    """Return the thumbnail that `extract --slide` wrote next to the slide's embeddings, if it is whole.

    Returns:
        (h, w, 3) uint8, or None; the reason is logged.
    """
    name = record["details"].get("thumbnail")
    if not isinstance(name, str) or Path(name).name != name or name not in record["outputs"]:
        log.warning(f"predict: {path}: its record names no thumbnail: maps are drawn over white")
        return None
    if name in freshness.damaged_outputs(path, record):
        log.warning(f"predict: {path.parent / name}: missing or changed: maps are drawn over white")
        return None
    try:
        return decode_tile(path.parent / name)
    except BadTile as error:
        log.warning(f"predict: {error}: maps are drawn over white")
        return None
