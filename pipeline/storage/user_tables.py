"""Read a table that a user wrote, as spreadsheets and Windows save it: tiles, slides, labels.

Read are: comma, semicolon, tab or | between cells; a first line `sep=;`; UTF-8 and, with its mark, UTF-16; empty rows
and columns; blanks around cells and quotes; columns under their usual names. What was read other than as written is
in `notes`. Whatever could be read in two ways is refused.
"""

import codecs
import csv
import dataclasses
import io
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from pipeline.errors import BadInput
from pipeline.runtime.console import UNPRINTABLE, visible
from pipeline.storage.placeholder import placeholder

SUFFIXES = (".csv", ".tsv", ".tab", ".txt")
"""Names of tables that are read."""

SPREADSHEETS = (".xlsx", ".xls", ".xlsm", ".ods", ".numbers")
"""Names of spreadsheets, which are not read."""

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}

BLANKS = " \t\u00a0\u200b\ufeff"
"""Blanks around a cell, with the invisible ones that spreadsheets leave."""

SAVE_AS = 'save it as "CSV UTF-8"'

_SEP_LINE = re.compile(r'\s*"?sep=(.)"?\s*[,;]*\s*', re.IGNORECASE)
_BLANKS_BEHIND_QUOTE = re.compile(r'"[ \u00a0]+(?=[,;\t|\r\n]|$)')


@dataclasses.dataclass(frozen=True)
class UserTable:
    """A table that a user wrote."""

    file: Path
    table: pd.DataFrame
    """Text, without blanks around it; columns under their canonical names, unknown ones in lower case."""

    lines: list[int]
    """Line of each row in the file, (N,)."""

    unknown: list[str]
    """Columns without a canonical name."""

    notes: list[str]
    """What was read other than as it is written."""

    def where(self, row: int) -> str:
        """Return file and line of a row, for messages."""
        return f"{self.file}, line {self.lines[row]}"

    def paths(self, column: str) -> list[Path]:
        """Return the paths in a column, (N,), relative ones below the folder of the table.

        Where no such file exists, backslashes count as slashes, and accents may be composed in another way. Adds to
        `notes` what was changed.
        """
        return [path for (path,) in self.path_lists(column, separator="")]

    def path_lists(self, column: str, *, separator: str) -> list[list[Path]]:
        """Return the paths in each cell of a column, (N,), separated by `separator`; otherwise as `paths`."""
        changed: dict[str, int] = {}
        cells = [
            [self._path(text.strip(BLANKS), changed) for text in (cell.split(separator) if separator else [cell])]
            for cell in self.table[column]
        ]
        self.notes.extend(f"{n} paths with {what}" for what, n in changed.items())
        return cells

    def _path(self, text: str, changed: dict[str, int]) -> Path:
        """Return the path of a text, and count what was changed in it."""
        path = self.file.parent / text
        if ("\\" in text or not text.isascii()) and not path.exists():
            for what, other in _other_spellings(text):
                if (self.file.parent / other).is_file():
                    changed[what] = changed.get(what, 0) + 1
                    return self.file.parent / other
        return path


def _other_spellings(text: str) -> list[tuple[str, str]]:
    """Return other ways to write a path, with what is changed."""
    slashed = text.replace("\\", "/")
    composed = [(form, unicodedata.normalize(form, slashed)) for form in ("NFC", "NFD")]
    return [("backslashes read as slashes", slashed), *(("accents read as Unicode " + f, t) for f, t in composed)]


def read_user_table(file: Path, columns: Mapping[str, tuple[str, ...]], *, needed: tuple[str, ...]) -> UserTable:
    """Return the rows of a table.

    Args:
        file: the table.
        columns: canonical name -> other names that are taken for it, all in lower case with `_` for blanks.
        needed: canonical names that must be there.

    Raises:
        BadInput: no table of text, a needed column is missing, two columns could be one, or a row is too long.
    """
    text = _text(file)
    notes: list[str] = []
    first_line, skipped = 1, ""
    lines = text.splitlines(keepends=True)
    if lines and (match := _SEP_LINE.fullmatch(lines[0].rstrip("\r\n"))):
        skipped, first_line, lines = match[1], 2, lines[1:]
        notes.append(f"its first line, sep={visible(skipped)}, is skipped")
    names = {other: name for name, others in columns.items() for other in (name, *others)}
    header_line = next((line for line in lines if line.strip()), "")
    separator = skipped or _separator(header_line, set(names))
    if separator != ",":
        notes.append(f"separated by {SEPARATORS.get(separator, repr(separator))}")
    rows = _rows(file, "".join(lines), separator, notes)
    rows = [(line + first_line - 1, cells) for line, cells in rows]
    if not rows:
        raise BadInput(f"{file}: no rows")
    header = [_canonical(cell) for cell in rows[0][1]]
    kept = [(line, cells) for line, cells in rows[1:] if any(cells)]
    body, header = _aligned(file, kept, header, notes)
    if n_empty := len(rows) - 1 - len(kept):
        notes.append(f"{n_empty} empty rows are left out")
    _check_cells(file, body)
    renamed = _renamed(file, header, columns, notes)
    missing = [name for name in needed if name not in renamed]
    if missing:
        found = ", ".join(visible(name) for name in header)
        raise BadInput(
            f"{file}: no column '{missing[0]}'; its first row must name the columns {', '.join(columns)} (needed: "
            f"{', '.join(needed)}); found: {found}"
        )
    if not body:
        raise BadInput(f"{file}: no rows")
    table = pd.DataFrame([cells for _, cells in body], columns=renamed, dtype=object)
    unknown = [visible(name) for name in renamed if name not in columns]
    return UserTable(file, table, [line for line, _ in body], unknown, notes)


