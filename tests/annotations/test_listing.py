"""Annotated slides are found in tables and folders, as Windows and spreadsheets write them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.annotations.listing import is_annotated, list_annotated
from pipeline.errors import BadInput


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    """`table(text, *files)`: write slides.csv and empty files."""

    def make(text: str, *files: str, encoding: str = "utf-8") -> Path:
        for name in files:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        (tmp_path / "slides.csv").write_bytes(text.encode(encoding))
        return tmp_path / "slides.csv"

    return make


def test_a_table_of_windows_with_several_files(table: Callable[..., Path], tmp_path: Path) -> None:
    file = table(
        'Slide;Annotations;Patient;MPP\r\nin\\a.svs;"a.geojson; fix\\a.geojson";P1;0,25\r\nb.svs;b.geojson;P2;\r\n',
        *("in/a.svs", "a.geojson", "fix/a.geojson", "b.svs", "b.geojson"),
        encoding="utf-8-sig",
    )
    assert is_annotated(file)
    found = list_annotated(file, group_regex="")
    first, second = found.slides
    assert [path.relative_to(tmp_path).as_posix() for path in first.files] == ["a.geojson", "fix/a.geojson"]
    assert (first.entry.path, first.entry.name, first.group) == (tmp_path / "in/a.svs", "a", "P1")
    assert first.entry.mpp is not None
    assert first.entry.mpp.mpp == 0.25
    assert (second.entry.mpp, second.group) == (None, "P2")
    assert [path.name for path in found.inputs] == ["slides.csv", "a.geojson", "a.geojson", "b.geojson"]
    assert any("backslashes" in note for note in found.notes)


def test_groups_by_name_and_by_pattern(table: Callable[..., Path]) -> None:
    file = table("slide,annotations\nP1_a.svs,a.geojson\nP1_b.svs,a.geojson\n", "P1_a.svs", "P1_b.svs", "a.geojson")
    assert [slide.group for slide in list_annotated(file, group_regex="").slides] == ["P1_a", "P1_b"]
    assert [slide.group for slide in list_annotated(file, group_regex=r"(P\d)_").slides] == ["P1", "P1"]


def test_a_folder(tmp_path: Path) -> None:
    for name in ("x/a.svs", "x/a.geojson", "b.tif", "b.png.txt", "lost.geojson"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert is_annotated(tmp_path)
    found = list_annotated(tmp_path, group_regex="")
    assert [slide.entry.path.name for slide in found.slides] == ["a.svs"]
    assert found.ignored == ["lost.geojson"]
    (tmp_path / "x" / "a.ndpi").touch()
    with pytest.raises(BadInput, match="2 slides have its name"):
        list_annotated(tmp_path, group_regex="")


def test_tables_and_folders_of_tiles_are_not_annotated(table: Callable[..., Path], tmp_path: Path) -> None:
    assert not is_annotated(table("path,label\na.png,A\n"))
    assert not is_annotated(tmp_path)
    assert not is_annotated(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("slide,annotations\na.svs,gone.geojson\n", "1 file(s) are not there: "),
        ("slide,annotations\ngone.svs,a.geojson\n", "1 file(s) are not there: "),
        ("slide,annotations\nC:\\slides\\a.svs,a.geojson\n", "1 file(s) are not there: "),
        ("slide,annotations\na.svs,\n", "line 2: empty 'annotations'"),
        ("slide,annotations\n,a.geojson\n", "line 2: empty 'slide'"),
        ("slide,annotations,group\na.svs,a.geojson,P1\nb.svs,a.geojson,\n", "line 3: empty 'group'"),
        ("slide,annotations\na.svs,a.geojson\na.svs,a.geojson\n", "named twice"),
        ("slide,annotations,split\na.svs,a.geojson,exam\n", "split 'exam'"),
        ("slide,annotations,split\na.svs,a.geojson,test\nb.svs,a.geojson,\n", "line 3: empty 'split'"),
        ("slide,annotations,mpp\na.svs,a.geojson,fine\n", "mpp 'fine'"),
        ("annotations\na.geojson\n", "no column 'slide'"),
    ],
)
def test_what_is_refused(table: Callable[..., Path], text: str, words: str) -> None:
    file = table(text, "a.svs", "b.svs", "a.geojson")
    with pytest.raises(BadInput) as caught:
        list_annotated(file, group_regex="")
    assert words in str(caught.value)


def test_a_group_by_column_and_by_pattern_is_refused(table: Callable[..., Path]) -> None:
    file = table("slide,annotations,group\na.svs,a.geojson,P1\n", "a.svs", "a.geojson")
    with pytest.raises(BadInput, match="leave --group-regex out"):
        list_annotated(file, group_regex="(a)")
