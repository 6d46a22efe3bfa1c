"""`tile`: which squares are tiles, what it says of them, and what it refuses in one line."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import tile
from pipeline.errors import BadArtifact, UsageError
from pipeline.slides import overlay as overlay_module
from pipeline.slides.grid import Grid, read_grid
from pipeline.slides.place import grid_path
from pipeline.slides.tiling import check_scale
from pipeline.storage import atomic, records

Make = Callable[..., Path]


def tile_words(run: Path, *more: str) -> list[str]:
    """The command line for the small model, which sees 32 px and does not know its scale."""
    return [*more, "--run", str(run), *(["--mpp-target", "0.5"] if "--mpp-target" not in more else [])]


def grid_of(run: Path, name: str = "slide") -> Grid:
    """Return a grid that was made."""
    return read_grid(grid_path(run, name))


def one_line(text: str) -> str:
    """Return the one line with which a command ended."""
    lines = [line for line in text.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, text
    assert "Traceback" not in text
    return lines[0]


def test_tiles_are_where_the_tissue_is(trained_run: Path, slide_file: Make, capsys: pytest.CaptureFixture[str]) -> None:
    path = slide_file()
    assert tile.main(tile_words(trained_run, str(path))) == 0
    grid = grid_of(trained_run)
    assert grid.coords.tolist() == [[x, y] for y in range(128, 384, 32) for x in range(128, 384, 32)]
    assert (grid.info.patch_size_level0, grid.info.stride_level0, grid.info.tile_px, grid.info.tile_mpp) == (
        *(32, 32),
        *(32, 0.5),
    )
    assert grid.info.slide_sha256 == atomic.sha256_file(path)
    said = capsys.readouterr().err
    for words in (
        "64 of 256 tiles",
        "32 px at 0.5 um/px (OpenSlide) resized to 32 px",
        "level 0 of 1 (not resized)",
        "stride 32 px",
    ):
        assert words in said
    record = records.read_record(grid.path)
    assert set(record["outputs"]) == {"slide-thumbnail.png", "slide-overlay.png"}
    assert Image.open(grid.path.with_name("slide-thumbnail.png")).size == (512, 512)
    assert record["details"]["thumbnail_downsample"] == 1
    capsys.readouterr()
    assert tile.main(tile_words(trained_run, str(path))) == 0
    assert "tile: current" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("mpp", "more", "side", "stride", "level"),
    [
        (0.25, (), 64, 64, 0),
        (0.125, (), 128, 128, 1),
        (0.5, ("--stride", "8"), 32, 8, 0),
        (0.5, ("--overlap", "0.5"), 32, 16, 0),
        (0.5, ("--mpp-target", "1.0"), 64, 64, 0),
        (0.51, (), 31, 31, 0),
    ],
)
def test_side_stride_and_level(
    trained_run: Path, slide_file: Make, mpp: float, more: tuple[str, ...], side: int, stride: int, level: int
) -> None:
    path = slide_file(side=1280, mpp=mpp)
    assert tile.main(tile_words(trained_run, str(path), *more)) == 0
    grid = grid_of(trained_run)
    assert (grid.info.patch_size_level0, grid.info.stride_level0, grid.details["level"]) == (side, stride, level)
    assert not (grid.coords % stride).any()
    assert (grid.coords + side <= 1280).all()
    centre = grid.coords + side / 2
    assert ((centre > 320 - side / 2) & (centre < 960 + side / 2)).all()


def test_all_tiles_of_a_slide_without_a_wish_for_tissue(trained_run: Path, slide_file: Make) -> None:
    """A rest at the right and lower edges that holds no whole tile is left out."""
    path = slide_file(side=500)
    assert tile.main(tile_words(trained_run, str(path), "--min-tissue", "0")) == 0
    assert len(grid_of(trained_run).table) == 15 * 15


def test_other_options_make_another_grid(trained_run: Path, slide_file: Make) -> None:
    path = slide_file()
    sizes = []
    for more in ((), ("--stride", "16"), ("--min-tissue", "0"), ("--threshold", "0.9", "--min-tissue", "0")):
        assert tile.main(tile_words(trained_run, str(path), *more)) == 0
        sizes.append(len(grid_of(trained_run).table))
    assert sizes == [64, sizes[1], 256, 256]
    assert sizes[1] >= 15 * 15


def bare_glass(folder: Path) -> Path:
    """Return a slide without tissue."""
    Image.new("RGB", (400, 400), (241, 240, 240)).save(folder / "glass.png")
    return folder / "glass.png"


@pytest.mark.fault("damaged or odd slide")
def test_what_is_refused_in_one_line(
    trained_run: Path, slide_file: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = str(slide_file())
    Image.new("RGB", (400, 20), "pink").save(tmp_path / "small.png")
    Image.new("RGB", (400, 400), "pink").save(tmp_path / "noscale.png")
    (tmp_path / "text.svs").write_text("not a slide")
    run = str(trained_run)
    cases = [
        ([good, "--run", run], 2, "does not state the scale it was trained at: give it by --mpp-target"),
        (tile_words(trained_run), 2, "no slide given"),
        (tile_words(trained_run, good, "--stride", "9", "--overlap", "0.5"), 2, "exclude one another"),
        (tile_words(trained_run, good, "--tile-px", "64"), 2, "trained on tiles of 32 px and would get 64"),
        (tile_words(trained_run, str(tmp_path / "none.svs")), 1, "none.svs: not there"),
        (tile_words(trained_run, str(tmp_path / "text.svs")), 1, "not a readable"),
        (tile_words(trained_run, str(tmp_path / "noscale.png")), 1, "give it by --mpp"),
        (tile_words(trained_run, str(tmp_path / "small.png"), "--mpp", "0.5"), 1, "smaller than one tile of 32 px"),
        (tile_words(trained_run, str(bare_glass(tmp_path)), "--mpp", "0.5"), 1, "no tissue: none of 144 tiles"),
        (
            tile_words(trained_run, good, "--mpp", "0.6"),
            1,
            "but the file states another scale (OpenSlide 0.5)",
        ),
        (
            tile_words(trained_run, str(tmp_path / "noscale.png"), "--mpp", "0.6"),
            1,
            "0.6 um/px, but the network needs 0.5",
        ),
        (tile_words(trained_run, str(tmp_path / "noscale.png"), "--mpp", "0.0001"), 1, "smaller than one tile"),
    ]
    for words, code, text in cases:
        assert tile.main(words) == code, words
        assert text in one_line(capsys.readouterr().err)
    assert tile.main(tile_words(trained_run, good, "--mpp", "0.6", "--force")) == 0
    assert tile.main(tile_words(trained_run, str(tmp_path / "noscale.png"), "--mpp", "0.5")) == 0


@pytest.mark.fault("damaged or odd slide")
def test_one_bad_slide_does_not_stop_the_rest(
    trained_run: Path, slide_file: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """P4."""
    for name in ("in/a.tif", "in/c.tif"):
        slide_file(name)
    (tmp_path / "in" / "b.tif").write_bytes(b"II*\0")
    assert tile.main(tile_words(trained_run, str(tmp_path / "in"))) == 3
    said = capsys.readouterr().err
    assert "tile: skipped b: " in said
    assert "1 of 3 slides could not be used" in said
    assert len(grid_of(trained_run, "a").table) == len(grid_of(trained_run, "c").table) == 64


def test_one_of_several_folders_without_slides_is_skipped_by_name(
    trained_run: Path, slide_file: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slide_file("in/a.tif")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "b.svs.partial").write_bytes(b"x")
    assert tile.main(tile_words(trained_run, str(tmp_path / "in"), str(tmp_path / "empty"))) == 3
    assert f"tile: skipped {tmp_path / 'empty'}: " in capsys.readouterr().err
    assert len(grid_of(trained_run, "a").table) == 64


def test_another_slide_of_the_name_is_refused(
    trained_run: Path, slide_file: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the hash, not by the path: also with another suffix."""
    first = slide_file("p1/HE.tif")
    others = [slide_file("p2/HE.tif", tissue=(0, 0, 128, 128)), slide_file("p3/HE.tiff", tissue=(0, 0, 96, 96))]
    assert tile.main(tile_words(trained_run, str(first))) == 0
    before = grid_path(trained_run, "HE").read_bytes()
    for other in others:
        capsys.readouterr()
        assert tile.main(tile_words(trained_run, str(other))) == 1
        line = one_line(capsys.readouterr().err)
        assert str(first) in line
        assert str(other) in line
    assert grid_path(trained_run, "HE").read_bytes() == before
    moved = first.rename(first.with_name("moved.tif"))
    moved = moved.rename(others[0])
    assert tile.main(tile_words(trained_run, str(moved))) == 0
    assert tile.main(tile_words(trained_run, str(others[1]), "--restart")) == 0
    assert grid_of(trained_run, "HE").info.slide_sha256 == atomic.sha256_file(others[1])


