"""Normalisation of colours by source: the mathematics against plain formulas, and when a source keeps its colours."""

import os
import signal
import time
from collections.abc import Callable

import numpy as np
import pytest

from pipeline.errors import Interrupted
from pipeline.tiles import corruptions
from pipeline.tiles.stain_normalisation import (
    LEAST_SOURCE_TILES,
    SHRINK,
    Source,
    SourceColours,
    SourceFit,
    Stains,
    estimate_stains,
    fit_sources,
    mean_stains,
)

VECTORS = np.array([[0.65, 0.70, 0.29], [0.27, 0.85, 0.45]])
"""Haematoxylin and eosin, of length 1."""

VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)
TARGET = Stains((240.0, 238.0, 242.0), ((0.6, 0.7, 0.387), (0.2, 0.9, 0.387)), (1.4, 1.1))

A, B = Source("a"), Source("b")


def stained(n: int, *, seed: int = 0, white: tuple[float, ...] = (240, 240, 240), mix: float = 0.5) -> np.ndarray:
    """Return n tiles (n, 24, 24, 3) uint8; `mix` is the share of pixels with haematoxylin only, the rest has eosin."""
    rng = np.random.default_rng(seed)
    amounts = rng.gamma(4, 0.25, (n, 24, 24, 2)) * [0.05, 1] + rng.gamma(2, 0.01, (n, 24, 24, 2))
    nuclei = rng.random((n, 24, 24)) < mix
    amounts[nuclei] = amounts[nuclei][:, ::-1]
    amounts[rng.random((n, 24, 24)) < 0.2] = 0  # glass
    return np.rint(np.array(white) * np.exp(-amounts @ VECTORS)).clip(0, 255).astype(np.uint8)


def fit_of(tiles: np.ndarray) -> SourceFit:
    return fit_sources([Source()] * len(tiles), range(len(tiles)), lambda row: tiles[row])[Source()]


def angle(one: np.ndarray, other: np.ndarray) -> float:
    """Return the angle between two directions in degrees."""
    return float(np.degrees(np.arccos(np.clip(one @ other / np.linalg.norm(one) / np.linalg.norm(other), -1, 1))))


def test_known_stains_are_found() -> None:
    stains = fit_of(stained(20)).stains
    assert stains is not None
    white, vectors, strengths = stains.arrays()
    assert np.abs(white - 240).max() <= 1
    assert max(angle(vectors[i], VECTORS[i]) for i in range(2)) < 4
    assert 1.0 < strengths.min() <= strengths.max() < 3.5


def test_a_tile_gets_the_colours_of_the_formula() -> None:
    """The tables are the formula of Macenko's exchange in plain arrays, within one level."""
    tiles = stained(20, white=(220, 235, 200))
    fit = fit_of(tiles)
    assert fit.stains is not None
    weight = 20 / (20 + SHRINK)
    target_white, target_vectors, target_strengths = TARGET.arrays()
    white, vectors, strengths = (
        weight * own + (1 - weight) * aim for own, aim in zip(fit.stains.arrays(), TARGET.arrays(), strict=True)
    )
    density = -np.log(np.maximum(tiles[0], 1) / white)
    amounts = density @ np.linalg.pinv(vectors)
    rest = density - amounts @ vectors
    expected = target_white * np.exp(-(rest + (amounts * target_strengths / strengths) @ target_vectors))
    got = SourceColours({Source(): fit}, TARGET).apply(tiles[0], Source())
    assert got.dtype == np.uint8
    assert np.abs(got - expected.clip(0, 255)).max() <= 1


def test_another_scanner_is_undone() -> None:
    """Gains per channel differ by 25 levels before and by at most 3 after both sources got the same stains."""
    plain, gained = stained(40), stained(40, white=(200, 236, 215))
    assert np.abs(plain.mean(axis=(0, 1, 2)) - gained.mean(axis=(0, 1, 2))).max() > 20
    colours = SourceColours({A: fit_of(plain), B: fit_of(gained)}, TARGET)
    means = [
        np.stack([colours.apply(tile, name) for tile in tiles]).mean(axis=(0, 1, 2))
        for name, tiles in ((A, plain), (B, gained))
    ]
    assert np.abs(means[0] - means[1]).max() < 4


def test_a_skewed_mix_of_tissue_keeps_its_colours() -> None:
    """A source of nearly one class has its own mean colour, which normalisation must not take away."""
    mixed, skewed = stained(40, mix=0.5), stained(40, mix=0.1, seed=1)
    colours = SourceColours({A: fit_of(mixed), B: fit_of(skewed)}, TARGET)
    tile = stained(1, mix=0.3, seed=2)[0]
    difference = colours.apply(tile, A).astype(int) - colours.apply(tile, B)
    assert np.abs(difference.mean(axis=(0, 1))).max() < 6


@pytest.mark.parametrize(
    "tiles",
    [
        stained(LEAST_SOURCE_TILES - 1),
        np.full((10, 24, 24, 3), 235, np.uint8),
        np.full((10, 24, 24, 3), (150, 60, 120), np.uint8),
        np.zeros((10, 24, 24, 3), np.uint8),
    ],
    ids=["few tiles", "glass", "one stain", "black"],
)
def test_a_source_that_cannot_be_estimated_is_unchanged(tiles: np.ndarray) -> None:
    fit = fit_of(tiles)
    assert fit == SourceFit(len(tiles), None)
    colours = SourceColours({Source(): fit, Source("known"): SourceFit(10, TARGET)}, TARGET)
    np.testing.assert_array_equal(colours.apply(tiles[0], Source()), tiles[0])
    assert colours.facts["unchanged"] == [""]
    assert colours.facts["sources"] == 2


