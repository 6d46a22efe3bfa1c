"""Stain normalisation recovers what a tile was made of, and leaves alone what it cannot tell."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from skimage.color import lab2rgb, rgb2lab

from pipeline.tiles import stain_normalisation as module
from pipeline.tiles.decoding import decode_tile
from pipeline.tiles.stain_normalisation import KINDS, Macenko, Reinhard, Stain, from_lab, stain_of, to_lab
from pipeline.tiles.synthetic.tiles import render_tile

ONE = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
"""Haematoxylin and eosin of Ruifrok and Johnston 2001."""
OTHER = np.array([[0.50, 0.75, 0.43], [0.20, 0.83, 0.52]])
REAL = Path(__file__).parents[3] / "shared" / "data"


def unit(stains: np.ndarray) -> np.ndarray:
    return stains / np.linalg.norm(stains, axis=1, keepdims=True)


def amounts(side: int = 80, seed: int = 0) -> np.ndarray:
    """Return (side, side, 2): a third of the pixels mostly one stain, a third the other, the rest both or glass."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 4, (side, side, 1))
    both = rng.uniform(0.2, 1.2, (side, side, 2))
    weights = np.array([[1, 0], [0, 1], [1, 1], [0, 0]])[kind[..., 0]]
    return both * weights


def shown(amount: np.ndarray, stains: np.ndarray) -> np.ndarray:
    """Return the picture (H, W, 3) uint8 of amounts (H, W, 2) of stains (2, 3)."""
    return module.as_pixels(255 * np.exp(-amount @ unit(stains)))


def apart(one: np.ndarray, other: np.ndarray) -> float:
    """Return the mean absolute difference of two tiles, of 255."""
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


@pytest.fixture(params=list(KINDS))
def target(request: pytest.FixtureRequest) -> Stain:
    """A target of each method."""
    found = KINDS[request.param].fit([shown(amounts(), OTHER)])
    assert found is not None
    return found


@pytest.mark.parametrize("stains", [ONE, OTHER])
def test_stains_and_strengths_are_recovered(stains: np.ndarray) -> None:
    amount = amounts()
    found = Macenko.estimate(shown(amount, stains))
    assert found is not None
    cosine = (found[0] * unit(stains)).sum(axis=1)
    assert np.degrees(np.arccos(cosine)).max() < 1.5
    tissue = amount[(amount @ unit(stains)).mean(axis=2) >= module.LEAST_DENSITY]
    np.testing.assert_allclose(found[1], np.percentile(tissue, 99, axis=0), rtol=0.04)


def test_tissue_of_one_main_colour_is_no_other() -> None:
    """Amounts of both stains in every pixel: the mean lies far from either, and eosin takes hardly any red."""
    rng = np.random.default_rng(3)
    ratio = rng.uniform(0, 1, (80, 80, 1))
    found = Macenko.estimate(shown(1.2 * np.concatenate([ratio, 1 - ratio], axis=2), ONE))
    assert found is not None
    assert np.degrees(np.arccos((found[0] * unit(ONE)).sum(axis=1))).max() < 1.5


def test_a_tile_is_its_own_target(target: Stain) -> None:
    tile = shown(amounts(), OTHER)
    assert apart(target.apply(tile), tile) < 0.6


def test_normalising_again_changes_little(target: Stain) -> None:
    once = target.apply(shown(amounts(seed=1), ONE))
    assert apart(target.apply(once), once) < 2


def test_the_same_tissue_in_other_stains_comes_out_alike(target: Stain) -> None:
    amount = amounts(seed=2)
    one, other = shown(amount, ONE), shown(amount * [0.6, 1.3], OTHER)
    before, after = apart(one, other), apart(target.apply(one), target.apply(other))
    # Reinhard moves a tile's colours all together: one stain that is stronger and one that is weaker stay so
    assert after < {"macenko": 0.33, "reinhard": 0.8}[target.method] * before, (before, after)


def test_macenko_gives_the_tissue_as_the_target_s_stains_show_it() -> None:
    amount = amounts(seed=2)
    target = Macenko.fit([shown(amount, OTHER)])
    assert target is not None
    assert apart(target.apply(shown(0.7 * amount, ONE)), shown(amount, OTHER)) < 2


def test_reinhard_gives_tissue_the_target_s_mean_and_spread() -> None:
    target = Reinhard((50.0, 30.0, -12.0), (8.0, 5.0, 4.0))
    pixels = shown(amounts(seed=4) * 0.5 + 0.4, ONE)
    lab = rgb2lab(target.apply(pixels)).reshape(-1, 3)
    np.testing.assert_allclose(lab.mean(axis=0), target.mean, atol=0.3)
    np.testing.assert_allclose(lab.std(axis=0), target.std, atol=0.3)


def test_glass_stays_glass(target: Stain) -> None:
    pixels = shown(amounts(), ONE)
    pixels[:40] = 255
    assert (target.apply(pixels)[:40] == 255).all()


def test_the_share_of_glass_decides_nothing(target: Stain) -> None:
    pixels = shown(amounts(seed=5), ONE)
    more = np.concatenate([pixels, np.full((160, 80, 3), 255, np.uint8)])
    assert apart(target.apply(more)[:80], target.apply(pixels)) < 0.01


