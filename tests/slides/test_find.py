"""Slides are found in files, folders and lists; names that cannot be told apart are refused."""

from pathlib import Path

import pytest

from pipeline.errors import BadInput
from pipeline.slides.find import SlideEntry, find_slides


def make(folder: Path, *names: str) -> None:
    """Make empty files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def test_files_and_folders(tmp_path: Path) -> None:
    make(tmp_path / "in", "b.svs", "a.TIF", "a-truth.png", "b-thumbnail.png", "notes.txt", ".hidden.svs")
    found = find_slides([str(tmp_path / "in"), "else.ndpi"], mpp=0.5, group="G")
    assert found == [
        SlideEntry(tmp_path / "in" / "a.TIF", "a", 0.5, "G"),
        SlideEntry(tmp_path / "in" / "b.svs", "b", 0.5, "G"),
        SlideEntry(Path("else.ndpi"), "else", 0.5, "G"),
    ]


def test_a_list(tmp_path: Path) -> None:
    """Paths count from the list; its cells win over the command line."""
    path = tmp_path / "slides.csv"
    path.write_text("slide,mpp,group,note\na.svs,0.25,P1,x\nsub/b.svs,,,y\n")
    assert find_slides([str(path)], mpp=0.5, group=None) == [
        SlideEntry(tmp_path / "a.svs", "a", 0.25, "P1"),
        SlideEntry(tmp_path / "sub" / "b.svs", "b", 0.5, None),
    ]


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
        ("slide\na.svs\nx/a.svs\n", "stand twice: a.svs"),
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
