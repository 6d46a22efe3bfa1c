"""The stain that a network's tiles are normalised to, fitted on training tiles alone (P7)."""

import dataclasses
import json

from pipeline.errors import BadInput
from pipeline.network.batches import TileFiles, decoded, spread
from pipeline.network.distributed import Ranks
from pipeline.tiles.stain_normalisation import KINDS, Method, Stain, stain_of

N_FITTED = 512
"""Training tiles that the target is fitted on, evenly spread over the manifest: their medians no longer move much."""


def fit_stain(method: Method, tiles: TileFiles, ranks: Ranks) -> Stain | None:
    """Return the target of the training tiles: that of the median one.

    Of several processes, whose machines may round differently, the first one's holds for all.

    Args:
        method: of normalisation.
        tiles: the training tiles, not normalised.
        ranks: the processes of the training.

    Raises:
        BadInput: none of them shows what the method needs.
    """
    pixels = decoded(tiles, spread(range(len(tiles)), N_FITTED))
    found = KINDS[method].fit(tile.permute(1, 2, 0).numpy() for tile in pixels)
    if found is None:
        raise BadInput(
            f"--stain {method}: none of {len(pixels)} training tiles in {tiles.root} shows enough stained tissue to "
            "fit a target on: train with --stain none"
        )
    return stain_of(json.loads(ranks.broadcast_from_first(json.dumps(dataclasses.asdict(found)))))
