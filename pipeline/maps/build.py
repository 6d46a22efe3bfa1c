"""From the embeddings of a slide and what heads say of its tiles to maps and their scores."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import BadTile
from pipeline.maps.cells import class_map, grid_of
from pipeline.maps.ground_truth import Truth, score_map
from pipeline.maps.map_data import Maps
from pipeline.runtime.console import log
from pipeline.storage import freshness
from pipeline.storage.embeddings.reader import OK, Embeddings
from pipeline.storage.predictions.csv_table import HeadOutput
from pipeline.tiles.decoding import decode_tile


def make_maps(
    content: Embeddings,
    answers: Mapping[str, HeadOutput],
    truth: Truth | None,
    *,
    made: Mapping[str, Any],
    given: Mapping[str, Any],
    sources: Mapping[str, str],
) -> Maps:
    """Return the maps of all heads and their scores.

    Args:
        content: of a slide, N rows; its features are not needed.
        answers: head -> what it says of the M rows that stand for a tile.
        truth: of the slide, if it is known.
        made: details of the slide's record.
        given: record of the embeddings that the heads were fitted on.
        sources: file -> SHA-256 of what else the maps come from.
    """
    if content.slide is None or content.coords is None:
        raise ValueError("content must be that of a slide")
    slide, ok = content.slide, content.status == OK
    grid = grid_of(content.coords, slide, len(content.classes))
    found = {
        head: class_map(grid, content.coords, answer.p, ok, patch=slide.patch_size_level0)
        for head, answer in answers.items()
    }
    how: list[dict[str, Any]] = [{"views": 1, **details} for details in (made, given["details"])]
    remarks = [
        f"The slide was embedded with {name} {how[0].get(name)}, what the heads were fitted on with "
        f"{how[1].get(name)}: answers may differ a little for that reason alone."
        for name in ("engine", "precision", "views")
        if how[0].get(name) != how[1].get(name)
    ]
    saw = made.get("saw_source")
    return Maps(
        slide=slide,
        classes=content.classes,
        by_head=found,
        truth={} if truth is None else {head: score_map(own, truth) for head, own in found.items()},
        saw_source=saw if isinstance(saw, bool) else None,
        n_tiles=len(ok),
        n_unreadable=int((~ok).sum()),
        remarks=remarks,
        sources={
            "slide": slide.slide_sha256,
            "network": str(content.attrs["model_sha256"]),
            "features of the slide": str(content.attrs["features_sha256"]),
            **sources,
        },
    )


def read_thumbnail(path: Path, record: Mapping[str, Any]) -> np.ndarray | None:
    """Return the picture of the slide that `extract --slide` left beside its embeddings, if it is whole.

    Args:
        path: the embeddings.
        record: theirs.

    Returns:
        (h, w, 3) uint8, or None; why is said.
    """
    name = record["details"].get("thumbnail")
    if not isinstance(name, str) or Path(name).name != name or name not in record["outputs"]:
        log.info(f"predict: {path}: its record names no thumbnail, so that maps are drawn over white")
        return None
    if name in freshness.damaged_outputs(path, record):
        log.info(f"predict: {path.parent / name}: missing or changed, so that maps are drawn over white")
        return None
    try:
        return decode_tile(path.parent / name)
    except BadTile as error:
        log.info(f"predict: {error}: maps are drawn over white")
        return None
