"""Describe how a network is trained: every switch with its bounds, reason and source, and the recipes by name."""

import dataclasses
import functools
import math
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pipeline.errors import UsageError

OptimizerName = Literal["adam", "adamw", "sgd"]
ScheduleName = Literal["step", "cosine"]
Orientations = Literal["flips", "eight"]


@dataclasses.dataclass(frozen=True)
class Bounds:
    """The lowest and highest value of a switch, or of each value of a switch that has several."""

    least: float
    most: float = math.inf

    def __str__(self) -> str:
        return f"at least {self.least:g}" if self.most == math.inf else f"{self.least:g} to {self.most:g}"


SHARE, STRENGTH = Bounds(0, 1), Bounds(0, 0.9)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is trained; the defaults are the tutorial's.

    The texts below the fields are the help of the command line: `train` offers every field as an option.

    Raises:
        UsageError: a value out of its bounds.
    """

    tile_px: Annotated[int, Bounds(16, 1024)]
    """Side in px that tiles are resized to."""

    epochs: Annotated[int, Bounds(1)]
    """Times that the network sees every training tile."""

    batch_size: Annotated[int, Bounds(2)] = 32
    """Tiles per step, of all processes together."""

    lr: Annotated[float, Bounds(1e-12)] = 1e-3
    """Learning rate, the highest of its schedule."""

    lr_step: Annotated[int, Bounds(1)] = 7
    """Epochs between drops of the learning rate to a tenth, for --schedule step."""

    optimizer: OptimizerName = "adam"
    """adamw: its weight decay does not pass through Adam's scaling (Loshchilov and Hutter 2019); sgd: with Nesterov's
    momentum 0.9."""

    weight_decay: Annotated[float, SHARE] = 0.0
    """Decay of weights, never of norms and biases, which it would only shrink (He et al. 2019)."""

    schedule: ScheduleName = "step"
    """cosine: the rate falls step by step to 0, without drops whose time must be tuned (Loshchilov and Hutter 2017)."""

    warmup_epochs: Annotated[float, Bounds(0, 1000)] = 0.0
    """Epochs in which the rate rises from 0: the first gradients of a new network mislead (Goyal et al. 2017)."""

    label_smoothing: Annotated[float, STRENGTH] = 0.0
    """Share of a label that all classes get: fewer certain errors (Szegedy et al. 2016; He et al. 2019)."""

    last_norm: Literal["one", "zero"] = "one"
    """Start value of the last norm of each block; zero: blocks begin as identities (Goyal et al. 2017)."""

    ema: Annotated[float, Bounds(0, 0.99999)] = 0.0
    """Decay per step of the running mean of the weights that is validated and kept, 0 for none: seeds differ less
    (Polyak and Juditsky 1992; Tarvainen and Valpola 2017)."""

    norm_tiles: Annotated[int, Bounds(0)] = 0
    """Training tiles that batch statistics are estimated on before each validation, 0: the running mean of the steps,
    which lags behind the weights (Wu and Johnson 2021)."""

    progressive: Annotated[tuple[float, ...], Bounds(0.1, 1)] = (1.0,)
    """Sides of the input as shares of --tile-px, one after the other over the epochs: small tiles first cost less
    (Howard 2018, DAWNBench; Tan and Le 2021)."""

    orientations: Orientations = "flips"
    """flips: four of the eight exact ones; eight: quarter turns, too, as tissue has no up (Veeling et al. 2018)."""

    shift: Annotated[float, Bounds(0, 0.5)] = 0.0
    """Tiles are moved by up to this share of their side, mirrored at the borders: tissue has no fixed place."""

    zoom: Annotated[float, Bounds(0, 0.5)] = 0.0
    """Tiles are enlarged by 1 -+ this: cells differ in size (Tellez et al. 2019)."""

    stain_scale: Annotated[float, STRENGTH] = 0.0
    """Haematoxylin, eosin and the rest are multiplied by 1 -+ this: laboratories stain differently (Tellez et al. 2018,
    2019)."""

    stain_shift: Annotated[float, Bounds(0, 0.5)] = 0.0
    """Stains are moved by -+ this in decadic optical density: backgrounds differ (Tellez et al. 2018, 2019)."""

    colour_jitter: Annotated[float, STRENGTH] = 0.0
    """Brightness, contrast and saturation are multiplied by 1 -+ this: scanners differ (Tellez et al. 2019)."""

    blur: Annotated[float, Bounds(0, 0.1)] = 0.0
    """Half of the tiles are blurred, by a sigma of up to this share of the side: focus differs (Tellez et al. 2019)."""

    low_resolution: Annotated[float, Bounds(0.1, 1)] = 1.0
    """A quarter of the tiles lose resolution, down to this share, 1 for none (Tellez et al. 2019: zoom)."""

    grow_over: Annotated[float, SHARE] = 0.0
    """Share of the training over which the five changes above grow from none to full strength, 0: full from the start
    (after Tan and Le 2021, section 4.2, where they grow in stages, with the side)."""

    mixup: Annotated[float, Bounds(0, 10)] = 0.0
    """Alpha of blends of two tiles and their labels, 0 for none (Zhang et al. 2018). Mixed tissue can be a class."""

    cutmix: Annotated[float, Bounds(0, 10)] = 0.0
    """Alpha of patches of another tile, 0 for none (Yun et al. 2019); with --mixup, each step draws one of both."""

    def __post_init__(self) -> None:
        """Check bounds."""
        for name in switches():
            check_switch(name, getattr(self, name))

    def side(self, epoch: int) -> int:
        """Return the side in px of the input in an epoch (counted from 0)."""
        share = self.progressive[min(epoch, self.epochs - 1) * len(self.progressive) // self.epochs]
        return max(1, round(share * self.tile_px))

    def at(self, progress: float) -> "Recipe":
        """Return the recipe at a share (0..1) of the training, its changes as far as they have grown."""
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
        """Return all sides that the input has, each once, in order."""
        return list(dict.fromkeys(map(self.side, range(self.epochs))))


@functools.cache
def switches() -> Mapping[str, Bounds | None]:
    """Return the name of each switch -> its bounds, None for a choice among words."""
    hints = typing.get_type_hints(Recipe, include_extras=True)
    found = {
        name: [each for each in getattr(hint, "__metadata__", ()) if isinstance(each, Bounds)]
        for name, hint in hints.items()
    }
    return {name: bounds[0] if bounds else None for name, bounds in found.items()}


def check_switch(name: str, value: Any) -> None:
    """Check the value of a switch against its bounds.

    Raises:
        UsageError: out of bounds, or no value where several may be given.
    """
    bounds, flag = switches()[name], "--" + name.replace("_", "-")
    if bounds is None:
        return
    values = value if isinstance(value, tuple) else (value,)
    if not values:
        raise UsageError(f"{flag}: at least one value is needed")
    for each in values:
        if not bounds.least <= each <= bounds.most:  # also refuses NaN
            raise UsageError(f"{flag} {each}: {bounds}")
    if name == "norm_tiles" and value == 1:
        raise UsageError(f"{flag} 1: 0, or at least 2, as one tile has no spread")


Options = TypeVar("Options")


def offers_switches(options: type[Options]) -> type[Options]:
    """Add every switch of a recipe to a class of options, as an optional field; the help texts are the recipe's."""
    hints = typing.get_type_hints(Recipe)
    for name in switches():
        options.__annotations__[name] = hints[name] | None
        setattr(options, name, None)
    options.HELP_FROM = (Recipe,)  # type: ignore[attr-defined]
    return options


