"""Tables as spreadsheets and Windows write them are read where that is unambiguous, and refused in one line else."""

import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import BadInput
from pipeline.storage.user_tables import UserTable, decimal, read_user_table

COLUMNS = {"path": ("file", "filename", "file_name"), "label": ("class",), "group": ("patient", "patient_id", "case")}
ROWS = [["t/a.png", "A", "s0"], ["t/b.png", "B", "s1"]]
HEAD = "path,label,group"
LINES = [",".join(row) for row in ROWS]


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., UserTable]:
    """`read(lines or bytes, name)` -> the table."""

    def call(content: list[str] | bytes, name: str = "list.csv") -> UserTable:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else ("\r\n".join(content) + "\r\n").encode("utf-8-sig"))
        return read_user_table(path, COLUMNS, needed=("path", "label"))

    return call


def swapped(separator: str) -> list[str]:
    return [line.replace(",", separator) for line in [HEAD, *LINES]]


def quoted(line: str, before: str = "", behind: str = "") -> str:
    return ",".join(f'{before}"{cell}"{behind}' for cell in line.split(","))


READ: dict[str, tuple[list[str] | bytes, str]] = {
    "as it is": ([HEAD, *LINES], ""),
    "semicolons": (swapped(";"), "semicolons"),
    "tabs": (swapped("\t"), "tabs"),
    "bars": (swapped("|"), "vertical bars"),
    "sep=,": (["sep=,", HEAD, *LINES], "first line"),
    "sep=;": (["sep=;", *swapped(";")], "first line"),
    "SEP in quotes": (['"SEP=\t"', *swapped("\t")], "first line"),
    "sep and empty cells": (["sep=,,,", HEAD, *LINES], "first line"),
    "trailing commas": ([f"{HEAD},,", *(f"{line},," for line in LINES)], "2 empty columns"),
    "trailing commas in rows only": ([HEAD, *(f"{line},," for line in LINES)], ""),
    "a leading empty column": ([f",{HEAD}", *(f",{line}" for line in LINES)], "1 empty columns"),
    "empty rows at the end": ([HEAD, *LINES, ",,", ",,", ";;"[:0]], "2 empty rows"),
    "empty rows between": ([HEAD, LINES[0], ",,", "", LINES[1]], "1 empty rows"),
    "rows of blanks": ([HEAD, *LINES, " , , "], "1 empty rows"),
    "quotes": ([quoted(line) for line in [HEAD, *LINES]], ""),
    "blanks before quotes": ([quoted(line, " ") for line in [HEAD, *LINES]], "blanks around cells"),
    "blanks behind quotes": ([quoted(line, "", " ") for line in [HEAD, *LINES]], "blanks behind quotes"),
    "blanks in cells": ([line.replace(",", " , ") + "\u00a0" for line in [HEAD, *LINES]], "blanks around cells"),
    "other names": (["filename,class,patient", *LINES], "'patient' is read as 'group'"),
    "names with blanks and capitals": (["File Name,CLASS,Patient-ID", *LINES], "'patient_id' is read as 'group'"),
    "UTF-16 of Excel": ("\r\n".join(swapped("\t")).encode("utf-16"), "tabs"),
    "no mark, line feeds": ("\n".join([HEAD, *LINES]).encode(), ""),
    "old line ends": ("\r".join([HEAD, *LINES]).encode(), ""),
    "empty lines above": (["", HEAD, *LINES], ""),
    "invisible blanks": ([f"\u200b{HEAD}", *(f"\ufeff{line}" for line in LINES)], ""),
}


@pytest.mark.parametrize("name", READ)
def test_a_table_is_read_and_what_is_special_is_noted(read: Callable[..., UserTable], name: str) -> None:
    content, note = READ[name]
    found = read(content)
    assert found.table[["path", "label", "group"]].to_numpy().tolist() == ROWS
    assert note in "; ".join(found.notes)
    assert bool(found.notes) == bool(note)
    assert found.unknown == []


def test_lines_are_those_of_the_file(read: Callable[..., UserTable]) -> None:
    found = read(["sep=;", "", HEAD.replace(",", ";"), ";;", *swapped(";")[1:]])
    assert found.lines == [5, 6]
    assert found.where(1).endswith("list.csv, line 6")


