"""The whole job on annotated slides: prepare cuts them, and every later stage reads the tiles from the slides."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline import baselines, extract, fit_heads, prepare, report, robustness, train, verify
from pipeline.errors import BadTile
from pipeline.network.extraction.slide_model import source_of
from pipeline.slides.find import SlideEntry
from pipeline.storage.embeddings.reader import read_embeddings
from pipeline.tiles.decoding import SQUARE, decode_tile, pixel_hash, square_name
from pipeline.tiles.manifest import read_manifest

from .annotations.making import BOX_A, BOX_B, annotated_folder, box_of, draw_slide, write_features

pytest.importorskip("openslide")
pytest.importorskip("imagecodecs")
pytest.importorskip("shapely")
CUT = ("--cut-px", "16", "--cut-mpp", "1.0", "--workers", "1")
EACH_ALONE = "each slide is a group"
"""Beginning of the warning of the audit."""


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four annotated slides; copied, never changed."""
    return annotated_folder(tmp_path_factory.mktemp("annotated") / "slides")


@pytest.fixture(scope="module")
def prepared(slides: Path) -> Path:
    """A run whose tiles are squares of the slides."""
    run = slides.parent / "run"
    assert prepare.main(["--run", str(run), "--data", str(slides), *CUT]) == 0
    return run


def one_error(said: str) -> str:
    """Return the one line with which a command ended."""
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    return line


def test_every_tile_is_a_square_of_a_slide_under_its_annotation(prepared: Path, slides: Path) -> None:
    manifest = read_manifest(prepared / "manifest.csv")
    assert manifest.root.samefile(slides)
    assert manifest.details["mpp"] == 1.0
    assert manifest.details["slides"] == {f"s{i}.tif": f"s{i}" for i in range(4)}
    table = manifest.table
    expected = {
        (f"s{i}.tif/{square_name(x, y, side=32, px=16)}", name)
        for i in range(4)
        for name, (left, top, right, bottom) in (("A", BOX_A), ("B", BOX_B))
        for x in range(left, right, 32)
        for y in range(top, bottom, 32)
    }
    assert set(zip(table["path"], table["label"], strict=True)) == expected
    assert (set(table["width"]), set(table["height"])) == ({16}, {16})
    first = table.iloc[0]
    assert pixel_hash(decode_tile(manifest.root / first["path"])).hex() == first["sha256"]


@pytest.mark.fault("group in two splits, class missing in one, too few groups")
def test_p7_the_tiles_of_a_slide_are_in_one_split(prepared: Path) -> None:
    table = read_manifest(prepared / "manifest.csv").table
    assert table.groupby("group")["split"].nunique().eq(1).all()
    assert (table["path"].str.split(".").str[0] == table["group"]).all()


def test_the_source_of_an_annotated_slide_is_its_group(prepared: Path, slides: Path) -> None:
    """A map of it then states whether the network was trained on it."""
    manifest = read_manifest(prepared / "manifest.csv")
    assert source_of(SlideEntry(slides / "s2.tif", "s2"), manifest) == "s2"
    assert source_of(SlideEntry(slides / "s2.tif", "s2", group="S1"), manifest) == "s1"
    assert source_of(SlideEntry(Path("else.tif"), "else"), manifest) is None


def test_an_overlay_of_each_slide_is_recorded(prepared: Path) -> None:
    for i in range(4):
        assert (prepared / "figures" / "annotations" / f"s{i}.png").is_file()
    assert verify.main(["--run", str(prepared)]) == 0


def test_the_audit_warns_where_each_slide_is_a_group(prepared: Path) -> None:
    """A patient may have several slides."""
    assert (prepared / "audit.md").read_text().count(EACH_ALONE) == 1


