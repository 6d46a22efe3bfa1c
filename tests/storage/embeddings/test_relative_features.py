"""Features relative to groups: shrunk means, the same for rows in memory and rows in their file."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.storage.embeddings.feature_rows import StoredFeatures
from pipeline.storage.embeddings.relative_features import RelativeFeatures, centres, group_codes, relative, sums_of
from pipeline.storage.hdf5 import created, finish

SCHEMA = "embeddings/1.0"
GROUPS = np.array(["b", "a", "b", "c", "b", "b", "b"])


def test_a_group_is_shrunk_to_the_training_mean() -> None:
    code, counts = group_codes(GROUPS)
    assert (code.tolist(), counts.tolist()) == ([1, 0, 1, 2, 1, 1, 1], [1, 5, 1])
    features = np.arange(14, dtype=np.float32).reshape(7, 2)
    mean = np.array([100.0, 0.0])
    found = centres(sums_of([features[:3], features[3:]], code, 3), counts, mean)
    own = features[GROUPS == "b"].mean(axis=0)
    np.testing.assert_allclose(found[1], (own + mean) / 2)  # five tiles: half
    np.testing.assert_allclose(found[0], (features[1] + 5 * mean) / 6)
    both = relative(features, found[code])
    assert both.shape == (7, 4)
    np.testing.assert_allclose(both[:, 2:], features - found[code])


def test_rows_in_their_file_are_those_in_memory(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    with created(tmp_path / "f.h5") as file:
        file["features"] = rows
        finish(file, SCHEMA)
    stored = StoredFeatures(tmp_path / "f.h5", SCHEMA, "features", np.arange(7), 3)
    code, counts = group_codes(GROUPS)
    of_groups = centres(sums_of(stored.blocks(2), code, 3), counts, rows.mean(axis=0))
    expected = relative(rows, of_groups[code])
    found = RelativeFeatures(stored, of_groups, code)
    assert (found.shape, found.width) == ((7, 6), 6)
    np.testing.assert_array_equal(found.read(), expected)
    np.testing.assert_array_equal(np.concatenate(list(found.blocks(3))), expected)
    chosen = np.array([5, 0, 3])
    np.testing.assert_array_equal(found[chosen].read(), expected[chosen])


@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_a_shift_of_a_whole_group_leaves_the_difference(shift: float) -> None:
    """A stain that shifts all tiles of a slide changes their difference by the shrinkage alone."""
    rows = np.random.default_rng(0).normal(size=(95, 2)).astype(np.float32)
    found = centres(sums_of([rows + shift], np.zeros(95, int), 1), np.array([95]), np.zeros(2))
    difference = relative(rows + shift, found[0])[:, 2:]
    np.testing.assert_allclose(difference - shift * 5 / 100, rows - rows.sum(axis=0) / 100, atol=1e-5)
