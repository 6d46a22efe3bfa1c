import numpy as np
import pytest
from PIL import Image

from pipeline.evaluation.selective import selective_curve
from pipeline.figures.selective import draw_selective


@pytest.mark.parametrize("n", [1, 3, 200])
def test_selective(tmp_path, n):
    rng = np.random.default_rng(0)
    curves = {}
    for i, head in enumerate(["softmax", "_SVM", "x" * 100, "always right"]):
        first = 0.5 + rng.random(n) / 2
        p = np.column_stack([first, 1 - first])
        named = (rng.random(n) > first).astype(int) if i < 3 else np.zeros(n, dtype=int)
        curves[head] = selective_curve(named, p, np.zeros(n, dtype=int))
    for name in "ab":
        draw_selective(tmp_path / name, curves)
    with Image.open(tmp_path / "a") as image:
        image.load()
        assert image.size[0] > 600
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
