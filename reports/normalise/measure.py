"""Measure normalisation of colours by source, with even and skewed class mixes; print a table.

A colour histogram and an SVM of fixed parameters: no network is trained. Sources are held out in two folds. All tiles
of a source are normalised by one map, which is estimated on pixels of these tiles without labels; the target is the
median of the training sources. "skewed" deals the test tiles of each source to groups with a mix of their own, from a
Dirichlet distribution of parameter 0.5, and normalises each group alone. The shifts are those of `pipeline.robustness`,
on all test tiles.

    python reports/normalise/measure.py data/demo/1000x150px-seed0 'HE-([0-9]+)'
    python reports/normalise/measure.py idc_patches '([0-9]+)_idx5'
"""

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from sklearn.metrics import f1_score
from sklearn.svm import SVC

from pipeline.tiles.corruptions import CORRUPTIONS
from pipeline.tiles.datasets.files import image_files
from pipeline.tiles.decoding import decode_tile
from pipeline.tiles.handcrafted_features import colour_histogram

FOLDS, MOST_TRAIN, TILES, PIXELS, SHRUNK = 2, 1500, 20, 20_000, 5
"""Folds; training tiles of a fold; tiles of a skewed group; pixels that a map is estimated on; weight of the target."""

SHIFTS = ("colour_shift", "stain_change", "brightness")
WHITE_PERCENTILE, STRENGTH_PERCENTILE = 99, 99
TISSUE, ANGLES = 0.15, (1, 99)
"""Least optical density of tissue, and the extreme angles, as Macenko et al. 2009."""

Map = Callable[[np.ndarray], np.ndarray]
State = Mapping[str, np.ndarray]


def density(values: np.ndarray, white: np.ndarray) -> np.ndarray:
    """Return the optical density (..., 3) of values 0..255 below a white point (3,)."""
    return -np.log(np.maximum(values, 1.0) / white)


