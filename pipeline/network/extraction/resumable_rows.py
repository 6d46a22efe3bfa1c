"""Compute the missing rows of an extraction and append each batch at once, so that it can stop at any time."""

import numpy as np

from pipeline.network.engines import Engine
from pipeline.network.extraction.forward import embed_batches
from pipeline.network.tile_files import CHANGED_PIXELS, TileSource
from pipeline.runtime.console import log
from pipeline.runtime.process import n_ranks
from pipeline.runtime.progress import progress
from pipeline.runtime.signals import StopRequest
from pipeline.storage.embeddings.partial_rows import PartialRows
from pipeline.storage.embeddings.reader import CHANGED, OK, UNREADABLE


def embed_missing_rows(
    partial: PartialRows, engine: Engine, tiles: TileSource, *, workers: int, max_bad: float, n_tiles: int
) -> dict[int, str]:
    """Append the missing rows to open partial rows; return row -> problem of the tiles that could not be used.

    Args:
        partial: the rows so far.
        engine: computes the rows.
        tiles: get a row each.
        workers: decoding processes.
        max_bad: largest share of all tiles that cannot be used.
        n_tiles: number of all tiles; more than `tiles` if these are a shard.

    Raises:
        Interrupted: SIGINT or SIGTERM; the rows so far are kept.
        BadInput: too many tiles cannot be used; the rows so far are kept.
        WorkerLost: a process that decodes tiles died; the rows so far are kept.
    """
    done, skipped = read_problems_again(partial, tiles)
    if done:
        log.info(f"extract: continuing after row {done} of {len(tiles)}")
    tiles.check_share(skipped, max_bad=max_bad, n_tiles=n_tiles, note=" (the rows so far are kept)")
    with (
        StopRequest(echoes=n_ranks() > 1) as stop,
        progress(len(tiles), unit="tile", label="extract", done=done) as bar,
    ):
        for batch, features, logits in embed_batches(engine, tiles, first=done, workers=workers):
            rows = np.zeros(len(batch.rows), partial.row)
            rows["features"], rows["logits"], rows["sha256"] = features, logits, batch.sha256
            for i, problem in enumerate(batch.problems):
                rows["status"][i] = status_of(problem)
                if problem:
                    skipped[batch.rows[i]] = problem
            partial.append(rows)
            bar.update(len(rows))
            tiles.check_share(skipped, max_bad=max_bad, n_tiles=n_tiles, note=" (the rows so far are kept)")
            if stop.signum:
                raise stop.interrupted(f"{batch.rows[-1] + 1} of {len(tiles)} rows are kept")
    return skipped


def read_problems_again(partial: PartialRows, tiles: TileSource) -> tuple[int, dict[int, str]]:
    """Read the tiles again that an earlier run could not use; drop the rows from the first changed outcome on.

    Returns:
        The number of rows that are kept, and row -> problem for those without features.
    """
    start, skipped = 0, dict[int, str]()
    for block in partial.blocks():
        for offset in np.flatnonzero(block["status"] != OK):
            row = start + int(offset)
            _, _, _, problem = tiles[row]
            if status_of(problem) != block["status"][offset]:
                kept = partial.cut(row)
                return kept, {row: problem for row, problem in skipped.items() if row < kept}
            skipped[row] = problem
        start += len(block)
    return start, skipped


def status_of(problem: str) -> int:
    """Return the code for /status of the problem of a tile."""
    if not problem:
        return OK
    return CHANGED if problem.endswith(CHANGED_PIXELS) else UNREADABLE
