"""Slides are found in files, folders and lists; names that cannot be told apart are refused."""

from pathlib import Path

import pytest

from pipeline.errors import BadInput
from pipeline.slides.find import SlideEntry, find_slides
from pipeline.slides.scale import GivenMpp

GIVEN = GivenMpp(0.5)


def make(folder: Path, *names: str) -> None:
    """Make empty files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def test_files_and_folders(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make(tmp_path / "in", "b.svs", "a.TIF", "a-truth.png", "b-thumbnail.png", "notes.txt", ".hidden.svs")
    with caplog.at_level("INFO", "pipeline"):
        found = find_slides([str(tmp_path / "in"), "else.ndpi"], mpp=GIVEN, group="G")
    assert found == [
        SlideEntry(tmp_path / "in" / "a.TIF", "a", GIVEN, "G"),
        SlideEntry(tmp_path / "in" / "b.svs", "b", GIVEN, "G"),
        SlideEntry(Path("else.ndpi"), "else", GIVEN, "G"),
    ]
    assert "2 slides; other files are passed over: .txt 1" in caplog.text


def test_folders_are_searched_below(tmp_path: Path) -> None:
    """As gdc-client and hospitals lay slides out; results of our commands, system folders and MIRAX data are none."""
    make(tmp_path / "gdc" / "11aa" / "logs", "TCGA-01.svs.parcel")
    make(tmp_path / "gdc" / "11aa", "TCGA-01.svs", "annotations.txt")
    make(tmp_path / "gdc" / "22bb" / "deep", "TCGA-02.svs")
    make(tmp_path / "gdc" / "@eaDir", "TCGA-01.svs")
    make(tmp_path / "gdc" / "run", "manifest.csv.json")
    make(tmp_path / "gdc" / "run" / "figures", "classes.png")
    make(tmp_path / "gdc", "m.mrxs", "h.vms")
    make(tmp_path / "gdc" / "m", "Data0001.dat", "preview.png")
    make(tmp_path / "gdc", "h-0.jpg")
    gdc = tmp_path / "gdc"
    names = [entry.name for entry in find_slides([str(gdc)], mpp=None, group=None)]
    assert names == ["TCGA-01", "TCGA-02", "h", "m"]
    again = find_slides([str(gdc), str(gdc / "11aa"), str(gdc / "22bb" / ".." / "m.mrxs")], mpp=None, group=None)
    assert [entry.name for entry in again] == names
    (gdc / "22bb" / "up").symlink_to(gdc)
    with pytest.raises(BadInput, match="a link to a folder above it"):
        find_slides([str(gdc)], mpp=None, group=None)


def test_one_of_several_folders_without_slides_is_an_entry_with_a_problem(tmp_path: Path) -> None:
    make(tmp_path / "a", "x.svs")
    make(tmp_path / "b", "x.svs.partial")
    first, second = find_slides([str(tmp_path / "a"), str(tmp_path / "b")], mpp=None, group=None)
    assert (first.name, first.problem) == ("x", "")
    assert second.path == tmp_path / "b"
    assert "no slides in this folder" in second.problem


def test_a_list(tmp_path: Path) -> None:
    """Paths count from the list; its cells win over the command line."""
    path = tmp_path / "slides.csv"
    path.write_text("slide,mpp,group,note\na.svs,0.25,P1,x\nsub/b.svs,,,y\n")
    assert find_slides([str(path)], mpp=GIVEN, group=None) == [
        SlideEntry(tmp_path / "a.svs", "a", GivenMpp(0.25, f"{path}, line 2", overrules=True), "P1"),
        SlideEntry(tmp_path / "sub" / "b.svs", "b", GIVEN, None),
    ]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["p1/HE.svs", "p2/HE.svs"], "p1/HE.svs and {0}/p2/HE.svs"),
        (["HE.svs", "he.svs"], "differ only in case"),
        (["slide 1.svs", "slide  1.svs"], "differ only in case, blanks"),
        (["M\N{LATIN SMALL LETTER U WITH DIAERESIS}ller.svs", "Mu\N{COMBINING DIAERESIS}ller.svs"], "accents"),
    ],
)
def test_names_that_cannot_be_told_apart(tmp_path: Path, names: list[str], words: str) -> None:
    with pytest.raises(BadInput) as caught:
        find_slides([str(tmp_path / name) for name in names], mpp=None, group=None)
    assert words.format(tmp_path) in str(caught.value)


def test_one_slide_with_two_scales_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("slide,mpp\na.svs,0.25\na.svs,0.5\n")
    with pytest.raises(BadInput, match="named twice with different mpp or group"):
        find_slides([str(tmp_path / "s.csv")], mpp=None, group=None)


def test_equal_stems_get_their_suffix() -> None:
    assert [entry.name for entry in find_slides(["a.svs", "x/a.tif", "b.tif"], mpp=None, group=None)] == [
        "a.svs",
        "a.tif",
        "b",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("place\na.svs\n", "no column 'slide'"),
        ("slide\n", "no rows"),
        ("slide,mpp\n,0.5\n", "line 2: empty 'slide'"),
        ("slide,mpp\na.svs,fine\n", "line 2: mpp 'fine'"),
        ("slide,mpp\na.svs,0\n", "line 2: mpp '0'"),
        ("slide,mpp\na.svs,nan\n", "line 2: mpp 'nan'"),
        ("slide\na.svs\nx/a.svs\n", "name(s) of slides occur twice"),
        ("slide\n...tif\n", "must not begin with a dot"),
    ],
)
def test_lists_that_cannot_be_used(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "slides.csv").write_text(text)
    with pytest.raises(BadInput) as caught:
        find_slides([str(tmp_path / "slides.csv")], mpp=None, group=None)
    assert words in str(caught.value)


def test_a_folder_without_slides(tmp_path: Path) -> None:
    make(tmp_path / "in", "a.txt")
    with pytest.raises(BadInput, match="no slides in this folder"):
        find_slides([str(tmp_path / "in")], mpp=None, group=None)
