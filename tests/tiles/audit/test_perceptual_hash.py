"""Changed copies are found in every orientation; tiles that only resemble each other are not."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from scipy.ndimage import gaussian_filter

from pipeline.tiles.audit.measure import measure, survey
from pipeline.tiles.audit.perceptual_hash import (
    MAX_DISTANCE,
    ORIENTATIONS,
    candidates,
    near_duplicates,
    orient,
    perceptual_hashes,
)
from pipeline.tiles.datasets.files import list_images
from pipeline.tiles.synthetic.tiles import make_demo

IDC = Path(__file__).parents[3] / "../shared/data/idc_patches"
COLORECTAL = Path(__file__).parents[3] / "../shared/data/colorectal5"


def tissue(seed: int, px: int = 150) -> Image.Image:
    """Soft blobs of two stains, different for each seed."""
    rng = np.random.default_rng(seed)
    noise = [gaussian_filter(rng.normal(size=(px, px)), sigma) for sigma in (2, 6)]
    field = sum(layer / layer.std() for layer in noise)
    pixels = np.array([200, 130, 180]) + field[..., None] * np.array([-25, -30, -15])
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=75)
    return Image.open(buffer).convert("RGB")


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG": jpeg,
    "brighter by 3 %": lambda image: ImageEnhance.Brightness(image).enhance(1.03),
    "150 to 140 to 150 px": lambda image: image.resize((140, 140)).resize((150, 150)),
    "140 px": lambda image: image.resize((140, 140)),
    "all of it": lambda image: jpeg(ImageEnhance.Brightness(image.resize((140, 140)).resize((150, 150))).enhance(1.03)),
}


def pairs_of(images: list[Image.Image]) -> list[tuple[int, int]]:
    measured = [measure(np.asarray(image)) for image in images]
    hashes, thumbnails = np.stack([m[0] for m in measured]), np.stack([m[1] for m in measured])
    return [(int(i), int(j)) for i, j in near_duplicates(hashes, thumbnails)]


@pytest.mark.parametrize("change", CHANGES)
def test_planted_copies_are_found_in_all_eight_orientations_and_nothing_else(change: str) -> None:
    originals = [tissue(seed) for seed in range(16)]
    copies = [
        CHANGES[change](Image.fromarray(np.ascontiguousarray(np.asarray(image).transpose(axes)[::v, ::h])))
        for image, (axes, v, h) in zip(
            originals, [(a, v, h) for a in ((0, 1, 2), (1, 0, 2)) for v in (1, -1) for h in (1, -1)], strict=False
        )
    ]
    assert len(copies) == 8
    assert pairs_of(originals + copies) == [(i, 16 + i) for i in range(8)]


@given(st.integers(0, 7), st.integers(0, 10_000))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_the_hashes_of_a_turned_tile_are_those_of_the_tile_in_another_order(orientation: int, seed: int) -> None:
    grey = np.random.default_rng(seed).normal(100, 40, (32, 32))
    hashes = perceptual_hashes(grey)
    turned = perceptual_hashes(orient(grey, orientation))
    assert turned[0] == hashes[orientation]
    assert set(turned) == set(hashes)
    assert hashes.dtype == np.uint64
    assert len(set(hashes)) == 8


def test_the_eight_orientations_are_all_different() -> None:
    thumbnail = np.arange(9).reshape(3, 3)
    assert len({orient(thumbnail, k).tobytes() for k in range(len(ORIENTATIONS))}) == 8
    assert (orient(thumbnail, 0) == thumbnail).all()


@given(st.integers(0, 10_000), st.integers(2, 40))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_the_index_finds_what_comparing_all_with_all_finds(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**63, (n, 8), dtype=np.uint64)
    for j in range(1, n):  # plant pairs at distances around the limit
        flips = rng.choice(64, size=int(rng.integers(0, 12)), replace=False)
        hashes[j, rng.integers(8)] = hashes[rng.integers(j), 0] ^ sum(np.uint64(1) << np.uint64(bit) for bit in flips)
    found = {(int(i), int(j)) for rows in candidates(hashes) for i, j in zip(*rows, strict=True)}
    apart = np.bitwise_count(hashes[:, None, None, 0] ^ hashes[None, :, :]).min(axis=2)
    assert found == {(i, j) for i in range(n) for j in range(i + 1, n) if apart[i, j] <= MAX_DISTANCE}


def test_many_copies_of_one_tile_are_joined() -> None:
    pairs = pairs_of([tissue(1), tissue(2), *(tissue(1) for _ in range(30))])
    assert pairs == [(0, j) for j in range(2, 32)]


def test_blank_tiles_are_not_compared() -> None:
    rng = np.random.default_rng(0)
    blank = [Image.fromarray(rng.integers(235, 240, (150, 150, 3)).astype(np.uint8)) for _ in range(5)]
    same = Image.new("RGB", (150, 150), (240, 240, 240))
    assert pairs_of([*blank, same, same]) == []
    assert len(near_duplicates(np.zeros((0, 8), np.uint64), np.zeros((0, 16, 16), np.uint8))) == 0


def test_a_tile_that_shares_half_of_its_pixels_is_another_tile() -> None:
    wide = np.asarray(tissue(3, px=300))
    assert pairs_of([Image.fromarray(wide[:150, :150]), Image.fromarray(wide[:150, 75:225])]) == []


def test_much_brighter_is_another_tile() -> None:
    assert pairs_of([tissue(1), ImageEnhance.Brightness(tissue(1)).enhance(0.7)]) == []


def test_no_two_tiles_of_the_demo_are_taken_for_copies(tmp_path: Path) -> None:
    make_demo(tmp_path / "demo", n_tiles=160, tile_px=64, seed=0)
    paths = list_images(tmp_path / "demo").images
    _, measured = survey(tmp_path / "demo", paths, workers=1)
    assert len(near_duplicates(measured.hashes, measured.thumbnails)) == 0


@pytest.mark.skipif(not IDC.is_dir(), reason="../shared/data/idc_patches is not there")
def test_no_two_real_tiles_are_taken_for_copies() -> None:
    """Grey edges of slides, all but equal at 16 x 16 px, are among them."""
    paths = sorted(path.relative_to(IDC).as_posix() for path in IDC.glob("class0/12878*"))
    paths += sorted(path.relative_to(IDC).as_posix() for path in IDC.glob("class*/1[34]*"))[:400]
    _, measured = survey(IDC, paths, workers=1)
    assert len(near_duplicates(measured.hashes, measured.thumbnails)) == 0


@pytest.mark.skipif(not COLORECTAL.is_dir(), reason="../shared/data/colorectal5 is not there")
def test_real_tiles_that_someone_turned_and_stored_again() -> None:
    paths = [f"H/image_H_{n}.jpg" for n in (2409, 2783, 1707, 3205, 1172, 269, 1011, 3486)]
    _, measured = survey(COLORECTAL, paths, workers=1)
    assert near_duplicates(measured.hashes, measured.thumbnails).tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
