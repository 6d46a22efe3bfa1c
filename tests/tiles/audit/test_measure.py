"""What is measured of a tile, and that an unreadable one keeps its place."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from pipeline.tiles.audit.measure import QUALITY, measure, survey
from pipeline.tiles.decoding import pixel_hash


def quality(pixels: np.ndarray) -> dict[str, float]:
    return dict(zip(QUALITY, measure(pixels)[2], strict=True))


def test_known_tiles_measure_as_they_must() -> None:
    white = quality(np.full((150, 150, 3), 255, np.uint8))
    assert white == pytest.approx(
        {"brightness": 1, "contrast": 0, "saturation": 0, "red": 1, "green": 1, "blue": 1, "background": 1}
        | {"sharpness": 0}
    )
    assert quality(np.zeros((50, 50, 3), np.uint8))["background"] == 1
    red = quality(np.broadcast_to(np.array([200, 0, 100], np.uint8), (64, 64, 3)))
    assert (red["red"], red["green"], red["blue"]) == pytest.approx((200 / 255, 0, 100 / 255))
    assert (red["saturation"], red["background"]) == (1, 0)
    halves = np.zeros((128, 128, 3), np.uint8)
    halves[:, 64:] = 200
    found = quality(halves)
    assert found["brightness"] == pytest.approx(100 / 255)
    assert found["contrast"] == pytest.approx(100 / 255)
    assert found["background"] == 0.5  # black is, 200 is not
    # the Laplacian is +200 and -200 in the two columns at the edge, 0 in the other 124
    assert found["sharpness"] == pytest.approx(2 * 200**2 / 126)


def test_blur_lowers_the_sharpness_and_size_does_not_change_the_rest() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (150, 150, 3), dtype=np.uint8)
    soft = np.asarray(Image.fromarray(noise).filter(ImageFilter.GaussianBlur(2)))
    assert quality(soft)["sharpness"] < quality(noise)["sharpness"] / 20
    twice = np.asarray(Image.fromarray(soft).resize((300, 300)))
    assert quality(twice)["contrast"] == pytest.approx(quality(soft)["contrast"], rel=0.1)
    assert quality(twice)["brightness"] == pytest.approx(quality(soft)["brightness"], rel=0.01)


def test_measurements_are_small_and_in_the_order_of_the_paths(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = [f"{i}.png" for i in range(9)]
    for i, name in enumerate(names):
        Image.fromarray(rng.integers(0, 256, (20, 30 + i, 3), dtype=np.uint8)).save(tmp_path / name)
    (tmp_path / names[4]).write_text("no image")
    (tmp_path / names[5]).unlink()
    table, measured = survey(tmp_path, names, workers=3)
    assert list(table.columns) == ["sha256", "width", "height", "problem"]
    assert list(table["width"]) == [30, 31, 32, 33, 0, 0, 36, 37, 38]
    assert list(table["height"]) == [20] * 4 + [0, 0] + [20] * 3
    assert [problem[:14] for problem in table["problem"].iloc[3:6]] == ["", "not a readable", "not there"]
    assert measured.notes == [""] * 9
    assert list(table["sha256"].iloc[4:6]) == ["", ""]
    with Image.open(tmp_path / names[8]) as image:
        pixels = np.asarray(image)
    assert table["sha256"].iloc[8] == pixel_hash(pixels).hex()
    hashes, thumbnail, values = measure(pixels)
    assert (measured.hashes[8] == hashes).all()
    assert (measured.thumbnails[8] == thumbnail).all()
    assert measured.quality.loc[8].to_numpy() == pytest.approx(values, rel=1e-6)
    assert measured.quality.isna().all(axis=1).tolist() == [False] * 4 + [True] * 2 + [False] * 3
    assert (measured.hashes.dtype, measured.thumbnails.dtype) == (np.uint64, np.uint8)
    per_tile = (measured.hashes.nbytes + measured.thumbnails.nbytes + measured.quality.to_numpy().nbytes) / 9
    assert per_tile < 1000


def test_the_number_of_threads_changes_nothing(tmp_path: Path) -> None:
    for i in range(6):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(
            tmp_path / f"{i}.png"
        )
    names = [f"{i}.png" for i in range(6)]
    one, four = survey(tmp_path, names, workers=1), survey(tmp_path, names, workers=4)
    assert one[0].equals(four[0])
    assert one[1].quality.equals(four[1].quality)
    assert (one[1].hashes == four[1].hashes).all()