def test_the_scale_in_the_file_wins_over_the_option(
    trained_run: Path, slide_file: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--mpp fills in where a file states none; a cell of a table overrules the file, and the message says so."""
    slide_file("in/b.tif", mpp=0.25, side=1024)
    slide_file("in/a.tif", mpp=0.4985)
    Image.open(tmp_path / "in" / "a.tif").save(tmp_path / "in" / "c.png")
    assert tile.main(tile_words(trained_run, str(tmp_path / "in"), "--mpp", "0.5")) == 3
    said = capsys.readouterr().err
    assert "skipped b: " in said
    assert "--mpp 0.5 um/px, but the file states another scale (OpenSlide 0.25)" in said
    found = {name: grid_of(trained_run, name) for name in ("a", "c")}
    assert (found["a"].info.mpp, found["a"].details["mpp_from"]) == (pytest.approx(0.4985), "OpenSlide")
    assert (found["c"].info.mpp, found["c"].details["mpp_from"]) == (0.5, "--mpp")
    (tmp_path / "list.csv").write_text("slide,mpp\nin/b.tif,0.5\n")
    assert tile.main(tile_words(trained_run, str(tmp_path / "list.csv"))) == 0
    assert "line 2 0.5 um/px is used, but the file states other um/px (OpenSlide 0.25)" in capsys.readouterr().err
    assert grid_of(trained_run, "b").info.mpp == 0.5
    words = tile_words(trained_run, str(tmp_path / "in" / "b.tif"), "--mpp", "0.125")
    assert tile.main([*words, "--force"]) == 0
    assert grid_of(trained_run, "b").info.mpp == 0.125


def test_pen_marks_are_left_out_and_said(trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    pixels = np.full((640, 640, 3), 242.0)
    pixels[64:320, 64:320] = np.array([200, 110, 170]) + rng.normal(0, 20, (256, 256, 1))
    pixels[400:560, 64:576] = (20, 120, 90)
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(tmp_path / "pens.png")
    words = tile_words(trained_run, str(tmp_path / "pens.png"), "--mpp", "0.5")
    assert tile.main(words) == 0
    assert "pen marks cover" in capsys.readouterr().err
    grid = grid_of(trained_run, "pens")
    assert (grid.coords[:, 1] < 320).all()
    assert grid.details["ink_share_of_slide"] == pytest.approx(0.3, abs=0.12)
    with Image.open(grid.path.with_name("pens-overlay.png")) as overlay:
        colours = {colour for _, colour in overlay.getcolors(1 << 20) or []}
    assert {overlay_module.INK, overlay_module.BORDER} <= colours
    assert tile.main([*words, "--keep-ink"]) == 0
    assert (grid_of(trained_run, "pens").coords[:, 1] > 380).any()


@pytest.mark.parametrize(
    ("alpha", "code", "words"),
    [
        (0, 1, "its alpha channel (at most 0 of 255) hides it: drop the channel"),
        (1, 1, "its alpha channel (at most 1 of 255) hides it"),
        (255, 0, ""),
        ("half", 0, "its alpha channel hides 50.0%, which counts as glass"),
    ],
)
def test_an_alpha_channel_that_is_a_mask(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], alpha: int | str, code: int, words: str
) -> None:
    pytest.importorskip("openslide")
    tifffile = pytest.importorskip("tifffile")
    pytest.importorskip("imagecodecs")
    pixels = np.random.default_rng(0).integers(-25, 25, (512, 512, 1)) + np.array([200, 110, 170])
    channel = np.full((512, 512), 255 if alpha == "half" else alpha)
    if alpha == "half":
        channel[:, 256:] = 0
    tifffile.imwrite(
        tmp_path / "s.tif",
        np.dstack([pixels, channel]).astype(np.uint8),
        photometric="rgb",
        tile=(256, 256),
        compression="deflate",
        extrasamples=["unassalpha"],
        resolution=(2e4, 2e4),
        resolutionunit="CENTIMETER",
        metadata=None,
    )
    assert tile.main(tile_words(trained_run, str(tmp_path / "s.tif"))) == code
    said = capsys.readouterr().err
    assert words in said
    assert ("alpha channel" in said) == bool(words)


def test_a_slide_of_which_nothing_can_be_decoded_is_refused(
    trained_run: Path, slide_file: Make, spoil: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    path = slide_file()
    for x in (0, 256):
        for y in (0, 256):
            spoil(path, x, y)
    assert tile.main(tile_words(trained_run, str(path))) == 1
    assert "no part of it can be decoded" in one_line(capsys.readouterr().err)


def test_another_scale_than_the_networks_is_refused_unless_told() -> None:
    check_scale(96, 0.5, tile_px=96, tile_mpp=0.51, force=False)
    check_scale(96, None, tile_px=96, tile_mpp=3, force=False)
    with pytest.raises(UsageError, match=r"trained at 0\.5 um/px and would get 1"):
        check_scale(96, 0.5, tile_px=96, tile_mpp=1, force=False)
    check_scale(96, 0.5, tile_px=50, tile_mpp=1, force=True)


def test_a_grid_that_was_edited_is_refused(trained_run: Path, slide_file: Make) -> None:
    assert tile.main(tile_words(trained_run, str(slide_file()))) == 0
    path = grid_path(trained_run, "slide")
    text = path.read_text()
    path.write_text(text.replace("128,128,", "129,128,"))
    with pytest.raises(BadArtifact, match="its bytes are not those that were written"):
        read_grid(path)
    broken = {
        "reaches out of the slide": text.replace("352,352,", "490,352,"),
        "not in row order": text.replace("128,128,", "384,128,"),
        "not a number of px": text.replace("128,128,", "-1,128,"),
    }
    record = records.read_record_alone(path)
    for rule, changed in broken.items():
        path.write_text(changed)
        details = record["details"]
        records.write_record(records.Artifact(path, "grid/1.0", "tile", record["options"]), details=details)
        with pytest.raises(BadArtifact, match=rule):
            read_grid(path)


def test_a_link_in_the_run_leads_no_write_elsewhere(
    trained_run: Path, slide_file: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """P5."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for place in (trained_run / "slides", trained_run / "slides" / "slide"):
        place.symlink_to(elsewhere)
        assert tile.main(tile_words(trained_run, str(slide_file()))) == 1
        assert "a link, which may lead out of the run folder" in one_line(capsys.readouterr().err)
        place.unlink()
        (trained_run / "slides").mkdir(exist_ok=True)
    assert not list(elsewhere.iterdir())


def test_a_killed_runs_leftovers_are_removed(trained_run: Path, slide_file: Make) -> None:
    assert tile.main(tile_words(trained_run, str(slide_file()))) == 0
    leftover = grid_path(trained_run, "slide").with_name(".grid.csv.abcd1234.tmp")
    shutil.copy(grid_path(trained_run, "slide"), leftover)
    assert tile.main(tile_words(trained_run, str(slide_file()))) == 0
    assert not leftover.exists()


def test_tiles_in_what_cannot_be_decoded_are_taken(
    trained_run: Path, slide_file: Make, spoil: Callable[..., None]
) -> None:
    """P4: whether there is tissue is not known, so the tiles are tried and marked."""
    path = slide_file(tissue=(0, 0, 128, 128))
    spoil(path, 400, 400)
    assert tile.main(tile_words(trained_run, str(path))) == 0
    taken = {(int(x), int(y)) for x, y in grid_of(trained_run).coords}
    tissue = {(x, y) for x in range(0, 128, 32) for y in range(0, 128, 32)}
    assert taken == tissue | {(x, y) for x in range(256, 512, 32) for y in range(256, 512, 32)}


def test_the_large_images_of_kather2016(trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A local copy: their scale is known, their sources are read from their names."""
    folder = tmp_path / "Kather_texture_2016_larger_images_10"
    folder.mkdir()
    pink = np.full((200, 200, 3), (200, 110, 170), np.uint8)
    for number in range(1, 11):
        Image.fromarray(pink).save(folder / f"CRC-Prim-HE-{number:02d}_APPLICATION.tif")
    words = ["--data", "kather2016-large", "--source", str(folder), "--run", str(trained_run)]
    assert tile.main([*words, "--mpp-target", "0.495"]) == 0
    assert "tile: slide 10 of 10, CRC-Prim-HE-10_APPLICATION" in capsys.readouterr().err
    grid = grid_of(trained_run, "CRC-Prim-HE-04_APPLICATION")
    assert (grid.info.mpp, grid.info.patch_size_level0, len(grid.table)) == (0.495, 32, 36)
    assert tile.main(["--source", str(folder), "--run", str(trained_run)]) == 2
    assert "--source goes with --data kather2016-large" in one_line(capsys.readouterr().err)
