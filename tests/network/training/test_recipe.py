"""The recipe is the only home of its switches: the command line, the checks and the model's description follow it."""

import dataclasses

import pytest

from pipeline.cli.help_groups import help_texts
from pipeline.errors import UsageError
from pipeline.network.training.recipe import RECIPES, SCANNERS, Recipe, given_switches, recipe_for, switches
from pipeline.train import TrainOptions


def test_every_switch_is_an_option_with_its_help() -> None:
    names = {field.name for field in dataclasses.fields(Recipe)}
    assert set(switches()) == names <= {field.name for field in dataclasses.fields(TrainOptions)}
    texts = help_texts(TrainOptions)
    assert {name: texts[name] for name in names} == help_texts(Recipe)
    assert all(help_texts(Recipe)[name] for name in names)


def test_options_set_only_the_switches_that_are_given() -> None:
    assert given_switches(TrainOptions()) == {}
    options = TrainOptions(ema=0.5, progressive=(0.5, 1.0))
    assert given_switches(options) == {"ema": 0.5, "progressive": (0.5, 1.0)}


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, bounds.least - 1) for name, bounds in switches().items() if bounds is not None]
    + [(name, bounds.most + 1) for name, bounds in switches().items() if bounds is not None and bounds.most < 1e9]
    + [("low_resolution", float("nan")), ("progressive", ()), ("progressive", (1.0, 2.0))],
)
def test_a_value_out_of_bounds_is_refused_by_recipes_and_options(name: str, value: object) -> None:
    flag = "--" + name.replace("_", "-")
    with pytest.raises(UsageError, match=f"^{flag}"):
        dataclasses.replace(RECIPES["strong"], **{name: value})
    with pytest.raises(UsageError, match=f"^{flag}"):
        TrainOptions(**{name: value})  # type: ignore[arg-type]


def test_bounds_belong_to_the_switch() -> None:
    for name, bounds in switches().items():
        if bounds is not None:
            value = (bounds.least,) if name == "progressive" else bounds.least
            dataclasses.replace(RECIPES["tutorial"], **{name: value})


@pytest.mark.parametrize("share", [None, 0.5, 0.9])
def test_strong_changes_colours_where_sources_differ_or_are_unknown(share: float | None) -> None:
    recipe = recipe_for("strong", tile_side=150, colour_share=share)
    assert recipe == dataclasses.replace(RECIPES["strong"], **SCANNERS)  # type: ignore[arg-type]
    assert min(recipe.stain_scale, recipe.stain_shift, recipe.colour_jitter, recipe.blur) > 0


def test_strong_changes_no_colours_where_sources_are_alike() -> None:
    recipe = recipe_for("strong", tile_side=150, colour_share=0.49)
    assert recipe == RECIPES["strong"]
    assert recipe.stain_scale == recipe.stain_shift == recipe.colour_jitter == recipe.blur == 0
    assert recipe.low_resolution == 1


@pytest.mark.parametrize(("side", "sides"), [(50, [64]), (64, [64]), (65, [96, 128, 150])])
def test_small_tiles_become_a_small_input(side: int, sides: list[int]) -> None:
    assert recipe_for("strong", tile_side=side, colour_share=0).sides() == sides


def test_tutorial_follows_no_tiles() -> None:
    assert recipe_for("tutorial", tile_side=50, colour_share=None) == RECIPES["tutorial"]
