"""Predict tiles with saved heads: the network embeds batch by batch, the heads predict block by block."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from pipeline.heads.rows import EMBEDDINGS
from pipeline.inference.embeddings import concatenated
from pipeline.inference.pixel_features import describe_tiles, pixel_preprocess
from pipeline.inference.saved_heads import SavedHeads
from pipeline.network.engines import Engine
from pipeline.network.extraction.forward import embed_batches
from pipeline.network.preprocess import Preprocess
from pipeline.network.tile_files import TileFiles
from pipeline.runtime.progress import progress
from pipeline.runtime.signals import StopRequest
from pipeline.storage.embeddings.relative_features import group_codes, sums_of
from pipeline.storage.predictions.csv_table import HeadOutput

BLOCK_ROWS = 1024
"""Tiles whose features are in memory at once."""


class TrainedNetwork(NamedTuple):
    """A network, ready to run, and what makes its input."""

    engine: Engine
    preprocess: Preprocess


def predict_tiles(
    saved: SavedHeads,
    network: TrainedNetwork | None,
    prepared: Callable[[Preprocess], TileFiles],
    *,
    device: torch.device,
    workers: int,
    max_bad: float,
    label: str,
    groups: Sequence[str] | None = None,
) -> tuple[dict[str, HeadOutput], dict[int, str]]:
    """Return each head's output for N tiles, and row -> problem of unreadable tiles, whose output has no meaning.

    Where features are relative to groups, all embeddings are kept until the last tile is embedded.

    Args:
        saved: the heads.
        network: the one that the heads were fitted on; None: no head takes embeddings.
        prepared: returns the N tiles with a preprocessing, their colours normalised if it has a target.
        device: runs the untrained network.
        workers: decoding processes.
        max_bad: largest share of tiles that cannot be read.
        label: of the progress bar.
        groups: of each tile, where features are relative to groups; None: all tiles are one group.

    Raises:
        BadInput: too many tiles cannot be read; names the first.
        Interrupted: SIGINT or SIGTERM; nothing is kept.
    """
    described: dict[str, np.ndarray] = {}
    skipped: dict[int, str] = {}
    if saved.described is not None:
        described, skipped = describe_tiles(
            saved, prepared(pixel_preprocess(saved)), device=device, workers=workers, max_bad=max_bad, label=label
        )
    if network is None:
        return saved.predict(described, centre=_centre_of_groups(saved, described, groups, skipped)), skipped
    tiles = prepared(network.preprocess)
    blocks: list[dict[str, HeadOutput]] = []
    features: list[np.ndarray] = []
    logits: list[np.ndarray] = []
    done = 0

    def predict_block() -> None:
        nonlocal done
        part = slice(done, done + sum(map(len, logits)))
        found = {name: matrix[part] for name, matrix in described.items()} | {EMBEDDINGS: np.concatenate(features)}
        blocks.append(saved.predict(found, np.concatenate(logits), _centre_of_groups(saved, found, groups, skipped)))
        done = part.stop
        features.clear()
        logits.clear()

    with StopRequest() as stop, progress(len(tiles), unit="tile", label=label) as bar:
        for batch, batch_features, batch_logits in embed_batches(network.engine, tiles, first=0, workers=workers):
            # the precision that heads were fitted on
            features.append(batch_features.astype(saved.dtype).astype(np.float32))
            logits.append(batch_logits)
            skipped |= {row: text for row, text in zip(batch.rows, batch.problems, strict=True) if text}
            tiles.check_share(skipped, max_bad=max_bad)
            bar.update(len(batch.rows))
            if stop.signum:
                raise stop.interrupted("nothing was written")
            if not saved.means and sum(map(len, logits)) >= BLOCK_ROWS:
                predict_block()
    if logits:
        predict_block()
    return concatenated(blocks, saved), skipped


def _centre_of_groups(
    saved: SavedHeads, features: Mapping[str, np.ndarray], groups: Sequence[str] | None, skipped: Collection[int]
) -> dict[str, np.ndarray]:
    """Return feature set -> the centre (N, D) of each tile's group, without tiles that cannot be read.

    Only feature sets that are relative to groups are in it.
    """
    found = {}
    for name in saved.feature_sets & saved.means.keys():
        readable = np.ones(len(features[name]))
        readable[list(skipped)] = 0
        code, _ = group_codes(np.array(groups if groups is not None else [""] * len(readable)))
        counts = np.bincount(code, weights=readable)
        sums = sums_of([features[name] * readable[:, None]], code, len(counts))
        found[name] = saved.centre_of(name, sums, counts)[code]
    return found
