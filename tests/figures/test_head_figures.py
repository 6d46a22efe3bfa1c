import numpy as np
import pytest
from PIL import Image

from pipeline.evaluation.metrics import reliability_bins
from pipeline.figures.gallery import HeadPrediction, Picture, draw_gallery
from pipeline.figures.heads import MOST_CLASSES, draw_class_bars, draw_confusion, draw_reliability, most_misclassified
from pipeline.figures.style import short

NAMES = ["$\\frac{1}$", "_hidden", "x" * 300, "\u5375\n\ttab", ""]


def size_of(path):
    with Image.open(path) as image:
        image.load()
        return image.size


@pytest.mark.parametrize(("n_heads", "n_classes", "rows"), [(1, 2, 1), (3, 5, 1), (4, 20, 2)])
def test_confusion(tmp_path, n_heads, n_classes, rows):
    rng = np.random.default_rng(0)
    matrices = {f"head {i}": rng.integers(0, 30, (n_classes, n_classes)) for i in range(n_heads)}
    for matrix in matrices.values():
        matrix[0] = 0  # a class without rows
    draw_confusion(tmp_path / "c.png", matrices, classes=(NAMES * 4)[:n_classes])
    width, height = size_of(tmp_path / "c.png")
    assert width / height > 2.2 / rows if n_heads > 1 else width < 700


def test_class_bars_with_undefined_values(tmp_path):
    f1 = {"svm": np.array([0.5, np.nan, 1.0, 0.0, 0.2]), "softmax": np.full(5, np.nan)}
    support = np.array([3, 0, 2, 1, 9])
    draw_class_bars(tmp_path / "b.png", f1, classes=NAMES, support=support, chosen=np.arange(5))
    draw_class_bars(tmp_path / "two.png", f1, classes=NAMES, support=support, chosen=np.array([1, 3]))
    assert size_of(tmp_path / "two.png")[1] < size_of(tmp_path / "b.png")[1]


def test_figures_stop_at_some_number_of_classes(tmp_path):
    """Hundreds of classes, such as patients taken for classes, make no figure that cannot be opened."""
    n = 279
    matrix = np.diag(np.full(n, 10))
    matrix[200:250, 0] = 5
    chosen = most_misclassified([matrix])
    assert chosen.tolist() == list(range(200, 200 + MOST_CLASSES))
    classes = [f"P{code}" for code in range(n)]
    f1, support = {"svm": np.ones(n)}, np.full(n, 10)
    draw_confusion(tmp_path / "c.png", {"svm": matrix, "softmax": matrix}, classes=classes)
    draw_class_bars(tmp_path / "b.png", f1, classes=classes, support=support, chosen=chosen)
    for name in ("c.png", "b.png"):
        assert max(size_of(tmp_path / name)) < 4000
        assert (tmp_path / name).stat().st_size < 1_000_000


def test_reliability_without_validation_rows(tmp_path):
    bins = reliability_bins(np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]))
    draw_reliability(tmp_path / "r.png", {"svm": {"test": bins}}, heads=["svm"])
    size_of(tmp_path / "r.png")


@pytest.mark.parametrize("n", [1, 5])
def test_gallery_with_a_tile_that_cannot_be_shown(tmp_path, n):
    predictions = [
        HeadPrediction("svm", NAMES[2], 1.0, correct=False),
        HeadPrediction("softmax", NAMES[0], 0.0, correct=True),
    ]
    pixels = np.zeros((30, 50, 3), np.uint8)
    pictures = [Picture(None if i == 0 else pixels, label=NAMES[i], predictions=predictions) for i in range(n)]
    draw_gallery(tmp_path / "g.png", pictures)
    width, height = size_of(tmp_path / "g.png")
    assert (width > height) == (n == 5)


def test_equal_figures_are_equal_files(tmp_path):
    for name in "ab":
        draw_confusion(tmp_path / name, {"svm": np.eye(3, dtype=int)}, classes=["a", "b", "c"])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_short_names():
    assert [short(name, 10) for name in NAMES] == ["$\\frac{1}$", " _hidden", "xxxxxxxxx…", "\u5375 tab", "(empty)"]
