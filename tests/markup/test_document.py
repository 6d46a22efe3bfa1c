import base64
import io
import re

import pytest
from PIL import Image

from pipeline.markup.document import Bullets, Document, Figure, Note, Section, Table, Text, to_html, to_markdown

DOCUMENT = Document(
    "A & <b>",
    [
        Section("First", [Text("plain"), Note("careful"), Bullets(["one", "two"])]),
        Section(
            "Second",
            [Table(["name", "n"], [["x|y", "1"], ["`z`", "2"]], "What it is."), Figure("f/p.png", "alt", "cap")],
        ),
    ],
)


def test_markdown():
    assert to_markdown(DOCUMENT).splitlines() == [
        "# A & \\<b\\>",
        "",
        "## First",
        "",
        "plain",
        "",
        "> **careful**",
        "",
        "- one",
        "- two",
        "",
        "## Second",
        "",
        "What it is.",
        "",
        "| name | n |",
        "| :--- | ---: |",
        "| x\\|y | 1 |",
        "| \\`z\\` | 2 |",
        "",
        "![alt](f/p.png)",
        "",
        "cap",
    ]


def test_html_escapes_text_and_holds_its_pictures(tmp_path):
    (tmp_path / "f").mkdir()
    Image.new("RGB", (3, 2), (10, 20, 30)).save(tmp_path / "f/p.png")
    html = to_html(DOCUMENT, folder=tmp_path)
    assert "<h1>A &amp; &lt;b&gt;</h1>" in html
    found = re.search(r'src="data:image/webp;base64,([^"]+)"', html)
    assert found is not None
    with Image.open(io.BytesIO(base64.b64decode(found[1]))) as shown:
        assert (shown.format, shown.size, shown.getpixel((2, 1))) == ("WEBP", (3, 2), (10, 20, 30))
    assert html.index("careful") < html.index("<li>one</li>") < html.index("x|y") < html.index('alt="alt"')
    assert 'name="viewport"' in html


def test_html_without_a_picture_that_it_names_fails(tmp_path):
    with pytest.raises(FileNotFoundError):
        to_html(DOCUMENT, folder=tmp_path)