@pytest.mark.parametrize("change", [corruptions.blur, corruptions.jpeg, corruptions.half_resolution])
def test_focus_and_compression_change_no_stains(change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Single pixels of large tiles follow both: the estimate is on averaged pixels."""
    tiles = stained(40)[:, :6, :6].repeat(32, axis=1).repeat(32, axis=2)
    grain = np.random.default_rng(0).normal(0, 20, tiles.shape)
    sharp = (tiles + grain).clip(0, 255).astype(np.uint8)
    before, after = fit_of(sharp).stains, fit_of(np.stack([change(tile) for tile in sharp])).stains
    assert before is not None
    assert after is not None
    np.testing.assert_allclose(after.strengths, before.strengths, rtol=0.12)
    np.testing.assert_allclose(after.white, before.white, atol=4)


def test_few_tiles_change_less() -> None:
    tiles = stained(40, white=(200, 236, 215))
    stains = fit_of(tiles).stains
    colours = [SourceColours({A: SourceFit(n, stains)}, TARGET) for n in (5, 40, 10_000)]
    changes = [np.abs(each.apply(tiles[0], A).astype(int) - tiles[0]).mean() for each in colours]
    assert changes[0] < changes[1] < changes[2]


def test_a_fit_follows_from_the_tiles_of_its_source_alone() -> None:
    """P6: other sources, their order and unreadable tiles elsewhere change nothing."""
    tiles = np.concatenate([stained(12), stained(12, seed=3, white=(200, 236, 215))])
    both = fit_sources([A] * 12 + [B] * 12, range(24), lambda row: tiles[row])
    turned = fit_sources([B] * 12 + [A] * 12, range(24), lambda row: tiles[(row + 12) % 24])
    assert both == turned == {A: fit_of(tiles[:12]), B: fit_of(tiles[12:])}
    lost = fit_sources([A] * 12 + [B] * 12, range(24), lambda row: None if row == 15 else tiles[row])
    assert lost[A] == both[A]
    assert lost[B] != both[B]
    facts = [SourceColours(fits, TARGET).facts["sha256"] for fits in (both, turned, lost)]
    assert facts[0] == facts[1] != facts[2]


def test_p6_the_number_of_threads_changes_nothing() -> None:
    tiles, sources = stained(40), [Source(str(row % 4)) for row in range(40)]
    one, several = (fit_sources(sources, range(40), lambda row: tiles[row], workers=workers) for workers in (0, 3))
    assert list(one.items()) == list(several.items())
    assert len({fit.stains for fit in one.values()}) == 4


@pytest.mark.parametrize("workers", [1, 3])
def test_a_stop_ends_the_estimate(workers: int) -> None:
    """The source whose tile met the signal is not finished; afterwards signals are handled as before."""
    tiles, before = stained(40), signal.getsignal(signal.SIGTERM)
    seen: list[int] = []

    def read(row: int) -> np.ndarray:
        seen.append(row)
        if len(seen) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            while signal.getsignal(signal.SIGTERM) != before:  # until the main thread has handled it
                time.sleep(0.001)
        return tiles[row]

    with pytest.raises(Interrupted) as stopped:
        fit_sources([A] * 10 + [B] * 30, range(40), read, workers=workers)
    assert stopped.value.exit_code == 128 + signal.SIGTERM
    assert len(seen) < 40
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_group_and_its_name_are_two_things() -> None:
    assert str(Source("", "test")) == str(Source("all tiles", "test")) == "all tiles (test)"
    assert Source("", "test") != Source("all tiles", "test")


def test_the_target_is_the_mean_of_the_sources_with_stains() -> None:
    other = Stains((220.0, 238.0, 242.0), TARGET.vectors, (1.0, 1.1))
    fits = {A: SourceFit(10, TARGET), B: SourceFit(10, other), Source("c"): SourceFit(2, None)}
    target = mean_stains(fits)
    assert target is not None
    assert target.white == (230.0, 238.0, 242.0)
    assert target.strengths == (1.2, 1.1)
    np.testing.assert_allclose(np.linalg.norm(target.vectors, axis=1), 1, atol=1e-5)
    assert mean_stains({Source("c"): SourceFit(2, None)}) is None


def test_extreme_stains_stay_finite() -> None:
    """Tables never overflow: a hostile model.json gives black or white, not a warning or NaN."""
    fit = SourceFit(100, Stains((1.0, 255.0, 1.0), ((1e-4, 1e-4, 0.0), (1e-4, 0.0, 1e-4)), (1e-6, 1e-6)))
    colours = SourceColours({Source(): fit}, Stains((255.0, 255.0, 255.0), ((9e9, 0, 0), (0, 9e9, 0)), (9e9, 9e9)))
    assert all(np.isfinite(table).all() for table in colours.tables.values() if table is not None)


def test_pixels_of_no_tissue_have_no_stains() -> None:
    assert estimate_stains(np.full((100, 3), 250, np.uint8)) is None
