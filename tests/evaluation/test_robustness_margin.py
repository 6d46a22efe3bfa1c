"""The margin of the embeddings against the source: by hand, by the definition, and its limits."""

import numpy as np
import pytest

from pipeline.evaluation import robustness_margin
from pipeline.evaluation.robustness_margin import robustness_margins, summarise_margins

RNG = np.random.default_rng(0)


def by_definition(features: np.ndarray, label: np.ndarray, source: np.ndarray, m: int) -> list[float]:
    """Return the margins one by one."""
    x = features / np.linalg.norm(features, axis=1, keepdims=True)
    margins = []
    for i in range(len(x)):
        distance = 1 - x @ x[i]
        same = np.sort(distance[(label == label[i]) & (source != source[i])])[:m]
        other = np.sort(distance[(label != label[i]) & (source == source[i])])[:m]
        enough = len(same) == m and len(other) == m
        margins.append((other.mean() - same.mean()) / (other.mean() + same.mean()) if enough else np.nan)
    return margins


def test_margins_follow_the_definition_in_blocks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    features = RNG.normal(size=(60, 7)).astype(np.float32)
    label, source = RNG.integers(3, size=60), RNG.integers(4, size=60)
    expected = by_definition(features.astype(np.float64), label, source, 3)
    assert robustness_margins(features, label, source, neighbours=3) == pytest.approx(expected, nan_ok=True)
    monkeypatch.setattr(robustness_margin, "BLOCK_CELLS", 60 * 7)
    assert robustness_margins(features, label, source, neighbours=3) == pytest.approx(expected, nan_ok=True)
    longer = robustness_margins(8 * features, label, source, neighbours=3)
    assert longer == pytest.approx(expected, nan_ok=True), "the length of a row does not matter"


def test_class_or_source_decides_the_sign() -> None:
    label, source = np.arange(80) % 2, np.arange(80) // 2 % 2
    noise = 0.05 * RNG.normal(size=(80, 2))
    classes = np.stack([label, 1 - label], axis=1) + noise
    sources = np.stack([source, 1 - source], axis=1) + noise
    good, bad = (summarise_margins(robustness_margins(each, label, source)) for each in (classes, sources))
    assert good.median > 0.9
    assert (good.share_negative, bad.share_negative, good.n_scored) == (0, 1, 80)
    assert bad.median < -0.9
    assert good.tail_mean <= good.median


def test_tiles_without_neighbours_of_a_kind_are_left_out_and_counted() -> None:
    features = RNG.normal(size=(30, 4))
    label, source = np.arange(30) % 2, np.arange(30) // 15
    label[source == 1] = 0  # no tile of another class in that source
    found = summarise_margins(robustness_margins(features, label, source))
    assert (found.n_scored, found.n) == (8, 30), "the eight of class 0 in the first source"
    nothing = summarise_margins(robustness_margins(features, np.zeros(30, int), source))
    assert (nothing.n_scored, np.isnan(nothing.median)) == (0, True)
    assert np.isnan(robustness_margins(np.ones((20, 3)), np.arange(20) % 2, np.arange(20) // 10, neighbours=2)).all()
    assert np.isnan(robustness_margins(features[:3], label[:3], source[:3])).all()


@pytest.mark.parametrize(("shape", "neighbours"), [((5,), 5), ((4, 2), 5), ((5, 2), 0)])
def test_wrong_shapes_are_refused(shape: tuple[int, ...], neighbours: int) -> None:
    with pytest.raises(ValueError, match="features"):
        robustness_margins(np.ones(shape), np.zeros(5, int), np.zeros(5, int), neighbours=neighbours)
