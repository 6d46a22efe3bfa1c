"""Fit the target of stain normalisation on training tiles only (P7)."""

import dataclasses
import json

from pipeline.errors import BadInput
from pipeline.network.batches import TileFiles, decoded, evenly_spaced
from pipeline.network.distributed import Ranks
from pipeline.tiles.stain_normalisation import KINDS, Method, Stain, stain_of

N_FITTED = 512
"""Training tiles that the target is fitted on, evenly spaced in the manifest; more tiles hardly change the medians."""


def fit_stain(method: Method, tiles: TileFiles, ranks: Ranks) -> Stain | None:
    """Return the target of the training tiles, that of the median tile.

    All processes use the target of the first one, because other machines may round differently.

    Args:
        method: method of normalisation.
        tiles: the training tiles, not normalised.
        ranks: the processes of the training.

    Raises:
        BadInput: no training tile shows enough stained tissue.
    """
    pixels = decoded(tiles, evenly_spaced(range(len(tiles)), N_FITTED))
    found = KINDS[method].fit(tile.permute(1, 2, 0).numpy() for tile in pixels)
    if found is None:
        raise BadInput(
            f"--stain {method}: none of {len(pixels)} training tiles in {tiles.root} shows enough stained tissue to "
            "fit a target on: train with --stain none"
        )
    return stain_of(json.loads(ranks.broadcast_from_first(json.dumps(dataclasses.asdict(found)))))
