import numpy as np
import pytest
from PIL import Image

from pipeline.figures.embedding_map import choose_rows, draw_map, project


def test_all_rows_are_drawn_where_there_is_room():
    is_test = np.arange(10) % 3 == 0
    assert choose_rows(is_test, np.zeros(10, int), most=10).tolist() == list(range(10))


def test_a_large_set_is_thinned_evenly_by_class_and_test_rows_come_first():
    rng = np.random.default_rng(0)
    is_test, label = rng.random(5000) < 0.4, rng.choice(4, 5000, p=[0.7, 0.2, 0.06, 0.04])
    rows = choose_rows(is_test, label, most=900)
    assert len(rows) == len(set(rows)) == 900
    assert is_test[rows].sum() == 600
    for code in range(4):
        share = (label[is_test] == code).mean()
        assert (label[rows][is_test[rows]] == code).mean() == pytest.approx(share, abs=0.01)
    assert choose_rows(is_test, label, most=900).tolist() == rows.tolist()


def test_test_rows_take_the_room_that_training_rows_leave():
    is_test = np.arange(100) >= 5
    rows = choose_rows(is_test, np.zeros(100, int), most=60)
    assert (is_test[rows].sum(), (~is_test[rows]).sum()) == (55, 5)


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_clusters_stay_apart_and_the_seed_decides(method):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 30)).astype(np.float32)
    features[20:] += 8
    points = project(features, method=method, seed=1)
    assert points.shape == (40, 2)
    centres = points[:20].mean(axis=0), points[20:].mean(axis=0)
    nearest = [np.argmin([np.linalg.norm(point - centre) for centre in centres]) for point in points]
    assert nearest == [0] * 20 + [1] * 20
    assert np.array_equal(points, project(features, method=method, seed=1))


@pytest.mark.parametrize(("n", "width"), [(3, 1), (5, 2), (6, 2048)])
def test_few_rows_and_few_features(n, width):
    features = np.random.default_rng(0).normal(size=(n, width)).astype(np.float16)
    assert project(features, method="pca", seed=0).shape == (n, 2)
    assert np.isfinite(project(features, method="tsne", seed=0)).all()


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_constant_features_are_one_point(method):
    assert not project(np.ones((6, 4)), method=method, seed=0).any()


@pytest.mark.parametrize("n_groups", [None, 3, 40])
def test_draw_map(tmp_path, n_groups):
    rng = np.random.default_rng(0)
    group = None if n_groups is None else [f"_$g{i % n_groups}" for i in range(60)]
    draw_map(
        tmp_path / "map.png",
        rng.normal(size=(60, 2)),
        is_test=np.arange(60) < 20,
        label=np.arange(60) % 12,
        classes=[f"class {i}" for i in range(13)],
        group=group,
    )
    with Image.open(tmp_path / "map.png") as image:
        assert (image.width > 1200) == (n_groups is not None)