def test_stored_tiles_have_the_same_rows_and_hashes(prepared: Path, slides: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert prepare.main(["--run", str(run), "--data", str(slides), *CUT, "--write-tiles"]) == 0
    assert (run / "manifest.csv").read_bytes() == (prepared / "manifest.csv").read_bytes()
    manifest = read_manifest(run / "manifest.csv")
    assert manifest.root.samefile(run / "tiles")
    assert sorted(path.relative_to(manifest.root).as_posix() for path in manifest.root.rglob("*.png")) == sorted(
        manifest.table["path"]
    )
    words = ["--run", str(run), "--data", str(slides), *CUT, "--write-tiles", "--restart", "--tiles-per-class", "20"]
    assert prepare.main(words) == 0
    table = read_manifest(run / "manifest.csv").table
    assert table["label"].value_counts().to_dict() == {"A": 20, "B": 20}
    assert table.value_counts(["label", "group"]).eq(5).all()
    assert len(list((run / "tiles").rglob("*.png"))) == 40  # those of the earlier run are gone


def test_other_annotation_files_do_not_deal_the_slides_again(
    slides: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A slide that was tested must not be trained on because another one came."""
    run, slides = tmp_path / "run", Path(shutil.copytree(slides, tmp_path / "slides"))
    assert prepare.main(["--run", str(run), "--data", str(slides), *CUT]) == 0
    capsys.readouterr()
    (slides / "s3.geojson").rename(slides / "s3.txt")
    before = (run / "manifest.csv").read_bytes()
    assert prepare.main(["--run", str(run), "--data", str(slides), *CUT]) == 1
    error = one_error(capsys.readouterr().err)
    assert "another s3.geojson" in error
    assert "--restart" in error
    assert (run / "manifest.csv").read_bytes() == before


def test_lost_stored_tiles_are_made_again(prepared: Path, slides: Path, tmp_path: Path) -> None:
    """P2: also those that an interrupted --restart had removed."""
    words = ["--run", str(tmp_path / "run"), "--data", str(slides), *CUT, "--write-tiles"]
    assert prepare.main(words) == 0
    stored = sorted((tmp_path / "run" / "tiles").rglob("*.png"))
    stored[0].unlink()
    assert prepare.main(words) == 0
    assert stored[0].is_file()


def test_moved_slides_are_found_again(prepared: Path, tmp_path: Path) -> None:
    """The same slides in another folder are the same tiles; later stages read them there."""
    shutil.copytree(prepared.parent, tmp_path / "all")
    run, moved = tmp_path / "all" / "run", tmp_path / "all" / "moved"
    before = (run / "manifest.csv").read_bytes()
    (tmp_path / "all" / "slides").rename(moved)
    assert prepare.main(["--run", str(run), "--data", str(moved), *CUT]) == 0
    assert (run / "manifest.csv").read_bytes() == before
    manifest = read_manifest(run / "manifest.csv")
    assert manifest.root.samefile(moved)
    first = manifest.table.iloc[0]
    assert pixel_hash(decode_tile(manifest.root / first["path"])).hex() == first["sha256"]


def test_a_changed_slide_is_not_current(slides: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, slides = tmp_path / "run", Path(shutil.copytree(slides, tmp_path / "slides"))
    words = ["--run", str(run), "--data", str(slides), *CUT]
    assert prepare.main(words) == 0
    draw_slide(slides / "s2.tif", seed=99)
    capsys.readouterr()
    assert prepare.main(words) == 1
    assert "s2.tif" in one_error(capsys.readouterr().err)
    assert prepare.main([*words, "--restart"]) == 0


def test_nothing_of_earlier_slides_stays(slides: Path, tmp_path: Path, tile_folder: Callable[..., Path]) -> None:
    """Neither overlays nor stored tiles; what the user put there stays."""
    run, slides = tmp_path / "run", Path(shutil.copytree(slides, tmp_path / "slides"))
    words = ["--run", str(run), *CUT, "--restart"]
    assert prepare.main([*words, "--data", str(slides), "--write-tiles"]) == 0
    overlays, own = run / "figures" / "annotations", run / "tiles" / "own.png"
    (overlays / "own.png").write_bytes(b"")
    own.write_bytes(b"")
    (slides / "s3.geojson").unlink()
    assert prepare.main([*words, "--data", str(slides)]) == 0
    assert sorted(file.name for file in overlays.iterdir()) == ["own.png", "s0.png", "s1.png", "s2.png"]
    assert [path.name for path in (run / "tiles").iterdir()] == ["own.png"]
    assert prepare.main(["--run", str(run), "--data", str(tile_folder()), "--protocol", "random", "--restart"]) == 0
    assert [path.name for path in overlays.iterdir()] == ["own.png"]


def test_stored_tiles_can_become_a_data_set_of_their_own(slides: Path, tmp_path: Path) -> None:
    """They are not removed as those of an earlier run."""
    run = tmp_path / "run"
    assert prepare.main(["--run", str(run), "--data", str(slides), *CUT, "--write-tiles"]) == 0
    table = read_manifest(run / "manifest.csv").table
    listed = table.assign(path="run/tiles/" + table["path"])[["path", "label", "group"]]
    listed.to_csv(tmp_path / "tiles.csv", index=False)
    assert prepare.main(["--run", str(run), "--data", str(tmp_path / "tiles.csv"), "--restart"]) == 0
    again = read_manifest(run / "manifest.csv")
    assert len(again.readable) == len(table)


@pytest.mark.parametrize("words", [("--cut-px", "32"), ("--write-tiles",), ("--min-cover", "0.9")])
def test_options_of_annotated_slides_are_refused_for_tiles(
    tmp_path: Path, prepared_base: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert prepare.main(["--run", str(run), "--data", str(prepared_base / "tiles"), *words]) == 2
    assert f"{words[0]}: only for annotated slides" in one_error(capsys.readouterr().err)


def test_the_whole_job(prepared: Path, words: Callable[..., list[str]], tmp_path: Path) -> None:
    """Every stage reads the slides: no tile is stored."""
    shutil.copytree(prepared.parent, tmp_path / "all")
    run = tmp_path / "all" / "run"
    small = ("--device", "cpu", "--threads", "1", "--workers", "0")
    assert train.main([*words("train", run), "--epochs", "1", "--tile-px", "16"]) == 0
    assert extract.main(words("extract", run)) == 0
    assert baselines.main(["--run", str(run), *small]) == 0
    assert fit_heads.main(["--run", str(run), "--threads", "1", "--heads", "svm"]) == 0
    assert robustness.main(["--run", str(run), "--corruptions", "blur", *small]) in (0, 3)
    assert report.main(["--run", str(run), "--draws", "100", "--map", "none"]) == 0
    manifest = read_manifest(run / "manifest.csv").table
    embedded = read_embeddings(run / "embeddings.h5")
    assert list(embedded.tile_id) == list(manifest["tile_id"])
    assert [bytes(digest).hex() for digest in embedded.sha256] == list(manifest["sha256"])
    assert not embedded.status.any()
    assert (run / "comparison.csv").is_file()
    assert not list(run.rglob("tile_x*.png"))


def test_a_changed_or_missing_slide_is_marked(
    prepared: Path, words: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """P4: as for files, its tiles are skipped with the reason."""
    shutil.copytree(prepared.parent, tmp_path / "all")
    run, slide = tmp_path / "all" / "run", tmp_path / "all" / "slides" / "s1.tif"
    assert train.main([*words("train", run), "--epochs", "1", "--tile-px", "16"]) == 0
    draw_slide(slide, seed=99)
    assert extract.main([*words("extract", run), "--max-bad", "0.5"]) == 3
    status = read_embeddings(run / "embeddings.h5").status
    table = read_manifest(run / "manifest.csv").table
    assert np.array_equal(status != 0, (table["group"] == "s1").to_numpy())
    slide.unlink()
    capsys.readouterr()
    assert extract.main([*words("extract", run), "--restart"]) == 1
    assert "s1.tif" in one_error(capsys.readouterr().err)


def test_a_second_run_is_current_and_other_annotations_are_refused(
    slides: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(slides, tmp_path / "slides")
    call = ["--run", str(tmp_path / "run"), "--data", str(tmp_path / "slides"), *CUT]
    assert prepare.main(call) == 0
    capsys.readouterr()
    assert prepare.main(call) == 0
    assert "prepare: current" in capsys.readouterr().err
    write_features(tmp_path / "slides" / "s0.geojson", box_of("A", *BOX_B))
    assert prepare.main(call) == 1
    assert "another s0.geojson" in one_error(capsys.readouterr().err)
    assert prepare.main([*call, "--restart"]) == 0


def test_corrections_win_and_are_counted(slides: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fix = write_features(tmp_path / "fix.geojson", box_of("B", 32, 32, 64, 96), box_of("Ignore*", 192, 32, 224, 64))
    rows = [f"{slides}/s{i}.tif,{slides}/s{i}.geojson{f';{fix}' if i == 0 else ''}" for i in range(4)]
    (tmp_path / "slides.csv").write_text("\n".join(["slide,annotations", *rows]))
    assert prepare.main(["--run", str(tmp_path / "run"), "--data", str(tmp_path / "slides.csv"), *CUT]) == 0
    assert "later annotation files changed tiles: s0 2 changed, s0 1 removed" in capsys.readouterr().err
    table = read_manifest(tmp_path / "run" / "manifest.csv").table
    of = table[table["group"] == "s0"].set_index("path")["label"]
    assert of[f"s0.tif/{square_name(32, 64, side=32, px=16)}"] == "B"
    assert f"s0.tif/{square_name(192, 32, side=32, px=16)}" not in of.index


def test_the_split_of_a_slide_is_that_of_the_table(slides: Path, tmp_path: Path) -> None:
    """So that test slides stay test slides after a round of corrections."""
    of = {"s0": "test", "s1": "training", "s2": "train", "s3": "val"}
    rows = [f"{slides}/{name}.tif,{slides}/{name}.geojson,{split}" for name, split in of.items()]
    (tmp_path / "slides.csv").write_text("\n".join(["slide,annotations,split", *rows]))
    assert prepare.main(["--run", str(tmp_path / "run"), "--data", str(tmp_path / "slides.csv"), *CUT]) == 0
    table = read_manifest(tmp_path / "run" / "manifest.csv").table
    found = table.groupby("group")["split"].unique()
    assert {name: list(splits) for name, splits in found.items()} == {
        "s0": ["test"],
        "s1": ["train"],
        "s2": ["train"],
        "s3": ["val"],
    }


def test_the_group_of_a_slide_is_that_of_the_table(slides: Path, tmp_path: Path) -> None:
    rows = [f"{slides}/s{i}.tif,{slides}/s{i}.geojson,P{max(i, 1)}" for i in range(4)]
    (tmp_path / "slides.csv").write_text("\n".join(["slide,annotations,patient", *rows]))
    words = ["--run", str(tmp_path / "run"), "--data", str(tmp_path / "slides.csv"), *CUT, "--protocol", "logo"]
    assert prepare.main(words) == 0
    table = read_manifest(tmp_path / "run" / "manifest.csv").table
    assert table.groupby("group")["path"].agg(lambda paths: sorted({path[:2] for path in paths})).to_dict() == {
        "P1": ["s0", "s1"],
        "P2": ["s2"],
        "P3": ["s3"],
    }
    assert EACH_ALONE not in (tmp_path / "run" / "audit.md").read_text()


@pytest.mark.parametrize(
    ("features", "more", "words"),
    [
        ([box_of("A", *BOX_A)], [], "only one class"),
        ([box_of("A", 16, 16, 48, 48), box_of("B", 64, 16, 96, 48)], [], "in micrometres"),
        ([box_of("A", 1000, 1000, 1200, 1200), box_of("B", *BOX_B)], [], "another slide"),
        ([box_of("A", 40, 40, 50, 50), box_of("B", 70, 70, 80, 80)], [], "no tile of 16 px at 1 um/px has a class"),
        ([box_of(None, *BOX_A)], [], "no annotation has a class"),
        ([box_of("Tumor", *BOX_A), box_of("tumor", *BOX_B)], [], "differ only in case"),
        ([box_of("A", *BOX_A), box_of("B", *BOX_B)], ["--cut-mpp", "0.1"], "0.5 um/px"),
        ([box_of("A", *BOX_A), box_of("B", *BOX_B)], ["--cut-px", "512"], "smaller than one tile"),
    ],
)
def test_what_is_refused_in_one_line(
    slides: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    features: list[object],
    more: list[str],
    words: str,
) -> None:
    write_features(tmp_path / "a.geojson", *features)
    (tmp_path / "slides.csv").write_text(f"slide,annotations\n{slides}/s0.tif,a.geojson\n")
    call = ["--run", str(tmp_path / "run"), "--data", str(tmp_path / "slides.csv"), *CUT, "--protocol", "random"]
    assert prepare.main([*call, *more]) == 1
    assert words in one_error(capsys.readouterr().err)
    assert not (tmp_path / "run" / "manifest.csv").exists()


@pytest.mark.parametrize(
    "words", [["--write-tiles"], ["--tiles-per-class", "5"], ["--min-cover", "0.5"], ["--cut-px", "8"]]
)
def test_options_that_do_not_fit_are_refused(
    tile_folder: Callable[..., Path], tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare.main(["--run", str(tmp_path / "run"), "--data", str(tile_folder()), *words]) == 2
    assert words[0] in one_error(capsys.readouterr().err)


@pytest.mark.parametrize(
    "name",
    [
        square_name(240, 0, side=32, px=16),  # reaches out
        square_name(999_999_999, 999_999_999, side=1, px=16),
        square_name(0, 0, side=256, px=5000),
        square_name(0, 0, side=9_999_999, px=16),
    ],
)
def test_a_square_that_no_slide_has_is_a_bad_tile(slides: Path, name: str) -> None:
    with pytest.raises(BadTile, match=r"s0\.tif"):
        decode_tile(slides / "s0.tif" / name)


def test_names_that_are_no_squares(slides: Path, tmp_path: Path) -> None:
    assert SQUARE.fullmatch("tile_x0_y0_0to16.png") is None
    (tmp_path / "no.tif").write_bytes(b"II*\0no slide")
    with pytest.raises(BadTile, match=r"no\.tif"):
        decode_tile(tmp_path / "no.tif" / square_name(0, 0, side=16, px=16))
