"""The bench's figures are drawn whatever was measured, and twice the same."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.benchmark.figures import draw_growth, draw_rates
from pipeline.benchmark.scaling import Cost

CURVES = {
    ("torch", "fp32"): {8: (20.0, 18.0, 22.0), 16: (21.0, 20.0, 22.0)},
    ("openvino", "int8"): {16: (300.0, 290.0, 310.0)},
}
RATIOS = {"embedding": (4.1, 3.5), "training": (0.8, None)}


@pytest.mark.parametrize(("with_curves", "with_ratios"), [(True, True), (True, False), (False, True)])
def test_rates(tmp_path: Path, *, with_curves: bool, with_ratios: bool) -> None:
    for name in ("a", "b"):
        levels = {"plain fp32": 10.0, "limit bf16": 900.0}
        draw_rates(
            tmp_path / f"{name}.png",
            CURVES if with_curves else {},
            levels=levels,
            ratios=RATIOS if with_ratios else {},
        )
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert len(np.unique(np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).reshape(-1, 3), axis=0)) > 5


@pytest.mark.parametrize("sizes", [(1000,), (1000, 5000, 80_000)])
def test_growth(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    costs = {stage: {n: Cost(n / 100, 400 + n / 1000) for n in sizes} for stage in ("prepare", "extract")}
    draw_growth(tmp_path / "a.png", costs, slopes={"prepare": 1.0, "extract": None})
    draw_growth(tmp_path / "b.png", costs, slopes={"prepare": 1.0, "extract": None})
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
