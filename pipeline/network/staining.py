"""The stain that a network's tiles are normalised to, fitted on training tiles alone (P7)."""

from pipeline.errors import BadInput
from pipeline.network.batches import TileFiles
from pipeline.network.engines.samples import decoded, spread
from pipeline.tiles.stain import KINDS, Method, Stain

N_FITTED = 512
"""Training tiles that the target is fitted on, evenly spread over the manifest: their medians no longer move much."""


def fit_stain(method: Method, tiles: TileFiles) -> Stain:
    """Return the target of the training tiles: that of the median one.

    Args:
        method: of normalisation.
        tiles: the training tiles, not normalised.

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
    return found
