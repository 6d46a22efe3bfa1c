"""Split tiles once into train, val and test.

`random_split` is the split of the tutorial: tiles of one source are on both sides, so that results are biased upwards
(P7: the report states it). `grouped_split` keeps every group (source, slide, patient) whole.
"""

import numpy as np

from pipeline.errors import BadInput
from pipeline.names import SPLITS

ENUMERATED = 8
"""Most groups for which all splits are tried (3^8 = 6561); with so few, a search by single moves gets stuck."""

RESTARTS = 64
"""Most random starts of the grouped search; the best of all is kept."""

SEARCHED_GROUPS = 20_000
"""Most groups times random starts, which limits the time for thousands of groups."""

MISSING_COST = (1000.0, 0.25, 0.5)
"""Cost of a class that is missing from train, val, test: train must have all, test matters more than val."""


def random_split(labels: list[str], *, fractions: tuple[float, float, float], seed: int) -> list[str]:
    """Split tiles at random within each class (stratified).

    Args:
        labels: class name of each tile, (N,), in a fixed order (the manifest's).
        fractions: shares of train, val and test; they sum to 1.
        seed: the same labels, fractions and seed give the same split.

    Returns:
        "train", "val" or "test" for each tile, (N,).

    Raises:
        BadInput: a class has fewer than three tiles, so that it cannot be in all three splits.
    """
    codes = np.empty(len(labels), dtype=np.int64)
    names = np.asarray(labels, dtype=object)
    rng = np.random.default_rng(seed)
    for name in sorted(set(labels)):
        rows = np.flatnonzero(names == name)
        if len(rows) < len(SPLITS):
            raise BadInput(
                f"class '{name}' has {len(rows)} tile(s); a random split needs at least {len(SPLITS)} "
                "(one each for train, val and test): add tiles or leave the class out"
            )
        n_val = max(1, round(fractions[1] * len(rows)))
        n_test = max(1, round(fractions[2] * len(rows)))
        while n_val + n_test >= len(rows):  # both were rounded up, but train needs a tile
            n_val, n_test = (n_val - 1, n_test) if n_val > n_test else (n_val, n_test - 1)
        order = rng.permutation(rows)
        codes[order] = 0
        codes[order[:n_test]] = 2
        codes[order[n_test : n_test + n_val]] = 1
    return [SPLITS[code] for code in codes]


def _cost(sums: np.ndarray, fractions: tuple[float, float, float]) -> np.ndarray:
    """Return the cost of splits whose class shares are `sums`, (..., 3, K)."""
    missing = (sums <= 1e-12).sum(axis=-1) @ np.asarray(MISSING_COST)
    cost: np.ndarray = ((sums - np.asarray(fractions)[:, None]) ** 2).sum(axis=(-2, -1)) + missing
    return cost


def _enumerate(
    shares: np.ndarray, *, fractions: tuple[float, float, float], least: int, rng: np.random.Generator
) -> np.ndarray:
    """Return the split of each group, (G,) int, that costs least of all; see `_search`. Ties fall by `rng`."""
    where = np.indices((len(SPLITS),) * len(shares)).reshape(len(shares), -1).T
    where = rng.permutation(where[(np.stack([(where == k).sum(1) for k in range(len(SPLITS))]) >= least).all(axis=0)])
    sums = np.stack([(where == split) @ shares for split in range(len(SPLITS))], axis=1)
    best: np.ndarray = where[np.argmin(_cost(sums, fractions).round(9))]
    return best


def _search(
    shares: np.ndarray, *, fractions: tuple[float, float, float], least: int, rng: np.random.Generator
) -> np.ndarray:
    """Return the split of each group, (G,) int, that single moves from random starts find.

    Args:
        shares: part of each class that each group holds, (G, K).
        fractions: shares of train, val and test.
        least: number of groups that every split gets at least.
        rng: decides the starts.
    """
    n_groups = len(shares)
    best_cost, best = np.inf, np.zeros(n_groups, dtype=np.int64)
    for _ in range(max(4, min(RESTARTS, SEARCHED_GROUPS // n_groups))):
        where = rng.choice(len(SPLITS), size=n_groups, p=np.asarray(fractions) / sum(fractions))
        where[rng.permutation(n_groups)[: least * len(SPLITS)]] = np.repeat(np.arange(len(SPLITS)), least)
        sums = np.stack([shares[where == split].sum(axis=0) for split in range(len(SPLITS))])
        current = float(_cost(sums, fractions))
        while True:
            # the cost after each possible move of one group to one split, all at once
            moved = np.broadcast_to(sums, (n_groups, len(SPLITS), *sums.shape)).copy()
            for split in range(len(SPLITS)):
                moved[:, split, split] += shares
            moved[np.arange(n_groups), :, where] -= shares[:, None]
            costs = _cost(moved, fractions)
            costs[np.arange(n_groups), where] = np.inf
            costs[np.bincount(where, minlength=len(SPLITS))[where] <= least] = np.inf
            group, split = divmod(int(np.argmin(costs)), len(SPLITS))
            if costs[group, split] >= current - 1e-12:
                break
            sums = moved[group, split]
            where[group] = split
            current = float(costs[group, split])
        if current < best_cost:
            best_cost, best = current, where.copy()
    return best


def grouped_split(
    labels: list[str], groups: list[str], *, fractions: tuple[float, float, float], seed: int
) -> list[str]:
    """Split whole groups, with the classes as even over the splits as can be.

    The cost of a split is the squared distance between each class's shares of train, val and test and the requested
    fractions, summed over classes; a class that is missing from a split costs extra (`MISSING_COST`). Few groups:
    the cheapest of all splits is taken. Many: from random starts, single groups are moved to the split that lowers
    the cost most until none does. Where there are six groups or more, each split gets at least two (one group does
    not predict the next), unless train would then lack a class.

    Args:
        labels: class name of each tile, (N,).
        groups: source, slide or patient of each tile, (N,); never empty.
        fractions: shares of train, val and test; they sum to 1.
        seed: the same input and seed give the same split.

    Returns:
        "train", "val" or "test" for each tile, (N,); no group is in two of them.

    Raises:
        BadInput: fewer than three groups, or no split gives train every class.
    """
    group_names, group_of = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    class_names, label_of = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
    n_groups = len(group_names)
    if n_groups < len(SPLITS):
        raise BadInput(
            f"{n_groups} group(s) ({', '.join(group_names)}) cannot be split into train, val and test without "
            "cutting one: give more sources, another --group-regex, or choose --protocol random"
        )
    counts = np.zeros((n_groups, len(class_names)))
    np.add.at(counts, (group_of, label_of), 1)
    shares = counts / counts.sum(axis=0)
    method = _enumerate if n_groups <= ENUMERATED else _search
    for least in (2, 1) if n_groups >= 2 * len(SPLITS) else (1,):
        best = method(shares, fractions=fractions, least=least, rng=np.random.default_rng(seed))
        if (counts[best == 0].sum(axis=0) > 0).all():
            break
    train_counts = counts[best == 0].sum(axis=0)
    if (train_counts == 0).any():
        absent = class_names[train_counts == 0]
        raise BadInput(
            f"no grouped split gives train the class(es) {', '.join(absent)}: too few groups hold them; "
            "leave the class out, give more sources, or choose --protocol random"
        )
    return [SPLITS[best[group]] for group in group_of]
