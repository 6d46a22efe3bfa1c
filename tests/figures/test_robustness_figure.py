"""The figure of the losses is drawn for any input, and twice the same."""

from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.figures.robustness import draw_losses

NAN = float("nan")


def draw(path: Path, n_heads: int = 3, n_corruptions: int = 7, *, interval: bool = True) -> np.ndarray:
    rng = np.random.default_rng(0)
    heads = [f"head {i}" for i in range(n_heads)]
    losses = {}
    for head in heads:
        values = rng.normal(8, 6, n_corruptions)
        losses[head] = [(v, v - 3, v + 4) if interval else (v, NAN, NAN) for v in values]
    names = [f"corruption {i} with a $ in its long, long name" for i in range(n_corruptions)]
    draw_losses(path, losses, corruptions=names, level="95 %")
    return np.asarray(Image.open(path).convert("RGB"))


def test_it_is_drawn_the_same_again_and_whiskers_only_where_there_are_intervals(tmp_path: Path) -> None:
    first, without = draw(tmp_path / "a.png"), draw(tmp_path / "c.png", interval=False)
    draw(tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (first < 200).any(axis=2).sum() > (without < 200).any(axis=2).sum()


def test_one_head_and_one_corruption(tmp_path: Path) -> None:
    assert len(np.unique(draw(tmp_path / "a.png", 1, 1).reshape(-1, 3), axis=0)) > 5
