"""The demo slide is what its map says, the same every time, and a pyramid that OpenSlide reads."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import demo_slide as command
from pipeline.errors import BadArtifact
from pipeline.slides import synthetic
from pipeline.slides.synthetic import CELL_PX, EMPTY, GLASS, DemoSlide, class_map, make_demo_slide, truth_paths
from pipeline.tiles.synthetic.tiles import CLASSES


@pytest.fixture(autouse=True)
def few_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw one block per class: drawing is what takes time."""
    monkeypatch.setattr(synthetic, "BLOCKS", 1)


def test_the_map_has_every_class_and_glass_around() -> None:
    truth = class_map(DemoSlide(8000))
    assert truth.shape == (160, 160)
    assert set(np.unique(truth)) == {GLASS, *(code for code in range(len(CLASSES)) if code != EMPTY)}
    assert (truth[[0, -1]] == GLASS).all()
    assert (truth[:, [0, -1]] == GLASS).all()
    assert 0.5 < (truth != GLASS).mean() < 0.9
    assert not np.array_equal(truth, class_map(DemoSlide(8000, seed=1)))


def test_pixels_are_those_of_the_class_in_the_map(tmp_path: Path) -> None:
    """Within JPEG's loss, every cell is the cell of a block of its class; 1301 is no multiple of anything."""
    openslide = pytest.importorskip("openslide")
    slide, path = DemoSlide(1301, source=4), tmp_path / "a.tif"
    assert make_demo_slide(path, slide)
    truth = np.asarray(Image.open(truth_paths(path)[0]))
    with openslide.OpenSlide(path) as opened:
        assert opened.level_dimensions == ((1301, 1301), (325, 325))
        assert float(opened.properties["openslide.mpp-x"]) == pytest.approx(0.495)
        pixels = np.asarray(opened.read_region((0, 0), 0, opened.dimensions).convert("RGB")).astype(int)
        small = np.asarray(opened.read_region((0, 0), 1, (325, 325)).convert("RGB")).astype(int)
    blocks = synthetic.library(slide).astype(int)
    codes = np.where(truth == GLASS, EMPTY, truth)
    for row, column in np.argwhere(np.ones((25, 25))):  # the cells that lie whole in whole blocks
        cell = pixels[row * CELL_PX : (row + 1) * CELL_PX, column * CELL_PX : (column + 1) * CELL_PX]
        y, x = row % 3 * CELL_PX, column % 3 * CELL_PX
        candidates = blocks[codes[row, column], :, y : y + CELL_PX, x : x + CELL_PX]
        assert np.abs(candidates - cell).mean(axis=(1, 2, 3)).min() < 12
    halves = pixels[:1300, :1300].reshape(325, 4, 325, 4, 3).mean(axis=(1, 3))
    assert np.abs(halves - small).mean() < 8


def test_levels_keep_their_own_pixels(tmp_path: Path) -> None:
    """Three levels: the second must not be overwritten while the third is made of it."""
    openslide = pytest.importorskip("openslide")
    path = tmp_path / "a.tif"
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 255, (130, 130, 1), dtype=np.uint8)  # colour is stored at half the resolution
    whole = grey.repeat(40, axis=0).repeat(40, axis=1).repeat(3, axis=2)
    synthetic.write_pyramid(path, iter(np.split(whole, 8)), side=5200, mpp=0.5)
    with openslide.OpenSlide(path) as opened:
        assert [side for side, _ in opened.level_dimensions] == [5200, 1300, 325]
        for level, step in ((1, 4), (2, 16)):
            side = 5200 // step
            found = np.asarray(opened.read_region((0, 0), level, (side, side)).convert("RGB")).astype(int)
            expected = whole.reshape(side, step, side, step, 3).mean(axis=(1, 3))
            assert np.abs(found - expected).mean() < 4


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    files = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        path = tmp_path / name / "slide.tif"
        make_demo_slide(path, DemoSlide(700))
        files.append([file.read_bytes() for file in (path, *truth_paths(path))])
    assert files[0] == files[1]
    assert json.loads(files[0][2])["classes"] == list(CLASSES)


def test_a_slide_that_stands_there_is_left_alone_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    assert make_demo_slide(path, DemoSlide(700))
    assert not make_demo_slide(path, DemoSlide(700))
    with pytest.raises(BadArtifact, match="another demo slide is there"):
        make_demo_slide(path, DemoSlide(700, seed=1))
    truth_paths(path)[0].unlink()
    assert make_demo_slide(path, DemoSlide(700))  # it was not whole


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert command.main(["--side", "700", "--source", "7"]) == 0
    assert (tmp_path / "data" / "demo-slides" / "CRC-Prim-HE-07_demo700-seed0-truth.json").is_file()
    assert command.main(["--side", "700", "--source", "7"]) == 0
    assert "demo_slide: current" in capsys.readouterr().err
    assert command.main(["--side", "10"]) == 2
