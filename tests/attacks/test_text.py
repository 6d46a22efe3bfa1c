"""Names of files, classes and groups from a stranger, where people see them: page, Markdown, spreadsheet, terminal."""

import csv
import io
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline import prepare, report
from pipeline.comparison.label_errors import COLUMNS as SUSPECT_COLUMNS
from pipeline.comparison.label_errors import to_csv
from pipeline.errors import UsageError
from pipeline.markup.document import Bullets, Document, Figure, Note, Section, Table, Text, to_html, to_markdown
from pipeline.runtime.console import log, visible
from pipeline.storage.csv_files import FORMULA, no_formula
from pipeline.storage.predictions.csv_table import SCHEMA, read_predictions
from pipeline.tiles.audit.checks import markdown_cell
from pipeline.tiles.datasets import groups
from pipeline.tiles.datasets.groups import parse_groups

from .hostile import refused, vouch

MARKUP = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "'><svg/onload=alert(1)>",
    "</style></title><iframe src=https://e.example>",
    "{{ 7 * 191 }}{% for x in ().__class__.__base__.__subclasses__() %}",
    "&lt;b&gt;&#x3c;script&#x3e;",
    "[x](javascript:alert(1))",
    "![x](https://e.example/seen.png)",
    "<https://e.example>",
    "`</code><b>`",
    "a|b|c",
    "$\\href{https://e.example}{x}$",
    "https://e.example/x",
    "www.e.example",
]

FORMULAS = ["=1+1", "+1+1", "-1+1", "@SUM(1)", '=HYPERLINK("https://e.example")', "=cmd|' /C calc'!A0", "'=1", "a=1"]

ESCAPES = ["\x1b]0;owned\x07", "\x1b[2J\x1b[H", "\x9b31m", "a\rb", "a\x08\x08b", "\x00", "\u2028", "\x85"]


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.n_scripts = 0
        self.attributes: set[tuple[str, str]] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.n_scripts += tag == "script"
        self.attributes |= {(name, value or "") for name, value in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


PARTS = "html head meta title style body main h1 h2 nav ul li a section p div figure img figcaption details summary"
TABLE = "table caption thead tbody tr th td"
TAGS = {*PARTS.split(), *TABLE.split()}


def is_harmless(page: Page, *, n_scripts: int = 0) -> bool:
    """Return whether a page has our scripts alone, and asks for nothing."""
    links = {value for name, value in page.attributes if name in ("href", "src")}
    known = {"lang", "charset", "http-equiv", "content", "name", "class", "id", "aria-label", "tabindex", "scope"}
    names = {name for name, _ in page.attributes}
    return (
        page.tags - {"script"} <= TAGS
        and page.n_scripts == n_scripts
        and names <= known | {"href", "src", "alt"} | ({"type"} if n_scripts else set())
        and all(re.fullmatch(r"#part-\d+|data:image/webp;base64,[\w+/=]*", link) for link in links)
    )


def everywhere(name: str) -> Document:
    """Put a text into every place of a report."""
    table = Table([name, name], [[name, name]], name, left=2)
    blocks = [Text(name), Note(name), Bullets([name]), table, Figure("p.png", name, name)]
    return Document(name, [Section(name, blocks)])


@pytest.mark.parametrize("name", MARKUP)
def test_markup_in_every_place_of_the_page(tmp_path: Path, name: str) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "p.png")
    page = Page(to_html(everywhere(name), folder=tmp_path))
    assert is_harmless(page)
    assert page.text.count(name) == 13  # title (2), section (2), text, note, bullet, table (5), figure; alt is no text
    assert ("alt", name) in page.attributes


@pytest.mark.parametrize("name", MARKUP)
def test_markup_in_every_place_of_the_markdown(name: str) -> None:
    text = to_markdown(everywhere(name))
    assert text.count(markdown_cell(name)) == 12  # title, section, text, note, bullet, table (5), figure (2)
    rest = " ".join(text.replace(markdown_cell(name), "").split())
    assert rest == "# ## > **** - | | | | :--- | :--- | | | | ![](p.png)"
    bare = re.sub(r"\\.", "", markdown_cell(name))  # without what is escaped
    assert not re.search(r"[<>`\[\]|$*_~]|&#?\w+;|://|www\.", bare)


@pytest.mark.parametrize("name", ["# a", "1. a", "2) a", "- a", "+ a", "---", "===", "## "])
def test_a_paragraph_stays_one(name: str) -> None:
    blocks = [Text(name), Bullets([name]), Figure("p.png", "x", name)]
    lines = to_markdown(Document("x", [Section("x", blocks)])).splitlines()
    opening = re.compile(r"(- )?(#|\d+[.)]|[-+] |-{3}|={3})")
    assert [line for line in lines[4:] if opening.match(line.removeprefix("- "))] == []
    assert sum("\\" in line for line in lines) == 3


