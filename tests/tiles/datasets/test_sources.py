"""Every way to name tiles ends as one table, or as one line that says what is wrong where."""

import os
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import BadInput, PipelineError, UsageError
from pipeline.runtime.console import list_names
from pipeline.tiles.datasets.groups import parse_groups
from pipeline.tiles.datasets.kather2016 import GROUP_REGEX
from pipeline.tiles.datasets.sources import DataSource, TileSet, csv_tiles, find_tiles, folder_tiles

KATHER = Path(__file__).parents[3] / "../shared/data/kather2016"
needs_kather = pytest.mark.skipif(not KATHER.is_dir(), reason="../shared/data/kather2016 is not there")


def scan(folder: Path, regex: str = "") -> TileSet:
    return folder_tiles(folder, name="t", group_regex=regex)


def find(data: str | Path, tmp_path: Path, **more: Any) -> TileSet:
    return find_tiles(DataSource(str(data), tmp_path / "data", demo_tiles=48, demo_px=16, **more), seed=0)


def refuse(kind: type[PipelineError], pattern: str, function: Callable[..., object], *words: Any, **more: Any) -> str:
    with pytest.raises(kind, match=pattern) as caught:
        function(*words, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    """`table(text)` -> a CSV file in `<tmp_path>/lists/`."""

    def write(text: str | bytes, name: str = "tiles.csv") -> Path:
        path = tmp_path / "lists" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


# -- folders ---------------------------------------------------------------------------------------------------


def test_a_folder_of_class_folders(tile_folder: Callable[..., Path]) -> None:
    folder = tile_folder(classes=("B", "A"), n=4)
    tiles = scan(folder, r"(s\d)_")
    assert list(tiles.table["path"]) == sorted(f"{label}/s{i % 3}_{i:03d}.png" for label in "AB" for i in range(4))
    assert list(tiles.table["label"]) == ["A"] * 4 + ["B"] * 4
    assert list(tiles.table["group"]) == ["s0", "s0", "s1", "s2"] * 2
    assert set(tiles.table["split"]) == {""}
    assert tiles.ignored == []
    assert (tiles.name, tiles.root) == ("t", folder)


def test_folders_in_class_folders_belong_to_the_class(tile_folder: Callable[..., Path]) -> None:
    folder = tile_folder(n=1)
    (folder / "A" / "slide7" / "deep").mkdir(parents=True)
    shutil.copy(folder / "A" / "s0_000.png", folder / "A" / "slide7" / "deep" / "x.PNG")
    tiles = scan(folder, r"/(slide\d|s\d)").table
    assert list(tiles["path"]) == ["A/s0_000.png", "A/slide7/deep/x.PNG", "B/s0_000.png"]
    assert list(tiles["label"]) == ["A", "A", "B"]
    assert list(tiles["group"]) == ["s0", "slide7", "s0"]


@pytest.mark.parametrize(
    "suffix",
    [".png", ".JPG", ".jpe", ".tif", ".TIFF", ".webp", ".bmp", ".jfif", ".jp2", ".gif", ".ppm", ".heic", ".svs"],
)
def test_whatever_is_an_image_by_name_is_a_tile(tmp_path: Path, suffix: str) -> None:
    for label in "AB":
        (tmp_path / label).mkdir()
        (tmp_path / label / f"a{suffix}").touch()
    assert len(scan(tmp_path).table) == 2


def test_what_is_no_tile_is_listed_and_hidden_files_are_not(tile_folder: Callable[..., Path]) -> None:
    folder = tile_folder(n=2)
    for name in ("notes.txt", "loose.png", "A/labels.csv", "A/x.pdf", "A/.DS_Store", "A/._s0_000.png", "B/noend"):
        (folder / name).touch()
    for name in (".cache", "A/.thumbs", "HOLLOW", "B/within"):
        (folder / name).mkdir()
    (folder / ".cache" / "a.png").touch()
    (folder / "A" / ".thumbs" / "a.png").touch()
    tiles = scan(folder)
    assert len(tiles.table) == 4
    assert sorted(tiles.ignored) == ["A/labels.csv", "A/x.pdf", "B/noend", "HOLLOW/", "loose.png", "notes.txt"]


def test_a_macos_folder_icon_does_not_break_a_line(tile_folder: Callable[..., Path]) -> None:
    folder = tile_folder(n=1)
    (folder / "A" / "Icon\r").touch()
    assert scan(folder).ignored == ["A/Icon\\x0d"]


@pytest.mark.parametrize("name", [b"a\nb.png", b"a\x7f.png", b"caf\xe9.png"], ids=["line feed", "delete", "latin-1"])
def test_names_no_table_can_hold_are_refused(tile_folder: Callable[..., Path], name: bytes) -> None:
    folder = tile_folder(n=1)
    Path(os.fsdecode(os.fsencode(folder / "A") + b"/" + name)).touch()
    message = refuse(BadInput, "rename it", scan, folder)
    message.encode()


def test_unusual_names_are_fine(tile_folder: Callable[..., Path]) -> None:
    folder = tile_folder(n=1, classes=("A, b", "Zöl'ln\"er", "=1+1"))
    (folder / "=1+1" / "narrow\u202fspace 日本.png").touch()
    assert sorted(set(scan(folder).table["label"])) == ["=1+1", "A, b", "Zöl'ln\"er"]


@pytest.mark.fault("odd sizes and numbers of tiles")
def test_folders_without_tiles_are_refused(tmp_path: Path) -> None:
    refuse(BadInput, "no tiles found: one folder per class", scan, tmp_path)
    (tmp_path / "a.png").touch()  # at the top it has no class
    (tmp_path / "A").mkdir()
    refuse(BadInput, "no tiles found: one folder per class", scan, tmp_path)


def test_folders_of_splits_are_not_classes(tmp_path: Path) -> None:
    for name in ("Train/A", "test/A", "val/B"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a.png").touch()
    refuse(BadInput, "Train, test, val are splits, not classes.*path,label,split", scan, tmp_path)
    (tmp_path / "tumour").mkdir()
    (tmp_path / "tumour" / "a.png").touch()
    refuse(BadInput, "Train, test, val are splits, not classes", scan, tmp_path)  # whatever lies next to them


def test_a_link_into_itself_is_refused_and_other_links_are_followed(tile_folder: Callable[..., Path]) -> None:
    folder, other = tile_folder(n=2), tile_folder("elsewhere", n=3)
    (folder / "C").symlink_to(other / "A")
    assert Counter(scan(folder).table["label"]) == {"A": 2, "B": 2, "C": 3}
    (folder / "A" / "again").symlink_to(folder)
    refuse(BadInput, "A/again: a link to a folder above it", scan, folder)


def test_a_folder_that_cannot_be_read_is_not_passed_over(
    tile_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tile_folder(n=2)
    scandir = os.scandir

    def guarded(path: Any) -> Any:
        if str(path).endswith("/B"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    refuse(BadInput, "B: the folder cannot be read", scan, folder)


# -- groups ----------------------------------------------------------------------------------------------------


def test_names_that_do_not_tell_their_group_are_named_and_counted() -> None:
    paths = [f"A/s{i}_x.png" for i in range(5)] + [f"A/lost{i}.png" for i in range(15)]
    message = refuse(BadInput, "15 of 20 tile names give no group", parse_groups, paths, r"(s\d)_")
    assert all(f"lost{i}.png" in message for i in range(12))
    assert "and 3 more" in message
    refuse(BadInput, "1 of 1", parse_groups, ["A/_a.png"], r"/(\d*)_")  # an empty group is none
    refuse(BadInput, "1 of 1", parse_groups, ["A/b.png"], r"(x)?b")
    assert parse_groups(["A/s1_a.png", "s2"], r"(s\d)") == ["s1", "s2"]


def test_bad_regular_expressions_are_usage_errors() -> None:
    refuse(UsageError, r"'\(': not a regular expression", parse_groups, ["a"], "(")
    refuse(UsageError, "parentheses", parse_groups, ["a"], r"s\d")
    refuse(UsageError, "parentheses", parse_groups, ["a"], r"(?:s\d)")


def test_long_lists_are_cut() -> None:
    assert list_names(["a", "b"]) == "a, b"
    assert list_names([str(i) for i in range(13)]).endswith("11 and 1 more")


@needs_kather
def test_all_5000_published_names_tell_their_source() -> None:
    groups = Counter(parse_groups((KATHER / "names.txt").read_text().split(), GROUP_REGEX))
    counts = [401, 284, 740, 381, 661, 1061, 503, 389, 342, 238]
    assert groups == {f"{i:02d}": n for i, n in enumerate(counts, start=1)}


@needs_kather
def test_tiles_that_lost_their_names_are_reported_not_dropped() -> None:
    message = refuse(BadInput, "7 of 31 tile names", scan, KATHER / "tiles", GROUP_REGEX)
    lost = sorted(path.name for path in (KATHER / "tiles").rglob("crc5000_*"))
    assert len(lost) == 7
    assert all(name in message for name in lost)
    assert len(scan(KATHER / "tiles").table) == 31


# -- CSV files -------------------------------------------------------------------------------------------------


def test_csv_with_relative_and_absolute_paths(table: Callable[..., Path], tmp_path: Path) -> None:
    file = table(f"path,label,group,split\n../x/b.png,B,g1,test\n{tmp_path}/x/sub/a.png,A,g2,train\n./c.png,A,g2,val\n")
    tiles = csv_tiles(file, group_regex="")
    assert tiles.root == tmp_path
    assert tiles.table.to_numpy().tolist() == [
        ["lists/c.png", "A", "g2", "val"],
        ["x/b.png", "B", "g1", "test"],
        ["x/sub/a.png", "A", "g2", "train"],
    ]
    assert (tiles.name, tiles.ignored) == ("tiles", [])


def test_csv_as_people_and_spreadsheets_write_it(table: Callable[..., Path]) -> None:
    file = table('\ufeffPath, Label ,Note\r\n"a, b.png", A ,x\r\n\r\nü.png,"B ""q""",\r\n')
    tiles = csv_tiles(file, group_regex="")
    assert tiles.table[["path", "label"]].to_numpy().tolist() == [["a, b.png", "A"], ["ü.png", 'B "q"']]
    assert tiles.ignored == ["column 'note'"]
    assert tiles.notes == ["blanks around cells are left out"]


def test_splits_are_read_in_usual_spellings_and_noted(table: Callable[..., Path]) -> None:
    tiles = csv_tiles(table("path,label,split\na,A,Train\nb,A,VALIDATION\nc,B,test\n"), group_regex="")
    assert list(tiles.table["split"]) == ["train", "val", "test"]
    assert tiles.notes == ["split 'Train' is read as train", "split 'VALIDATION' is read as val"]


@pytest.mark.parametrize(("column", "what"), [("label", "classes"), ("group", "groups")])
def test_two_spellings_in_a_csv_are_refused(table: Callable[..., Path], column: str, what: str) -> None:
    row = {"label": "a.png,{},g", "group": "a.png,A,{}"}[column]
    rows = [row.format(name).replace("a.png", f"{i}.png") for i, name in enumerate(("P01", "p01", "P02"))]
    file = table("\n".join(["path,label,group", *rows, ""]))
    refuse(BadInput, f"{what} 'P01' and 'p01' differ only", csv_tiles, file, group_regex="")
    found = csv_tiles(file, group_regex="", allow_similar_names=True).table
    assert list(found[column]) == ["P01", "p01", "P02"]


def test_two_spellings_in_groups_by_regex_are_refused(tile_folder: Callable[..., Path]) -> None:
    folder = tile_folder(n=2)
    shutil.copy(folder / "A" / "s0_000.png", folder / "A" / "S0_001.png")
    refuse(BadInput, "groups 'S0' and 's0'", scan, folder, r"([sS]\d)_")
    assert set(find(folder, folder.parent, group_regex=r"([sS]\d)_", allow_similar_names=True).table["group"]) == {
        "S0", "s0", "s1"
    }  # fmt: skip


def test_csv_words_that_pandas_takes_for_missing_are_labels(table: Callable[..., Path]) -> None:
    file = table("path,label\na.png,NA\nb.png,null\n1.png,007\n")
    assert list(csv_tiles(file, group_regex="").table["label"]) == ["007", "NA", "null"]


def test_csv_groups_by_regex_are_searched_in_the_paths_as_written(table: Callable[..., Path]) -> None:
    file = table("path,label\nslides7/a.png,A\nslides7/b.png,B\n")
    assert list(csv_tiles(file, group_regex=r"slides(\d)/").table["group"]) == ["7", "7"]
    refuse(BadInput, "2 of 2", csv_tiles, file, group_regex=r"(x)")
    file = table("path,label,group\na.png,A,g\n")
    refuse(BadInput, "leave --group-regex out", csv_tiles, file, group_regex=r"(a)")
    file = table("path,label,group\na.png,A,\n")
    assert list(csv_tiles(file, group_regex=r"(a)").table["group"]) == ["a"]


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("", "an empty file"),
        ("\n", "no rows"),
        ("path,label\n", "no rows"),
        ("path\na.png\n", "no column 'label'"),
        ("place,label\na.png,A\n", "no column 'path'.*found: place, label"),
        ("file,image,label\na.png,b.png,A\n", "file, image could all be the 'path'"),
        ("path,label,label\na.png,A,B\n", "two columns are called 'label'"),
        ("path,label\na.png,A\n\n\n,B\n", "line 5: empty 'path'"),
        ("path,label\na.png,A\nb.png,\n", "line 3: empty 'label'"),
        ("path,label\na.png,  \n", "line 2: empty 'label'"),
        ("path,label,group\na.png,A,g\nb.png,B,\n", "line 3: empty 'group'.*every tile or for none"),
        ("path,label,split\na.png,A,\nb.png,B,train\n", "line 2: empty 'split'"),
        ("path,label,split\na.png,A,train\n\nb.png,B,trained\n", "line 4: split 'trained'; use train, val, test"),
        ("path,label\na.png,A\nb.png,B\nsub/../a.png,A\n", "line 4: sub/../a.png is in the table twice"),
        ("path,label\na.png,A,x\n", "line 2: 3 cells, but the header names 2 columns"),
        ("path,label\na.png,A\n\nb.png\n", "line 4: empty 'label'"),
        ('path,label\n"a.png,A\nb.png,B\n', "not a readable CSV file"),
        ('path,label\n"a\nb.png",A\n', r"line 3: 'a\\x0ab.png' has a character"),
        ("path,label\na\0.png,A\n", "not a CSV file in UTF-8.*zero bytes"),
        (b"path,label\ncaf\xe9.png,A\n", 'not a CSV file in UTF-8.*save it as "CSV UTF-8"'),
        ("path,label\na.png,A\n".encode("utf-16-le"), "not a CSV file in UTF-8"),
        ("path,label\na.png\tb.png,A\n", r"line 2: 'a.png\\x09b.png' has a character"),
    ],
)
def test_csv_errors_name_the_file_and_the_line(table: Callable[..., Path], text: str | bytes, pattern: str) -> None:
    file = table(text)
    assert str(file) in refuse(BadInput, pattern, csv_tiles, file, group_regex="")


# -- by name ---------------------------------------------------------------------------------------------------


def test_find_tiles_by_name_folder_or_csv(
    tile_folder: Callable[..., Path], table: Callable[..., Path], tmp_path: Path
) -> None:
    demo = find("demo", tmp_path)
    assert len(demo.table) == 48
    assert demo.root.is_relative_to(tmp_path / "data" / "demo")
    assert all(re.fullmatch(r"\d\d", group) for group in demo.table["group"])
    assert set(find("demo", tmp_path, group_regex="").table["group"]) == {""}
    folder = tile_folder()
    assert find(folder, tmp_path).name == "tiles"
    assert set(find(folder, tmp_path, group_regex=r"(s\d)").table["group"]) == {"s0", "s1", "s2"}
    assert find(table("path,label\na.png,A\n", "MY.CSV"), tmp_path).name == "MY"


@pytest.mark.fault("an archive handed as data")
def test_find_tiles_refuses_what_is_neither(tmp_path: Path, table: Callable[..., Path]) -> None:
    refuse(
        BadInput, "--data kather: no such folder or CSV file; known names: demo, kather2016", find, "kather", tmp_path
    )
    refuse(BadInput, "unpack archives first", find, table(b"PK", "tiles.zip"), tmp_path)
    refuse(BadInput, "does not exist", find, "kather2016", tmp_path, source="/nowhere.zip")
    (tmp_path / "empty").mkdir()
    refuse(BadInput, "holds no class folder", find, "kather2016", tmp_path, source=str(tmp_path / "empty"))