def decimal(text: str) -> float:
    """Return a number; `0,5` is one half, as many spreadsheets write it.

    Raises:
        ValueError: not a number.
    """
    return float(text.replace(",", ".") if text.count(",") == 1 and "." not in text else text)


def _text(file: Path) -> str:
    """Return the content of a file of text.

    Raises:
        BadInput: a spreadsheet, a placeholder, or text in another encoding.
    """
    if file.suffix.lower() in SPREADSHEETS:
        raise BadInput(f"{file}: a spreadsheet, not a table of text: {SAVE_AS}")
    try:
        data = file.read_bytes()
    except OSError as error:
        raise BadInput(f"{file}: cannot be read ({error.strerror})") from None
    if data.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise BadInput(f"{file}: a spreadsheet, not a table of text: {SAVE_AS}")
    if what := placeholder(file):
        raise BadInput(f"{file}: {what}")
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except ValueError as error:
        raise BadInput(f"{file}: not a CSV file in UTF-8 ({error}): {SAVE_AS}") from None
    if "\0" in text:
        raise BadInput(f"{file}: not a CSV file in UTF-8 (it holds zero bytes): {SAVE_AS}")
    return text


def _separator(header: str, known: set[str]) -> str:
    """Return the separator by which the header names the most known columns, then the most columns; else a comma."""

    def score(separator: str) -> tuple[int, int]:
        try:
            cells = next(csv.reader([header], delimiter=separator, skipinitialspace=True))
        except (csv.Error, StopIteration):
            return 0, 0
        return len({_canonical(cell) for cell in cells} & known), len(cells)

    return max(SEPARATORS, key=score)  # the first of equals


def _canonical(cell: str) -> str:
    """Return a column's name in lower case, with `_` for blanks and hyphens."""
    return re.sub(r"[\s_-]+", "_", cell.strip(BLANKS + "\r\n").casefold())


def _rows(file: Path, text: str, separator: str, notes: list[str]) -> list[tuple[int, list[str]]]:
    """Return the rows with their line numbers, cells without blanks around them."""

    def parse(content: str) -> list[tuple[int, list[str]]]:
        reader = csv.reader(io.StringIO(content, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
        return [(reader.line_num, [cell.strip(BLANKS) for cell in cells]) for cells in reader if cells]

    try:
        if re.search(rf"{re.escape(separator)}[ \u00a0]|[ \u00a0](?:{re.escape(separator)}|\r|\n)", text):
            raw = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
            if any(cell != cell.strip(BLANKS) for cells in raw for cell in cells):
                notes.append("blanks around cells are left out")
        return parse(text)
    except csv.Error:
        try:
            rows = parse(_BLANKS_BEHIND_QUOTE.sub('"', text))
        except csv.Error as error:
            raise BadInput(f"{file}: not a readable CSV file: {error}") from None
        notes.append("blanks behind quotes are left out")
        return rows


def _aligned(
    file: Path, rows: list[tuple[int, list[str]]], header: list[str], notes: list[str]
) -> tuple[list[tuple[int, list[str]]], list[str]]:
    """Return rows as long as the header, and the header, both without columns that are empty and have no name.

    Raises:
        BadInput: a row with more cells than the header, or a column without a name.
    """
    width = len(header)
    aligned = []
    for line, cells in rows:
        if any(cells[width:]):
            raise BadInput(
                f"{file}, line {line}: {len(cells)} cells, but the header names {width} columns: put cells that hold "
                "a separator into quotes"
            )
        aligned.append((line, cells[:width] + [""] * (width - len(cells))))
    if n_short := sum(len(cells) < width for _, cells in rows):
        notes.append(f"{n_short} short rows are filled with empty cells")
    nameless = [i for i, name in enumerate(header) if not name]
    for i in nameless:
        for line, cells in aligned:
            if cells[i]:
                raise BadInput(f"{file}, line {line}: column {i + 1} holds '{visible(cells[i])}', but has no name")
    if nameless:
        notes.append(f"{len(nameless)} empty columns are left out")
    used = [i for i in range(width) if i not in nameless]
    return [(line, [cells[i] for i in used]) for line, cells in aligned], [header[i] for i in used]


def _check_cells(file: Path, rows: list[tuple[int, list[str]]]) -> None:
    """Refuse cells with line breaks and other control characters.

    Raises:
        BadInput: names the first.
    """
    for line, cells in rows:
        for cell in cells:
            if UNPRINTABLE.search(cell):
                raise BadInput(f"{file}, line {line}: '{visible(cell)}' has a character that no table can hold")


def _renamed(file: Path, header: list[str], columns: Mapping[str, tuple[str, ...]], notes: list[str]) -> list[str]:
    """Return the header with canonical names.

    Raises:
        BadInput: two columns of one name, or two that could be one.
    """
    for name in header:
        if header.count(name) > 1:
            raise BadInput(f"{file}: two columns are called '{visible(name)}'")
    new = dict(zip(header, header, strict=True))
    for name, others in columns.items():
        found = [other for other in header if other in others and other not in columns]
        if name in header or not found:
            continue
        if len(found) > 1:
            raise BadInput(
                f"{file}: its columns {', '.join(found)} could all be the '{name}': rename the right one to '{name}'"
            )
        new[found[0]] = name
        notes.append(f"column '{found[0]}' is read as '{name}'")
    return list(new.values())
