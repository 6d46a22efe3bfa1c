"""Measure features relative to groups where the groups have even and skewed class mixes; print a table.

Baselines only: no network is trained. Test tiles are dealt to groups of about 40 tiles, either with the mix of all
tiles or with a mix of their own from a Dirichlet distribution of parameter 0.5. The training tiles keep their groups,
or are dealt in the same way where they have none. Two folds of five are tested, on 1500 training tiles.

    python reports/relative-features/measure.py idc_patches '([0-9]+)_idx5'
    python reports/relative-features/measure.py colorectal5
"""

import re
import sys
from pathlib import Path

import numpy as np
from sklearn.metrics import f1_score

from pipeline.heads import fit as steps
from pipeline.heads.base import Rows
from pipeline.heads.config import FitConfig
from pipeline.heads.outputs import calibrated_output, with_means
from pipeline.heads.registry import BASELINE_KINDS
from pipeline.names import COLOUR_AND_TEXTURE, SOURCES, SPELLING
from pipeline.storage.embeddings.relative_features import centres, group_codes, relative, sums_of
from pipeline.tiles.datasets.files import image_files
from pipeline.tiles.decoding import decode_tile
from pipeline.tiles.handcrafted_features import colour_histogram, handcrafted_features

TILES, FOLDS, TESTED, MOST_TRAIN = 40, 5, 2, 1500
SETS = ("colour_histogram", "handcrafted")


def dealt(y: np.ndarray, rng: np.random.Generator, *, skewed: bool) -> np.ndarray:
    """Return a group for each tile (N,): even mixes, or each group with a mix of its own, Dirichlet(0.5)."""
    n_groups = max(2, len(y) // TILES)
    if not skewed:
        return rng.permutation(np.arange(len(y)) % n_groups).astype(str)
    n_classes = int(y.max()) + 1
    mixes = rng.dirichlet(np.full(n_classes, 0.5), n_groups)
    group = np.empty(len(y), dtype=object)
    for code in range(n_classes):
        own = np.flatnonzero(y == code)
        group[own] = rng.choice(n_groups, len(own), p=mixes[:, code] / mixes[:, code].sum())
    return group.astype(str)


def macro_f1(x: dict, y: np.ndarray, parts: dict, groups: dict | None) -> dict[str, float]:
    """Return baseline -> test macro-F1; groups: part -> group of each of its tiles, None for plain features."""
    sets, config = {}, FitConfig(jobs=1)
    for name in SETS:
        mean = x[name][parts["train"]].mean(axis=0)
        sets[name] = {}
        for part, rows in parts.items():
            own = x[name][rows]
            if groups is not None:
                code, counts = group_codes(groups[part])
                own = relative(own, centres(sums_of([own], code, len(counts)), counts, mean)[code])
            sets[name][part] = own.astype(np.float32)
    sets["histogram_handcrafted"] = {part: np.hstack([sets[name][part] for name in SETS]) for part in parts}
    widths = tuple(sets[name]["train"].shape[1] for name in SETS)
    heads, test = {}, {}
    for name in COLOUR_AND_TEXTURE:
        own = {
            part: Rows(
                sets[SOURCES[name]][part],
                np.zeros((len(rows), int(y.max()) + 1), np.float32),
                y[rows],
                np.full(len(rows), "", dtype="U1"),
                widths if SOURCES[name] == "histogram_handcrafted" else (),
            )
            for part, rows in parts.items()
        }
        heads[name] = steps.calibrate(steps.fit_baseline(name, BASELINE_KINDS[name], own, config), config)
        test[name] = calibrated_output(heads[name].facts, heads[name].head.scores(own["test"]))
    means = {name: made.facts for name, made in steps.mean_of("baseline_mean", heads).items()}
    truth = y[parts["test"]]
    return {name: f1_score(truth, out.predicted, average="macro") for name, out in with_means(test.items(), means)}


def main() -> None:
    """Measure one data set and print its lines of the table."""
    folder, regex = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None
    names = image_files(folder)
    pixels = [decode_tile(folder / name) for name in names]
    x = {"colour_histogram": np.stack([colour_histogram(each) for each in pixels])}
    x["handcrafted"] = np.stack([handcrafted_features(each) for each in pixels])
    y = np.unique([Path(name).parts[0] for name in names], return_inverse=True)[1]
    rng = np.random.default_rng(0)
    units = np.array([re.search(regex, name)[1] if regex else name for name in names])
    ids, code = np.unique(units, return_inverse=True)
    fold = rng.permutation(np.arange(len(ids)) % FOLDS)[code]
    results: dict[tuple[str, str], list[dict[str, float]]] = {}
    for k in range(TESTED):
        parts = {"test": np.flatnonzero(fold == k), "val": np.flatnonzero(fold == (k + 1) % FOLDS)}
        parts["train"] = np.flatnonzero((fold != k) & (fold != (k + 1) % FOLDS))
        parts["train"] = np.sort(rng.permutation(parts["train"])[:MOST_TRAIN])
        own = {part: units[rows] for part, rows in parts.items()}
        even, skewed = ({p: dealt(y[r], rng, skewed=s) for p, r in parts.items()} for s in (False, True))
        settings = {("plain", "any"): None}
        if regex:
            settings[("as they are", "as they are")] = own
            settings[("as they are", "even")] = own | {"test": even["test"]}
            settings[("as they are", "skewed")] = own | {"test": skewed["test"]}
        else:
            settings[("even", "even")] = even
            settings[("even", "skewed")] = even | {"test": skewed["test"]}
            settings[("skewed", "skewed")] = skewed
        for setting, groups in settings.items():
            results.setdefault(setting, []).append(macro_f1(x, y, parts, groups))
    heads = list(results["plain", "any"][0])
    print(f"| {folder.name}: groups in training, in test | {' | '.join(SPELLING[head] for head in heads)} |")
    for (train, test), found in results.items():
        means = [np.mean([each[head] for each in found]) for head in heads]
        print(
            f"| {'plain features' if train == 'plain' else f'{train}, {test}'} | "
            + " | ".join(f"{m:.3f}" for m in means)
            + " |"
        )


if __name__ == "__main__":
    main()
