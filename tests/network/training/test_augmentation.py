"""What happens to a tile hangs on its own numbers, and is what its source says."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional
from torchvision.transforms.v2 import functional as theirs

from pipeline.network.orientation import orient
from pipeline.network.training import augmentation
from pipeline.network.training.augmentation import augment, draw, mix, move_each, orient_each
from pipeline.network.training.recipe import RECIPES, Recipe, recipe_for
from pipeline.tiles.corruptions import STAIN, stain_change

FLIPS = Recipe(tile_px=16, epochs=1)
EIGHT = Recipe(tile_px=16, epochs=1, orientations="eight")
STRONG = recipe_for("strong", tile_side=150, colour_share=1.0)


def noise(n: int = 8, px: int = 40) -> torch.Tensor:
    """Return (n, 3, px, px) uint8, channels_last."""
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (n, px, px, 3), dtype=torch.uint8, generator=generator).permute(0, 3, 1, 2)


def floats(n: int = 4, px: int = 40) -> torch.Tensor:
    """Return (n, 3, px, px) float32, 0..255."""
    return noise(n, px).to(torch.float32).contiguous()


def test_what_is_drawn_depends_on_the_seed_alone() -> None:
    first = draw((0, 1, 2), 64)
    torch.manual_seed(99)
    np.random.default_rng(99).random(5)
    assert np.array_equal(first, draw((0, 1, 2), 64))
    for other in ((1, 1, 2), (0, 2, 2), (0, 1, 3)):
        assert not np.array_equal(first, draw(other, 64))


def test_the_eight_orientations_are_those_of_a_square() -> None:
    tile = np.arange(3 * 4 * 4).reshape(3, 4, 4)
    expected = {np.rot90(side, k, axes=(1, 2)).tobytes() for k in range(4) for side in (tile, np.flip(tile, axis=2))}
    found = [orient(torch.from_numpy(tile)[None], view)[0].contiguous().numpy() for view in range(8)]
    assert {view.tobytes() for view in found} == expected
    assert np.array_equal(found[0], tile)


@pytest.mark.parametrize(("recipe", "n_ways"), [(FLIPS, 4), (EIGHT, 8)])
def test_each_tile_is_turned_as_a_whole_in_all_ways(recipe: Recipe, n_ways: int) -> None:
    tile = torch.arange(3 * 4 * 4, dtype=torch.uint8).view(3, 4, 4)
    seen = augment(tile.expand(128, 3, 4, 4), recipe, draw((0, 0, 0), 128), side=4)
    ways = [orient(tile[None], view)[0] for view in range(8)]
    found = [next(i for i, way in enumerate(ways) if torch.equal(one, way)) for one in seen]
    counts = np.bincount(found, minlength=n_ways)
    assert len(counts) == n_ways
    assert (counts > 5).all(), counts
    assert seen.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("n_coins", [2, 3])
def test_each_tile_goes_by_its_own_coins(n_coins: int) -> None:
    pixels, coins = noise(19), np.random.default_rng(4).random((n_coins, 19)) < 0.5
    ways = (1 << np.arange(n_coins)) @ coins
    expected = [orient(one[None], int(way)) for one, way in zip(pixels, ways, strict=True)]
    assert torch.equal(orient_each(pixels, coins), torch.cat(expected))


@pytest.mark.parametrize("recipe", [FLIPS, EIGHT, STRONG])
@pytest.mark.parametrize("side", [40, 27])
def test_a_batch_is_its_tiles_one_by_one(recipe: Recipe, side: int) -> None:
    """No tile hangs on the others of its batch, nor on how many they are."""
    pixels, numbers = noise(24), draw((3, 0, 7), 24)
    batch = augment(pixels, recipe, numbers, side=side)
    alone = [augment(pixels[i : i + 1], recipe, numbers[:, i : i + 1], side=side) for i in range(24)]
    apart = (batch.int() - torch.cat(alone).int()).abs()
    # to the bit on the chips tried; a library may sum in another order for a batch of one, and 0.5 round elsewhere
    assert apart.max() <= 1
    assert (apart > 0).double().mean() < 1e-3
    assert (batch.dtype, batch.shape) == (torch.uint8, (24, 3, side, side))
    assert batch.is_contiguous(memory_format=torch.channels_last)


def test_the_memory_layout_of_the_tiles_changes_nothing() -> None:
    pixels, numbers = noise(), draw((0, 0, 0), 8)
    assert torch.equal(
        augment(pixels, STRONG, numbers, side=32), augment(pixels.contiguous(), STRONG, numbers, side=32)
    )


@pytest.mark.parametrize(
    ("switch", "value"),
    [
        ("shift", 0.1),
        ("zoom", 0.1),
        ("stain_scale", 0.3),
        ("stain_shift", 0.05),
        ("colour_jitter", 0.2),
        ("blur", 0.05),
        ("low_resolution", 0.5),
    ],
)
def test_each_switch_alone_changes_tiles_and_its_own_rows_only(switch: str, value: float) -> None:
    pixels, numbers = noise(40), draw((0, 0, 0), 40)
    plain = augment(pixels, EIGHT, numbers, side=40)
    other = augment(pixels, dataclasses.replace(EIGHT, **{switch: value}), numbers, side=40)
    is_other = (plain != other).flatten(1).any(dim=1).numpy()
    expected = {"blur": numbers[12] < 0.5, "low_resolution": numbers[13] < 0.25}.get(switch, np.ones(40, bool))
    assert not (is_other & ~expected).any()
    assert is_other.sum() > 0.8 * expected.sum() > 0  # the weakest blur rounds to nothing


def test_each_tile_moves_by_its_own_shift_and_zoom() -> None:
    x = floats(3, px=20)
    shift, zoom = np.array([[0.1, 0.0, 0.0], [0.0, -0.2, 0.0]]), np.array([1.0, 1.0, 2.0])
    moved = move_each(x, shift, zoom)
    torch.testing.assert_close(moved[0, :, :, 2:], x[0, :, :, :-2], atol=0.01, rtol=1e-4)  # 2 px to the right
    torch.testing.assert_close(moved[0, :, :, :2], x[0, :, :, :2].flip(2), atol=0.01, rtol=1e-4)  # mirrored
    torch.testing.assert_close(moved[1, :, :-4], x[1, :, 4:], atol=0.01, rtol=1e-4)  # 4 px up
    theirs_zoomed = functional.interpolate(x[2:, :, 5:15, 5:15], scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(moved[2:, :, 1:-1, 1:-1], theirs_zoomed[:, :, 1:-1, 1:-1], atol=0.01, rtol=1e-4)


def test_no_shift_and_no_zoom_give_the_tile() -> None:
    x = floats()
    torch.testing.assert_close(move_each(x, np.zeros((2, 4)), np.ones(4)), x, atol=0.01, rtol=1e-4)
    assert move_each(x[:0], np.zeros((2, 0)), np.ones(0)).shape == (0, *x.shape[1:])


def test_stains_are_those_of_the_robustness_test() -> None:
    x = floats()
    ours = augmentation.vary_stain(x.clone(), np.tile(np.array(STAIN)[:, None], (1, 4)), np.zeros((3, 4)))
    for i in range(4):
        expected = stain_change(x[i].permute(1, 2, 0).numpy().astype(np.uint8))
        got = ours[i].permute(1, 2, 0).round().clamp(0, 255).numpy()
        assert np.abs(got - expected).max() <= 1


def test_stains_as_they_are_give_the_tile() -> None:
    x = floats().clamp(min=1)
    torch.testing.assert_close(
        augmentation.vary_stain(x.clone(), np.ones((3, 4)), np.zeros((3, 4))), x, rtol=0, atol=2e-2
    )


def test_a_shift_of_a_stain_darkens_white_by_its_own_colour() -> None:
    """A tenth of decadic density of haematoxylin, whose vector is (0.65, 0.70, 0.29)."""
    white = torch.full((1, 3, 2, 2), 255.0)
    got = augmentation.vary_stain(white, np.ones((3, 1)), np.array([[0.1], [0.0], [0.0]]))[0, :, 0, 0]
    expected = 255 * 10 ** (-0.1 * np.array([0.65, 0.70, 0.29]))
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-4)


@pytest.mark.parametrize("factors", [(1.2, 1, 1), (1, 0.8, 1), (1, 1, 1.2), (0.8, 1.1, 0.9)])
def test_colours_are_torchvisions(factors: tuple[float, float, float]) -> None:
    x = floats().mul(0.5).add(60)  # nothing is cut off in between
    got = augmentation.vary_colour(x, np.tile(np.array(factors)[:, None], (1, 4)))
    brightness, contrast, saturation = factors
    expected = theirs.adjust_brightness(x / 255, brightness)
    expected = theirs.adjust_contrast(expected, contrast)
    expected = theirs.adjust_saturation(expected, saturation) * 255
    torch.testing.assert_close(got.clamp(0, 255), expected, rtol=0, atol=0.1)  # its grey has coefficients of 4 digits


def test_blur_is_a_gaussian_for_each_tile() -> None:
    x = floats(3)
    strength = np.array([0.2, 0.6, 1.0])
    got = augmentation.blur_each(x, share=0.05, strength=strength)  # sigma of 2 px at most
    for i in range(3):
        expected = ndimage.gaussian_filter(
            x[i].numpy().astype(np.float64), (0, 2 * strength[i], 2 * strength[i]), mode="mirror", radius=(0, 6, 6)
        )
        np.testing.assert_allclose(got[i].numpy(), expected, atol=1e-2)


def test_no_blur_gives_the_tile() -> None:
    x = floats(1)
    torch.testing.assert_close(augmentation.blur_each(x, share=0.05, strength=np.zeros(1)), x)


def test_a_coarse_tile_is_smaller_in_between() -> None:
    x = floats(2)
    small = functional.interpolate(x, size=(20, 20), mode="bilinear", antialias=True)
    got = augmentation.reduce_resolution(x, share=0.5)
    assert got.shape == x.shape
    assert torch.equal(got, functional.interpolate(small, size=(40, 40), mode="bilinear"))


@pytest.mark.parametrize("way", ["mixup", "cutmix"])
def test_mixing_takes_each_tiles_neighbour_and_says_how_much(way: str) -> None:
    black_and_white = torch.tensor([0, 255] * 4, dtype=torch.uint8).view(8, 1, 1, 1).expand(8, 3, 40, 40)
    recipe = Recipe(tile_px=40, epochs=1, **{way: 1.0})  # type: ignore[arg-type]
    shares = []
    for step in range(20):
        mixed, own = mix(black_and_white, recipe, seed=(0, 0, step))
        shares.append(own)
        assert mixed.dtype == torch.uint8
        means = mixed.double().mean(dim=(1, 2, 3)) / 255
        expected = torch.tensor([1 - own, own] * 4, dtype=torch.float64)
        torch.testing.assert_close(means, expected, rtol=0, atol=3e-3)
    assert 0.2 < np.mean(shares) < 0.8
    assert len(set(shares)) > 10
    again, own = mix(black_and_white, recipe, seed=(0, 0, 19))
    assert torch.equal(again, mixed)
    assert own == shares[-1]


def test_nothing_is_mixed_unless_asked() -> None:
    pixels = noise()
    same, own = mix(pixels, STRONG, seed=(0, 0, 0))
    assert same is pixels
    assert own == 1


def test_both_ways_of_mixing_take_turns() -> None:
    recipe = Recipe(tile_px=40, epochs=1, mixup=1.0, cutmix=1.0)
    tiles = torch.tensor([0, 255] * 4, dtype=torch.uint8).view(8, 1, 1, 1).expand(8, 3, 40, 40)
    greys = [len(mix(tiles, recipe, seed=(0, 0, step))[0][0].unique()) for step in range(30)]
    assert {1, 2} <= set(greys)  # mixup gives one grey, CutMix patches


def test_the_input_grows_to_the_tiles_side() -> None:
    assert [STRONG.side(epoch) for epoch in (0, 6, 7, 13, 14, 19)] == [96, 96, 128, 128, 150, 150]
    assert STRONG.sides() == [96, 128, 150]
    assert RECIPES["tutorial"].sides() == [150]
    assert sum(STRONG.side(epoch) ** 2 for epoch in range(20)) < 15 * 150**2, "no more pixels than the tutorial's"


def test_the_changes_grow_with_the_training() -> None:
    strong = dataclasses.replace(STRONG, grow_over=0.5)
    names = ("stain_scale", "stain_shift", "colour_jitter", "blur", "low_resolution")
    begun, half, grown = ([getattr(strong.at(progress), name) for name in names] for progress in (0, 0.25, 0.5))
    assert begun == [0, 0, 0, 0, 1]
    assert half == [0.1, 0.025, 0.05, 0.0025, 0.875]
    assert grown == [getattr(STRONG, name) for name in names]
    assert strong.at(0.9) == strong, "and stay there"
    assert dataclasses.replace(strong.at(0.25), **{name: getattr(strong, name) for name in names}) == strong
    full = dataclasses.replace(STRONG, grow_over=0.0)
    assert full.at(0) == full
