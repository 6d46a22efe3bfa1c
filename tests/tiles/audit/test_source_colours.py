"""The share of the variance of colours that sources explain does not depend on their classes."""

import numpy as np
import pandas as pd
import pytest

from pipeline.tiles.audit.source_colours import COLOURS, colour_findings, colour_share


def tiles(
    *, between: float, within: float, n_sources: int = 12, n: int = 40, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return labels and groups, and colours with these standard deviations; classes differ by 50, in skewed shares."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(n_sources), n)
    label = (rng.random(len(group)) < rng.random(n_sources)[group]).astype(int)
    shift = rng.normal(0, between, (n_sources, 2, 3))
    colours = 100 + 50 * label[:, None] + shift[group, label] + rng.normal(0, within, (len(group), 3))
    table = pd.DataFrame({"label": np.array(["A", "B"])[label], "group": [f"s{k}" for k in group]})
    return table, pd.DataFrame(colours, columns=COLOURS)


@pytest.mark.parametrize(("between", "within", "share"), [(3, 1, 0.9), (1, 1, 0.5), (1, 3, 0.1), (0, 1, 0.0)])
def test_it_is_the_share_that_the_colours_were_drawn_with(between: float, within: float, share: float) -> None:
    found = [
        colour_share(table["label"], table["group"], colours)
        for table, colours in (tiles(between=between, within=within, seed=seed) for seed in range(8))
    ]
    assert np.mean(found) == pytest.approx(share, abs=0.06)


def test_it_needs_two_sources_of_a_class_and_some_with_two_tiles() -> None:
    table, colours = tiles(between=1, within=1)
    one = table.assign(group="s0")
    assert colour_share(one["label"], one["group"], colours) is None
    unknown = table.assign(group="")
    assert colour_share(unknown["label"], unknown["group"], colours) is None
    single = table.assign(group=[str(k) for k in range(len(table))])
    assert colour_share(single["label"], single["group"], colours) is None
    assert colour_share(table["label"], table["group"], 0 * colours) == 0.0


def test_only_sources_that_differ_are_noted() -> None:
    apart, alike = tiles(between=4, within=1), tiles(between=1, within=4)
    (note,) = colour_findings(*apart)
    assert note.severity == "note"
    assert colour_findings(*alike) == []
