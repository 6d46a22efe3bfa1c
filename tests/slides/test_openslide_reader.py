"""Slides give the right pixels of every format, say what they are, and never pass damage off as tissue or glass."""

import copy
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import BadSlide, BadTile
from pipeline.slides import base, openslide_reader
from pipeline.slides.openslide_reader import open_slide
from pipeline.slides.scale import GivenMpp

Make = Callable[..., Path]
REAL = Path(__file__).parents[2] / "../shared/data/slides"


def picture(width: int = 300, height: int = 200) -> np.ndarray:
    """Return (height, width, 3) uint8 of noise in cells of 10 px."""
    rng = np.random.default_rng(5)
    cells = rng.integers(0, 256, (height // 10, width // 10, 3), dtype=np.uint8)
    return cells.repeat(10, axis=0).repeat(10, axis=1)


def test_a_tile_is_read_from_the_best_level(slide_file: Make) -> None:
    path = slide_file(side=1280)
    with open_slide(path) as slide:
        assert slide.dimensions == (1280, 1280)
        assert slide.level_downsamples == (1.0, 4.0)
        assert slide.mpp == pytest.approx(0.5)
        assert [slide.best_level(step) for step in (0.5, 1, 3.9, 4, 100)] == [0, 0, 0, 1, 1]
        whole = slide.read_region_rgb(0, 0, 1280, 1280, 0)
        assert np.array_equal(slide.read_tile(300, 200, 64, 64), whole[200:264, 300:364])
        assert np.array_equal(slide.read_tile(320, 200, 256, 64), slide.read_region_rgb(320, 200, 64, 64, 1))
        halved = np.asarray(Image.fromarray(whole[200:328, 300:428]).resize((64, 64), Image.Resampling.BILINEAR))
        assert np.array_equal(slide.read_tile(300, 200, 128, 64), halved)
        corner = slide.read_tile(1280 - 255, 1280 - 255, 255, 60)  # the level's edge lies within half a pixel
        assert corner.shape == (60, 60, 3)
        assert (corner > 220).all()


def test_the_thumbnail_is_the_slide_made_small(slide_file: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "BLOCK_PX", 100)  # many blocks
    with open_slide(slide_file(side=500)) as slide:
        small = slide.thumbnail(125)
        assert small.pixels.shape == (125, 125, 3)
        assert small.downsample == 4
        expected = np.asarray(Image.fromarray(slide.read_region_rgb(0, 0, 500, 500, 0)).reduce(4)).astype(int)
        assert np.abs(small.pixels - expected).max() <= 2
        assert not small.unreadable.any()
        assert slide.thumbnail(9999).pixels.shape == (500, 500, 3)  # never enlarged


def test_all_slides_of_a_process_share_one_cache(slide_file: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory does not grow with the number of threads and open slides."""
    made: list[int] = []
    path, real = slide_file(side=500), pytest.importorskip("openslide").OpenSlideCache
    monkeypatch.setattr(openslide_reader, "_CACHES", {})
    monkeypatch.setattr("openslide.OpenSlideCache", lambda size: made.append(size) or real(size))
    with open_slide(path) as first, ThreadPoolExecutor(3) as pool:
        read = [*pool.map(lambda _: openslide_reader.read_square(path, 0, 0, side=64, px=64)[0], range(6))]
        assert all(np.array_equal(pixels, first.read_tile(0, 0, 64, 64)) for pixels in read)
    assert made[0] == openslide_reader.CACHE_BYTES
    assert len(openslide_reader._CACHES) == 1


@pytest.mark.fault("damaged or odd slide")
def test_damage_is_told_and_the_rest_is_still_read(slide_file: Make, spoil: Callable[..., None]) -> None:
    path = slide_file()
    spoil(path, 300, 10)
    with open_slide(path) as slide:
        left = slide.read_tile(0, 0, 200, 50)
        with pytest.raises(BadTile, match=r"slide\.tif: the region at 200, 0 cannot be read"):
            slide.read_tile(200, 0, 200, 50)
        assert np.array_equal(slide.read_tile(0, 0, 200, 50), left)
        small = slide.thumbnail(64)
        assert np.array_equal(
            np.argwhere(small.unreadable).min(axis=0), [0, 32]
        )  # the block of 256 px, 8 times smaller
        assert small.unreadable.sum() == 32 * 32
        assert (small.pixels[small.unreadable] == 128).all()


def test_other_processes_open_their_own(slide_file: Make, tmp_path: Path) -> None:
    """What a worker gets is the slide without its handle or pixels."""
    flat = tmp_path / "flat.png"
    Image.fromarray(picture()).save(flat)
    for path, mpp in ((slide_file(), None), (flat, 0.5)):
        with open_slide(path, mpp) as slide:
            first = slide.read_tile(100, 100, 50, 50)
            sent = copy.copy(slide)
            assert not any(isinstance(value, np.ndarray) for value in sent.__dict__.values())
            assert np.array_equal(sent.read_tile(100, 100, 50, 50), first)
            slide.close()
            assert np.array_equal(slide.read_tile(100, 100, 50, 50), first)


@pytest.mark.parametrize("how", ["raw.tif", "grey.tif", "lzw.tif", "a.png", "a.jpg", "a.webp"])
def test_plain_pictures(tmp_path: Path, how: str) -> None:
    path = tmp_path / how
    pixels = picture()
    if how == "grey.tif":
        pixels = pixels[:, :, :1].repeat(3, axis=2)
    image = Image.fromarray(pixels).convert("L" if how == "grey.tif" else "RGB")
    image.save(path, **{"lzw.tif": {"compression": "tiff_lzw"}, "a.webp": {"lossless": True}}.get(how, {}))
    with open_slide(path, 0.25) as slide:
        assert slide.dimensions == (300, 200)
        assert slide.mpp == 0.25
        assert slide.level_downsamples == (1.0,)
        found = slide.read_region_rgb(20, 30, 110, 90, 0)
        assert found.dtype == np.uint8
        assert np.abs(found.astype(int) - pixels[30:120, 20:130]).mean() < (20 if how == "a.jpg" else 0.01)


def test_a_tiff_says_its_scale_only_if_a_scanner_could_have(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(picture()).save(path, resolution_unit=3, x_resolution=20_000, y_resolution=20_000)
    assert open_slide(path).mpp == pytest.approx(0.5)
    assert open_slide(path, GivenMpp(0.3, overrules=True)).mpp == 0.3
    with pytest.raises(BadSlide, match="another scale"):
        open_slide(path, 0.3)
    for dpi in ((72, 72), (0, 0)):
        Image.fromarray(picture()).save(path, dpi=dpi)
        with pytest.raises(BadSlide, match="does not state how many micrometres a pixel is: give it by --mpp"):
            open_slide(path)
    Image.fromarray(picture()).save(path, resolution_unit=3, x_resolution=20_000, y_resolution=30_000)
    with pytest.raises(BadSlide, match="pixels that are not square"):
        open_slide(path)
    Image.fromarray(picture()).save(tmp_path / "a.png", dpi=(50_800, 50_800))
    with pytest.raises(BadSlide, match="--mpp"):  # a PNG's resolution is a printer's
        open_slide(tmp_path / "a.png")


@pytest.mark.fault("damaged or odd slide")
def test_what_cannot_be_opened(slide_file: Make, tmp_path: Path) -> None:
    whole = slide_file().read_bytes()
    Image.fromarray(picture()).save(tmp_path / "raw.tif")
    raw = (tmp_path / "raw.tif").read_bytes()
    bad = {
        "half.tif": (whole[: len(whole) // 2], "half.tif"),
        "tail.tif": (whole[:-500], "tail.tif"),
        "raw.tif": (raw[: len(raw) // 2], "truncated"),
        "text.svs": (b"not a slide", "not a readable"),
        "empty.tif": (b"", "an empty file"),
        "pointer.svs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        "head.tif": (b"II*\0\xff\xff\xff\xff", "not a readable TIFF"),
    }
    for name, (data, words) in bad.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(BadSlide) as caught:
            open_slide(tmp_path / name, 0.5)
        assert words in str(caught.value), name
        assert str(caught.value).startswith(str(tmp_path / name))
    with pytest.raises(BadSlide, match="not there"):
        open_slide(tmp_path / "none.svs")
    with pytest.raises(BadSlide, match="no slides in this folder"):
        open_slide(tmp_path)
    for name, target, words in (
        ("link.svs", "/archive/s.svs", r"a broken link: /archive/s\.svs is not there"),
        ("annex.svs", "../.git/annex/objects/a/b", "git annex get"),
        ("loop.svs", "loop.svs", "a broken link"),
    ):
        (tmp_path / name).symlink_to(target)
        with pytest.raises(BadSlide, match=words):
            open_slide(tmp_path / name)


LARGE = """
import resource, sys
from pathlib import Path
from pipeline.slides.openslide_reader import open_slide
from pipeline.slides.scale import GivenMpp
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with open_slide(Path(sys.argv[1]), 0.5) as slide:
    assert slide.dimensions == (60000, 60000), slide.dimensions
    assert slide.read_tile(59000, 59000, 600, 300).max() == 0
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.fault("damaged or odd slide")
def test_an_uncompressed_tiff_larger_than_memory_is_not_loaded(tmp_path: Path) -> None:
    """10.8 GB by its header, stored as a hole in the file."""
    tifffile = pytest.importorskip("tifffile")
    path = tmp_path / "large.tif"
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        writer.write(np.zeros((16, 16, 3), np.uint8), photometric="rgb", contiguous=False)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        page = tiff.pages[0]
        for name, value in (("ImageWidth", 60_000), ("ImageLength", 60_000), ("RowsPerStrip", 60_000)):
            page.tags[name].overwrite(value)
        page.tags["StripByteCounts"].overwrite(60_000 * 60_000 * 3)
        start = page.dataoffsets[0]
    with path.open("r+b") as file:
        file.truncate(start + 60_000 * 60_000 * 3)
    done = subprocess.run([sys.executable, "-c", LARGE, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 200_000  # kB


@pytest.mark.fault("damaged or odd slide")
def test_a_compressed_picture_larger_than_pillow_takes_is_refused(tmp_path: Path) -> None:
    """Pillow's limit stands: it is lifted nowhere."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.new("1", (10_000, 9_500)).save(tmp_path / "large.png")
    with pytest.raises(BadSlide, match="more than Pillow's limit"):
        open_slide(tmp_path / "large.png", 0.5)
    assert limit == Image.MAX_IMAGE_PIXELS


def test_without_openslide_plain_pictures_are_read_and_the_extra_is_named(
    slide_file: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = slide_file()
    Image.fromarray(picture()).save(tmp_path / "a.png")
    (tmp_path / "a.svs").write_bytes(b"of some scanner")
    monkeypatch.setitem(sys.modules, "openslide", None)
    assert open_slide(tmp_path / "a.png", 0.5).dimensions == (300, 200)
    assert open_slide(path, 0.5).dimensions == (512, 512)  # small enough to be decoded whole
    with pytest.raises(BadSlide, match=r"pip install 'histoheads\[slides\]'"):
        open_slide(tmp_path / "a.svs", 0.5)


@pytest.mark.fault("damaged or odd slide")
def test_a_huge_slide_without_a_small_level_is_refused(slide_file: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "MOST_OVERVIEW_PX", 512 * 512 - 1)
    with open_slide(slide_file()) as slide, pytest.raises(BadSlide, match="make it a pyramid"):
        slide.thumbnail(100)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real slides are not here")
def test_real_slides() -> None:
    """An Aperio SVS with its scale; one in JPEG 2000 without."""
    pytest.importorskip("openslide")
    with open_slide(REAL / "cmu_small_region.svs") as slide:
        assert (slide.format, slide.dimensions, slide.mpp) == ("aperio", (2220, 2967), 0.499)
        assert slide.thumbnail(300).pixels.std() > 10
    with pytest.raises(BadSlide, match="--mpp"):
        open_slide(REAL / "tcga-cr-7395-01a-01-ts1.svs")
    with open_slide(REAL / "tcga-cr-7395-01a-01-ts1.svs", 0.5) as slide:
        assert len(slide.level_downsamples) == 2
        assert slide.read_tile(2000, 1500, 300, 150).std() > 10