def macenko(d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the two stains (2, 3) and the strengths (2,) of optical densities (N, 3): Macenko et al. 2009."""
    found = d[d.mean(axis=1) >= TISSUE]
    if len(found) < 100:
        found = d
    plane = np.linalg.eigh(found.T @ found)[1][:, 1:]
    mean = found.mean(axis=0) @ plane
    mean /= np.linalg.norm(mean)
    along, across = plane @ mean, plane @ np.array([-mean[1], mean[0]])
    ends = np.percentile(np.arctan2(found @ across, found @ along), ANGLES)
    stains = np.outer(np.cos(ends), along) + np.outer(np.sin(ends), across)
    stains = stains[np.argsort(-stains[:, 0])]
    return stains, np.maximum(np.percentile(found @ np.linalg.pinv(stains), STRENGTH_PERCENTILE, axis=0), 0.05)


def state_of(pixels: np.ndarray) -> State:
    """Return what the maps need to know of the pixels (N, 3) of a source."""
    white = np.percentile(pixels, WHITE_PERCENTILE, axis=0).clip(100, 255)
    d = density(pixels, np.full(3, 255.0))
    stains, strength = macenko(density(pixels, white))
    return {"white": white, "mean": d.mean(axis=0), "std": d.std(axis=0), "stains": stains, "strength": strength}


def white_point(own: State, target: State) -> Map:
    """Scale each channel so that its bright percentile is the target's."""
    return lambda tile: tile * (target["white"] / own["white"])


def stain_vectors(own: State, target: State, *, scaled: bool) -> Map:
    """Exchange the white point and the stains for the target's; `scaled`: also their strengths. Keep the residual."""
    back = np.linalg.pinv(own["stains"])
    factor = target["strength"] / own["strength"] if scaled else np.ones(2)
    change = np.eye(3) - back @ own["stains"] + back @ (factor[:, None] * target["stains"])
    return lambda tile: target["white"] * np.exp(-density(tile, own["white"]) @ change)


def moments(own: State, target: State) -> Map:
    """Move mean and spread of the optical density to the target's."""
    scale = target["std"] / own["std"]
    return lambda tile: 255 * np.exp(-((density(tile, np.full(3, 255.0)) - own["mean"]) * scale + target["mean"]))


VARIANTS: dict[str, Callable[[State, State], Map] | None] = {
    "none": None,
    "white point": white_point,
    "white point and stain vectors": lambda own, target: stain_vectors(own, target, scaled=False),
    "white point, stain vectors and strengths": lambda own, target: stain_vectors(own, target, scaled=True),
    "mean and spread of optical density": moments,
}


def normalised(
    tiles: list[np.ndarray], groups: np.ndarray, variant: str, target: State | None
) -> tuple[list[np.ndarray], State | None]:
    """Return the tiles normalised by group, and the target: that of these tiles' groups unless one is given."""
    make = VARIANTS[variant]
    if make is None:
        return tiles, None
    rng, states = np.random.default_rng(0), {}
    for name in np.unique(groups):
        own = np.concatenate([tiles[row].reshape(-1, 3) for row in np.flatnonzero(groups == name)]).astype(np.float64)
        states[name] = state_of(own[rng.integers(len(own), size=PIXELS)])
    if target is None:
        target = {
            key: np.median([state[key] for state in states.values()], axis=0) for key in next(iter(states.values()))
        }
    maps = {}
    for name, own in states.items():
        n = int((groups == name).sum())
        weight = n / (n + SHRUNK)  # few tiles: towards the target, which changes nothing
        shrunk = {key: weight * own[key] + (1 - weight) * target[key] for key in own}
        maps[name] = make(shrunk, target)
    return [
        np.clip(np.rint(maps[name](tile)), 0, 255).astype(np.uint8) for tile, name in zip(tiles, groups, strict=True)
    ], target


def dealt(y: np.ndarray, sources: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a group for each tile (N,): parts of its source, each with a class mix of its own, Dirichlet(0.5)."""
    group, n_classes = np.empty(len(y), dtype=object), int(y.max()) + 1
    for source in np.unique(sources):
        n_groups = max(2, int((sources == source).sum()) // TILES)
        mixes = rng.dirichlet(np.full(n_classes, 0.5), n_groups)
        for code in range(n_classes):
            own = np.flatnonzero((sources == source) & (y == code))
            chosen = rng.choice(n_groups, len(own), p=mixes[:, code] / mixes[:, code].sum())
            group[own] = [f"{source}-{k}" for k in chosen]
    return group.astype(str)


def features(tiles: list[np.ndarray]) -> np.ndarray:
    """Return the colour histograms of tiles, (N, 512) float32."""
    return np.stack([colour_histogram(tile) for tile in tiles])


def main() -> None:
    """Measure one data set and print its table."""
    folder, regex = Path(sys.argv[1]), re.compile(sys.argv[2])
    names = image_files(folder)
    pixels = [decode_tile(folder / name) for name in names]
    y = np.unique([Path(name).parts[0] for name in names], return_inverse=True)[1]
    found = [regex.search(name) for name in names]
    sources = np.array([match[1] if match else "" for match in found])
    ids, code = np.unique(sources, return_inverse=True)
    rng = np.random.default_rng(0)
    fold = rng.permutation(np.arange(len(ids)) % FOLDS)[code]
    settings = ("as they are", "skewed", *SHIFTS)
    predicted: dict[tuple[str, str], np.ndarray] = {}
    for k in range(FOLDS):
        train, test = rng.permutation(np.flatnonzero(fold != k))[:MOST_TRAIN], np.flatnonzero(fold == k)
        skewed = dealt(y[test], sources[test], rng)
        for variant in VARIANTS:
            seen, target = normalised([pixels[row] for row in train], sources[train], variant, None)
            head = SVC(gamma=0.25, C=100).fit(features(seen), y[train])
            for setting in settings:
                tiles = [pixels[row] for row in test]
                if setting in SHIFTS:
                    tiles = [CORRUPTIONS[setting].apply(tile) for tile in tiles]
                groups = skewed if setting == "skewed" else sources[test]
                if variant == "none" and setting == "skewed":
                    continue  # the same tiles and predictions as they are
                rows = features(normalised(tiles, groups, variant, target)[0])
                predicted.setdefault((variant, setting), np.full(len(y), -1))[test] = head.predict(rows)
    print(f"| {folder.name}, macro-F1 | {' | '.join(settings)} |")
    print("|---|" + "---:|" * len(settings))
    for variant in VARIANTS:
        cells = []
        for setting in settings:
            key = "as they are" if variant == "none" and setting == "skewed" else setting
            cells.append(f"{f1_score(y, predicted[variant, key], average='macro'):.3f}")
        print(f"| {variant} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
