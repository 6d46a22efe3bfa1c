"""How a network is trained: the recipes by name."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is trained."""

    tile_px: int
    epochs: int
    batch_size: int = 32
    lr: float = 1e-3
    """Of Adam."""
    lr_step: int = 7
    """Epochs between drops of the learning rate."""
    lr_gamma: float = 0.1
    """Factor of each drop."""


RECIPES = {
    "tutorial": Recipe(tile_px=150, epochs=15),
    "quick": Recipe(tile_px=96, epochs=8, lr_step=5),
}
"""tutorial: Adam 1e-3, StepLR x0.1 every 7 epochs, 15 epochs, flips, 150 px. quick: minutes on two cores (demo)."""