RNG = np.random.default_rng(6)
UNTOLD = {
    "white": np.full((40, 40, 3), 255, np.uint8),
    "black": np.zeros((40, 40, 3), np.uint8),
    "one colour": np.full((40, 40, 3), (180, 80, 150), np.uint8),
    "grey": np.repeat(RNG.integers(0, 256, (40, 40, 1), dtype=np.uint8), 3, axis=2),
    "glass": RNG.integers(235, 256, (40, 40, 3), dtype=np.uint8),
    "one pixel": np.array([[[180, 80, 150]]], np.uint8),
}


@pytest.mark.parametrize("name", UNTOLD)
def test_what_shows_no_stains_stays_as_it_is(target: Stain, name: str) -> None:
    with np.errstate(all="raise"):
        assert np.array_equal(target.apply(UNTOLD[name]), UNTOLD[name])
        assert KINDS[target.method].fit([UNTOLD[name]]) is None


def test_one_stain_alone_stays_as_it_is() -> None:
    """Macenko would take noise around it for two."""
    target = Macenko.fit([shown(amounts(), OTHER)])
    assert target is not None
    pixels = shown(amounts() * [0, 1], ONE)
    assert np.array_equal(target.apply(pixels), pixels)


def test_too_little_tissue_stays_as_it_is(target: Stain) -> None:
    pixels = np.full((80, 80, 3), 255, np.uint8)
    pixels[:4, :80] = shown(amounts(), ONE)[:4]  # a twentieth, of which a part is glass
    assert np.array_equal(target.apply(pixels), pixels)


@pytest.mark.parametrize("shape", [(1, 2), (3, 3), (20, 60)])
def test_any_pixels_give_pixels(target: Stain, shape: tuple[int, int]) -> None:
    with np.errstate(divide="raise", invalid="raise", over="raise"):
        for seed in range(20):
            pixels = np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)
            got = target.apply(pixels)
            assert (got.dtype, got.shape) == (np.uint8, pixels.shape)


def test_the_target_is_the_median_tile_s() -> None:
    tiles = [shown(amounts(seed=i), ONE) for i in range(3)] + [shown(amounts(), OTHER), UNTOLD["white"]]
    found = Macenko.fit(tiles)
    assert found is not None
    assert np.degrees(np.arccos((np.array(found.stains) * unit(ONE)).sum(axis=1))).max() < 1.5
    assert found == Macenko.fit(tiles)


def test_demo_tiles_of_ten_sources_come_closer(target: Stain) -> None:
    """By class, the mean colour of a source lies nearer to that of the others than before."""
    labels = ("01_TUMOR", "02_STROMA", "04_LYMPHO", "06_MUCOSA")
    tiles = [
        [render_tile(label, source=k, tile_px=64, rng=np.random.default_rng([k, i])) for k in range(1, 11)]
        for i, label in enumerate(labels)
    ]
    fitted = KINDS[target.method].fit([tile for row in tiles for tile in row])
    assert fitted is not None

    def spread(rows: list[list[np.ndarray]]) -> float:
        return float(np.mean([np.std([tile.mean(axis=(0, 1)) for tile in row], axis=0) for row in rows]))

    assert spread([[fitted.apply(tile) for tile in row] for row in tiles]) < 0.7 * spread(tiles)


@pytest.mark.skipif(not REAL.is_dir(), reason="no real tiles here")
def test_real_tiles_come_closer_to_their_target(target: Stain) -> None:
    names = sorted(path for path in (REAL / "nct_crc_he").rglob("*") if path.suffix == ".tif")[::6]
    tiles = [decode_tile(path) for path in names]
    fitted = KINDS[target.method].fit(tiles)
    assert fitted is not None
    once = [fitted.apply(tile) for tile in tiles]
    assert np.median([apart(fitted.apply(tile), tile) for tile in once]) < 5
    assert np.median([apart(new, old) for new, old in zip(once, tiles, strict=True)]) > 4


def test_lab_is_scikit_images() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    np.testing.assert_allclose(to_lab(pixels), rgb2lab(pixels), atol=1e-3)
    assert np.array_equal(from_lab(to_lab(pixels)), pixels)
    lab = to_lab(pixels) * np.array([0.6, 0.3, 0.3], np.float32) + np.array([20, 0, 0], np.float32)
    np.testing.assert_allclose(from_lab(lab), 255 * lab2rgb(lab), atol=0.51)


def test_a_target_goes_through_json(target: Stain) -> None:
    assert stain_of(json.loads(json.dumps(dataclasses.asdict(target)))) == target
    assert stain_of(None) is None


@pytest.mark.parametrize(
    "change",
    [
        {"method": "vahadane"},
        {"method": None},
        {"stains": [[1, 0, 0]]},
        {"stains": [[1, 0, 0], [0, 1]]},
        {"stains": "ab"},
        {"stains": [[1, 0, 0], ["0", "1", "0"]]},
        {"strength": [float("nan"), 1.0]},
        {"strength": [0.0, 1.0]},
        {"strength": [10**400, 1.0]},
        {"strength": [True, 1.0]},
        {"strength": None},
    ],
)
def test_what_is_no_target_is_refused(change: dict) -> None:
    good = {"method": "macenko", "stains": [[0.6, 0.7, 0.3], [0.1, 0.9, 0.3]], "strength": [1.5, 1.0]}
    assert stain_of(good) is not None
    with pytest.raises(ValueError, match=r"\w"):
        stain_of(good | change)


@pytest.mark.parametrize("value", [[], "macenko", 3, {"method": "reinhard", "mean": [1, 2, 3], "std": [1, 2, 0]}])
def test_other_values_are_no_targets(value: object) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        stain_of(value)