def test_unknown_columns_are_kept_and_named(read: Callable[..., UserTable]) -> None:
    found = read([f"{HEAD},Stain Date", *(f"{line},2020" for line in LINES)])
    assert found.unknown == ["stain_date"]
    assert list(found.table["stain_date"]) == ["2020", "2020"]


def test_a_column_by_its_own_name_comes_before_others(read: Callable[..., UserTable]) -> None:
    found = read(["path,label,patient,group", *(f"{line},g" for line in LINES)])
    assert list(found.table["group"]) == ["g", "g"]
    assert found.unknown == ["patient"]


def test_cells_that_are_missing_at_the_end_of_a_row_are_empty(read: Callable[..., UserTable]) -> None:
    found = read([HEAD, "t/a.png,A", "t/b.png,B,s1"])
    assert list(found.table["group"]) == ["", "s1"]
    assert found.notes == ["1 short rows are filled with empty cells"]


REFUSED: dict[str, tuple[list[str] | bytes, str]] = {
    "no such column": (["place,label", "a,B"], "no column 'path'.*found: place, label"),
    "no header": (LINES, "no column 'path'"),
    "two candidates": (["path,label,patient,case", "a,B,1,2"], "patient, case could all be the 'group'"),
    "a column twice": (["path,label,label", "a,B,B"], "two columns are called 'label'"),
    "a decimal comma": ([HEAD, "a,B,0,5"], "line 2: 4 cells, but the header names 3"),
    "a nameless column": ([f"{HEAD},", "a,B,g,x"], "line 2: column 4 holds 'x', but has no name"),
    "only a header": ([HEAD], "no rows"),
    "only empty rows": ([HEAD, ",,"], "no rows"),
    "an open quote": ([HEAD, '"a,B,g', "b,B,g"], "not a readable CSV file"),
    "a line break in a cell": ([HEAD, '"a\nb",B,g'], "line 3: 'a.x0ab' has a character"),
    "another encoding": (f"{HEAD}\ncafé,B,g".encode("cp1252"), 'not a CSV file in UTF-8.*"CSV UTF-8"'),
    "UTF-16 without a mark": (f"{HEAD}\na,B,g".encode("utf-16-le"), "not a CSV file in UTF-8"),
    "a spreadsheet by its bytes": (b"PK\x03\x04" + bytes(50), 'a spreadsheet.*"CSV UTF-8"'),
    "an old spreadsheet": (b"\xd0\xcf\x11\xe0" + bytes(50), "a spreadsheet"),
    "a Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
    "an error page": (b"<!DOCTYPE html><html>", "an HTML page"),
    "an empty file": (b"", "an empty file"),
    "a huge cell": ([HEAD, " , " + "x" * 200_000], "not a readable CSV file"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_in_one_line(read: Callable[..., UserTable], name: str) -> None:
    content, pattern = REFUSED[name]
    with pytest.raises(BadInput, match=f"list.csv.*{pattern}") as caught:
        read(content)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".xlsx", ".xls", ".ods"])
def test_spreadsheets_are_known_by_name(read: Callable[..., UserTable], suffix: str) -> None:
    with pytest.raises(BadInput, match="a spreadsheet"):
        read(b"anything", f"list{suffix}")


def test_paths_are_found_as_windows_and_macs_write_them(read: Callable[..., UserTable], tmp_path: Path) -> None:
    nfc, nfd = (unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD"))
    for name in ("sub/a.png", f"sub/{nfc}", "back\\slash.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = ["sub\\a.png", f"sub\\{nfd}", f"sub/{nfd}", "back\\slash.png", "C:\\none.png", f"{tmp_path}/sub/a.png"]
    found = read(["path,label", *(f"{name},A" for name in names)])
    inside = ["sub/a.png", f"sub/{nfc}", f"sub/{nfc}", "back\\slash.png", "C:\\none.png", "sub/a.png"]
    assert found.paths("path") == [tmp_path / name for name in inside]
    assert found.notes == ["1 paths with backslashes read as slashes", "2 paths with accents read as Unicode NFC"]


def test_decimal_commas() -> None:
    assert [decimal(text) for text in ("0,5", "0.5", "1", " 2,25 ")] == [0.5, 0.5, 1, 2.25]
    for text in ("1,000.5", "1,2,3", "", "0;5"):
        with pytest.raises(ValueError, match="convert"):
            decimal(text)