def fabricate(run: Path, classes: list[str], groups: list[str]) -> Path:
    """Write predictions.csv of two heads over tiles, classes and groups of any name, and its record."""
    rng = np.random.default_rng(0)
    rows = []
    for head in ("softmax", "svm"):
        for i in range(96):
            p = rng.dirichlet(np.ones(len(classes))).round(6)
            p[0] += 1 - p.sum()
            label, split = classes[i % len(classes)], ("train", "val", "test")[i // 8 % 3]
            rows.append([f"{label}/{i}", groups[i % len(groups)], split, label, head, classes[int(p.argmax())], *p])
    columns = ["tile_id", "group", "split", "label", "head", "predicted", *(f"p_{name}" for name in classes)]
    run.mkdir()
    pd.DataFrame(rows, columns=columns).to_csv(run / "predictions.csv", index=False, float_format="%.9g")
    details = {"protocol": "random", "dataset": MARKUP[0], "credit": MARKUP[1], "calibrated_on": "val", "n_skipped": 0}
    vouch(run / "predictions.csv", SCHEMA, details=details)
    return run


@pytest.mark.fault("names that climb, lead elsewhere, or are no text")
def test_names_in_a_whole_report(tmp_path: Path) -> None:
    """Markup in page and Markdown, formulas in the tables that people open."""
    classes, groups = [MARKUP[1], MARKUP[12], FORMULAS[0], FORMULAS[2]], [*FORMULAS[:6], MARKUP[0], MARKUP[6]]
    run = fabricate(tmp_path / "run", classes, groups)
    assert report.main(["--run", str(run), "--draws", "100", "--map", "none", "--gallery", "0"]) == 0
    page = Page((run / "report.html").read_text())
    assert is_harmless(page, n_scripts=2)  # the data and the script of the explorer
    assert all(name in page.text for name in (*classes, *groups))
    text = (run / "comparison.md").read_text()
    assert not any(name in text for name in MARKUP)
    assert all(markdown_cell(name) in text for name in (*classes, *groups))
    for name in ("per_group.csv", "label_errors.csv", "comparison.csv"):
        if not (run / name).is_file():
            continue  # without cleanlab
        table = pd.read_csv(run / name, keep_default_na=False, dtype=str)
        texts = table.drop(columns=["value", "low", "high"], errors="ignore")
        assert not any(cell.startswith(FORMULA) for cell in texts.to_numpy().ravel()), name
    assert set(pd.read_csv(run / "per_group.csv", dtype=str)["group"]) == {no_formula(name) for name in groups}
    assert set(read_predictions(run / "predictions.csv")["group"]) == set(groups)  # what is read again is as it was


@pytest.mark.fault("names that climb, lead elsewhere, or are no text")
@pytest.mark.parametrize("name", FORMULAS)
def test_formulas_in_the_ranking_of_label_errors(name: str) -> None:
    suspects = pd.DataFrame([[name, name, name, name, -0.5, True, 1]], columns=list(SUSPECT_COLUMNS))
    (row,) = csv.DictReader(io.StringIO(to_csv(suspects)))
    expected = name if name in ("'=1", "a=1") else f"'{name}"
    assert [row[key] for key in ("tile_id", "group", "label", "suggested")] == [expected] * 4
    assert row["self_confidence"] == "-0.5"  # a number is no formula


# -- terminal --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ESCAPES)
def test_what_is_said_does_not_command_the_terminal(capsys: pytest.CaptureFixture[str], text: str) -> None:
    log.info(f"tile {text}x")
    said = capsys.readouterr().err
    assert said.endswith("x\n")
    assert said[:-1].isprintable()


def test_letters_of_all_scripts_are_said_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    log.info("Zöllner 日本 \\x1b é e\u0301 \u00a0 عربي")
    assert capsys.readouterr().err == "Zöllner 日本 \\x1b é e\u0301 \u00a0 عربي\n"


def test_escapes_in_names_of_a_csv(
    tmp_path: Path, tile_folder: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """In cells they are refused; a column of such a name is passed over, and said so."""
    folder = tile_folder(n=4)
    paths = sorted(path.relative_to(tmp_path).as_posix() for path in folder.rglob("*.png"))
    (tmp_path / "t.csv").write_text(f"path,label,\x1b]0;owned\x07\n{paths[0]},A\x9b31m,x\n")
    words = [
        "--run",
        str(tmp_path / "run"),
        "--protocol",
        "random",
        "--workers",
        "1",
        "--data",
        str(tmp_path / "t.csv"),
    ]
    assert prepare.main(words) == 1
    assert "line 2: 'A\\x9b31m' has a character that no table can hold" in capsys.readouterr().err
    rows = "".join(f"{path},{path.split('/')[1]},x\n" for path in paths)
    (tmp_path / "t.csv").write_text(f"path,label,\x1b]0;owned\x07\n{rows}")
    assert prepare.main(words) == 0
    said = capsys.readouterr().err
    assert "column '\\x1b]0;owned\\x07'" in said
    written = said + "".join((tmp_path / "run" / name).read_text() for name in ("audit.md", "audit.json"))
    assert visible(written.replace("\n", "")) == written.replace("\n", "")


def test_escapes_in_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for label in ("A", "B\x9b2J"):
        (tmp_path / "tiles" / label).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "tiles" / label / "s.png")
    words = ["--run", str(tmp_path / "run"), "--data", str(tmp_path / "tiles"), "--protocol", "random"]
    assert prepare.main(words) == 1
    assert "'B\\x9b2J/s.png' has a character that no table can hold: rename it" in capsys.readouterr().err


# -- regular expressions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("regex", [r"(a+)+$", r"(a|aa)+$", r"(\w+\s?)*!", r"((a*)*)*b"])
def test_a_group_regex_that_would_take_for_ever(monkeypatch: pytest.MonkeyPatch, regex: str) -> None:
    monkeypatch.setattr(groups, "REGEX_S", 0.2)
    refused(UsageError, "takes more than", parse_groups, ["a" * 60 + "?"], regex)
    assert parse_groups(["s1_a"], r"(s\d)") == ["s1"]  # the next one has its time again


def test_a_group_regex_on_many_names_is_in_time() -> None:
    names = [f"class/slide{i % 50}_{i}.png" for i in range(50_000)]
    assert set(parse_groups(names, r"(slide[0-9]+)_")) == {f"slide{i}" for i in range(50)}