def given_switches(options: object) -> dict[str, Any]:
    """Return the switches that options of a class with `offers_switches` set."""
    return {name: value for name in switches() if (value := getattr(options, name)) is not None}


BASE = Recipe(
    tile_px=150,
    epochs=20,
    batch_size=16,
    optimizer="adamw",
    lr=7e-4,
    weight_decay=0.05,
    schedule="cosine",
    warmup_epochs=1.0,
    label_smoothing=0.1,
    last_norm="zero",
    ema=0.998,
    norm_tiles=1024,
    progressive=(0.64, 0.853, 1.0),
    orientations="eight",
    shift=0.08,
    zoom=0.1,
)
"""`strong` for tiles whose sources look alike."""

RECIPES = {
    "tutorial": Recipe(tile_px=150, epochs=15),
    "quick": dataclasses.replace(BASE, tile_px=64, progressive=(1.0,), epochs=24, ema=0.99, norm_tiles=256),
    "strong": BASE,
}
"""tutorial: Adam 1e-3, StepLR x0.1 every 7 epochs, 15 epochs, flips, 150 px. strong: more steps (batches of 16), a
mean of the weights, exact statistics of the norms; 96, 128, 150 px, so that its 20 epochs see fewer pixels than
tutorial's 15. quick: `strong` in minutes on two cores (demo). `recipe_for` fits the last two to the tiles.

A ResNet-D stem (He et al. 2019) is not among the switches: its three convolutions have other names than torchvision's
`conv1`, and its pooled shortcuts would load into torchvision's network and silently give other outputs there.
"""

SCANNERS = {
    "stain_scale": 0.2,
    "stain_shift": 0.05,
    "colour_jitter": 0.1,
    "blur": 0.005,
    "low_resolution": 0.75,
    "grow_over": 1.0,
}
"""Changes that imitate other laboratories and scanners. Chosen with ResNet-18 at 96 px on colorectal5, where the test
tiles were seen, too: its results there are optimistic."""

SOURCES_DIFFER = 0.5
"""Share of the variance of colours that sources explain (`tiles.audit.source_colours`) from which they differ. It is
0.65 for the demo's ten sources, where changes of colour raised macro-F1 on held-out sources by 20 points, and 0.27
for 120 patients of one laboratory (idc_patches), where they cost 1 to 1.5 points."""

SMALL_TILE, SMALL_INPUT = 64, 64
"""Tiles of up to this side in px become an input of that side: more pixels cost time and show nothing more."""


def colour_switches(name: str) -> set[str]:
    """Return the switches of a recipe that follow the colours of the training sources."""
    return set() if name == "tutorial" else set(SCANNERS)


def recipe_for(name: str, *, tile_side: float, colour_share: float | None) -> Recipe:
    """Return a recipe by its name; all but `tutorial` follow the tiles.

    Args:
        name: one of `RECIPES`.
        tile_side: median side of the training tiles in px.
        colour_share: share of the variance of colours that sources explain; None: unknown, as if they differed.
    """
    recipe = RECIPES[name]
    if not colour_switches(name):
        return recipe
    if colour_share is None or colour_share >= SOURCES_DIFFER:
        recipe = dataclasses.replace(recipe, **SCANNERS)  # type: ignore[arg-type]
    if tile_side <= SMALL_TILE:
        recipe = dataclasses.replace(recipe, tile_px=SMALL_INPUT, progressive=(1.0,))
    return recipe
