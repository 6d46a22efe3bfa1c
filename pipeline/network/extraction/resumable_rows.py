"""The rows of an extraction: the missing ones are computed and kept at once, so that it can be stopped at any time."""

import dataclasses
from typing import Any

import numpy as np

from pipeline.cli.options import Common
from pipeline.errors import BadInput
from pipeline.network.batches import CHANGED_PIXELS, TileSource
from pipeline.network.engines import Engine
from pipeline.network.extraction.forward import embed_batches
from pipeline.network.model_file import Model
from pipeline.runtime.console import log
from pipeline.runtime.process import n_ranks
from pipeline.runtime.progress import progress
from pipeline.runtime.signals import StopRequest
from pipeline.storage import environment
from pipeline.storage.embeddings.partial_rows import PartialRows
from pipeline.storage.embeddings.reader import CHANGED, OK, UNREADABLE


def attributes(model: Model, engine: Engine, *, model_sha256: str, manifest_sha256: str) -> dict[str, Any]:
    """Return what an embeddings file says of how its rows were made.

    Args:
        model: network, and what its input is.
        engine: that computed the rows.
        model_sha256: of the model's file.
        manifest_sha256: of the list of tiles: the manifest, or the grid of a slide.
    """
    return {
        "classes": model.classes,
        "preprocess": dataclasses.asdict(model.preprocess),
        "model_sha256": model_sha256,
        "manifest_sha256": manifest_sha256,
        "versions": environment.versions() | dict(engine.versions),
        "engine": engine.name,
        "precision": engine.precision,
        "views": engine.views,
    }


def status_of(problem: str) -> int:
    """Return the code for /status of what a `TileSource` says of a tile."""
    if not problem:
        return OK
    return CHANGED if problem.endswith(CHANGED_PIXELS) else UNREADABLE


def look_again(scratch: PartialRows, tiles: TileSource) -> tuple[int, dict[int, str]]:
    """Read the tiles again that an earlier run could not use; rows from the first other outcome on are cut off.

    Returns:
        The number of rows that stand, and row -> problem for those among them without features.
    """
    start, skipped = 0, dict[int, str]()
    for block in scratch.blocks():
        for offset in np.flatnonzero(block["status"] != OK):
            row = start + int(offset)
            _, _, _, problem = tiles[row]
            if status_of(problem) != block["status"][offset]:
                kept = scratch.cut(row)
                return kept, {row: problem for row, problem in skipped.items() if row < kept}
            skipped[row] = problem
        start += len(block)
    return start, skipped


def check_share(skipped: dict[int, str], tiles: TileSource, max_bad: float, *, of: int) -> None:
    """Stop when more tiles cannot be used than `max_bad` allows of all tiles, of which these may be some.

    Raises:
        BadInput: names the first of them.
    """
    if len(skipped) > max_bad * of:
        raise BadInput(
            f"{tiles.place}: {len(skipped)} of {of} tiles or more cannot be used, above --max-bad {max_bad:g} "
            f"(the rows so far are kept); the first: {skipped[min(skipped)]}"
        )


def fill(
    scratch: PartialRows, engine: Engine, tiles: TileSource, common: Common, *, workers: int, of: int | None = None
) -> dict[int, str]:
    """Append the missing rows to the scratch, which is open; return row -> problem of the tiles that could not be used.

    Args:
        scratch: of the extraction.
        engine: that computes the rows.
        tiles: that get a row each.
        common: how many may be bad.
        workers: decoding processes.
        of: number of all tiles, where these are a shard: what may be bad is a share of all.

    Raises:
        Interrupted: SIGINT or SIGTERM; the rows so far are kept.
        BadInput: too many tiles cannot be used; the rows so far are kept.
        WorkerLost: a process that decodes tiles died; likewise.
    """
    done, skipped = look_again(scratch, tiles)
    if done:
        log.info(f"extract: continuing after row {done} of {len(tiles)}")
    check_share(skipped, tiles, common.max_bad, of=of or len(tiles))
    with (
        StopRequest(echoes=n_ranks() > 1) as stop,
        progress(len(tiles), unit="tile", label="extract", done=done) as bar,
    ):
        for batch, features, logits in embed_batches(engine, tiles, first=done, workers=workers):
            rows = np.zeros(len(batch.rows), scratch.row)
            rows["features"], rows["logits"], rows["sha256"] = features, logits, batch.sha256
            for i, problem in enumerate(batch.problems):
                rows["status"][i] = status_of(problem)
                if problem:
                    skipped[batch.rows[i]] = problem
            scratch.append(rows)
            bar.update(len(rows))
            check_share(skipped, tiles, common.max_bad, of=of or len(tiles))
            if stop.signum:
                raise stop.interrupted(f"{batch.rows[-1] + 1} of {len(tiles)} rows are kept")
    return skipped
