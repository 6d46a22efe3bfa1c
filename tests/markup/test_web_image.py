"""Figures as WebP."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.markup.web_image import web_image


def test_a_plot_is_kept_to_the_bit(tmp_path: Path) -> None:
    pixels = np.zeros((60, 80, 3), np.uint8)
    pixels[20:40] = (0, 114, 178)
    Image.fromarray(pixels).save(tmp_path / "plot.png")
    with Image.open(io.BytesIO(web_image(tmp_path / "plot.png"))) as shown:
        assert np.array_equal(np.asarray(shown.convert("RGB")), pixels)


def test_a_photograph_is_smaller_than_its_png(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    smooth = np.kron(rng.integers(60, 200, (20, 20, 3)), np.ones((12, 12, 1)))
    pixels = (smooth + rng.normal(0, 6, smooth.shape)).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photograph.png")
    found = web_image(tmp_path / "photograph.png")
    assert len(found) < (tmp_path / "photograph.png").stat().st_size / 4
    with Image.open(io.BytesIO(found)) as shown:
        assert np.abs(np.asarray(shown.convert("RGB")).astype(int) - pixels).mean() < 8
