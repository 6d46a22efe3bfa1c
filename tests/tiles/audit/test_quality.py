"""Blank, blurred and off-coloured tiles are found; uniform data sets have none."""

import numpy as np
import pandas as pd
from PIL import Image, ImageFilter
from scipy.ndimage import gaussian_filter

from pipeline.tiles.audit.measure import QUALITY, measure
from pipeline.tiles.audit.quality import modified_z, quality_findings


def tissue(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    field = sum(gaussian_filter(rng.normal(size=(100, 100)), sigma) * sigma for sigma in (0.7, 2, 6))
    stain = np.array([190, 120, 170]) + rng.normal(0, 4, 3)
    return (stain + field[..., None] * np.array([-40, -50, -25])).clip(0, 255).astype(np.uint8)


def lines(tiles: list[np.ndarray], labels: str) -> list[str]:
    quality = pd.DataFrame([measure(pixels)[2] for pixels in tiles], columns=list(QUALITY))
    table = pd.DataFrame({"tile_id": [f"t{i}" for i in range(len(tiles))], "label": list(labels)})
    return [f"{finding.severity}: {finding.line}" for finding in quality_findings(table, quality)]


def test_a_uniform_set_has_no_findings() -> None:
    assert lines([tissue(seed) for seed in range(60)], "AB" * 30) == []
    assert lines([tissue(0)] * 60, "AB" * 30) == []  # MAD 0


def test_planted_tiles_are_found_and_nothing_else() -> None:
    tiles = [tissue(seed) for seed in range(60)]
    for i in (3, 4):
        tiles[i] = np.asarray(Image.fromarray(tiles[i]).filter(ImageFilter.GaussianBlur(3)))
    tiles[10] = tiles[10][..., ::-1] // 2 + np.array([0, 0, 120], np.uint8)  # blue
    tiles[20] = np.full((100, 100, 3), 240, np.uint8)
    tiles[21] = np.zeros((100, 100, 3), np.uint8)
    assert lines(tiles, "A" * 30 + "B" * 30) == [
        "warning: 2 tile(s) are blank, though their class is not (A 2): t20, t21",
        "warning: 2 tile(s) are blurred, compared with the others (A 2): t3, t4",
        "warning: 1 tile(s) have a colour far from the others' (A 1): t10",
    ]


def test_a_class_of_blank_tiles_is_meant_so() -> None:
    tiles = [tissue(seed) for seed in range(30)] + [np.full((100, 100, 3), 238 + i % 5, np.uint8) for i in range(20)]
    assert lines(tiles, "A" * 30 + "E" * 20) == []
    assert lines(tiles, "A" * 30 + "E" * 19 + "A") == [
        "warning: 1 tile(s) are blank, though their class is not (A 1): t49"
    ]


def test_a_handful_of_tiles_have_no_outliers() -> None:
    tiles = [tissue(seed) for seed in range(10)]
    tiles[3] = np.asarray(Image.fromarray(tiles[3]).filter(ImageFilter.GaussianBlur(3)))
    assert lines(tiles, "A" * 10) == []


def test_modified_z_by_hand() -> None:
    z = modified_z(np.array([1.0, 2.0, 3.0, 4.0, 100.0]))  # median 3, deviations 2 1 0 1 97, MAD 1
    assert z.round(4).tolist() == [-1.349, -0.6745, 0.0, 0.6745, 65.4265]
