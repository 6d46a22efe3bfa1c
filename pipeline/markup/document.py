"""Hold a report as sections of paragraphs, tables and figures, and write it as Markdown and as one HTML file.

Every text is plain: class and file names are untrusted until a renderer has escaped them.
"""

import base64
import dataclasses
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import jinja2

from pipeline.markup.escape import markdown_cell
from pipeline.markup.web_image import web_image

TEMPLATE = "report.html.jinja"

OPENING = re.compile(r"^(\d*)([-+=#.)])(?=[-=#\s]|$)")
"""Beginning of a heading, a list or a rule in Markdown."""


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclasses.dataclass(frozen=True)
class Note:
    """A highlighted paragraph: a warning, or the sentence to act on."""

    kind: ClassVar[str] = "note"
    text: str


@dataclasses.dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    kind: ClassVar[str] = "bullets"
    items: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Table:
    """A table; all cells are text."""

    kind: ClassVar[str] = "table"
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    left: int = 1
    """Number of columns, from the left, with words (aligned left); the others have numbers."""


@dataclasses.dataclass(frozen=True)
class Figure:
    """A picture of the run folder."""

    kind: ClassVar[str] = "figure"
    file: str
    """Relative to the run folder, with slashes."""

    alt: str
    caption: str


@dataclasses.dataclass(frozen=True)
class Interactive:
    """A part of the HTML file that a script draws; without script, and in Markdown, its text alone is there."""

    kind: ClassVar[str] = "interactive"
    name: str
    """Id of the element that the script fills. Its data are in the element `<name>-data`."""

    text: str
    payload: str
    """JSON without `<`."""

    script: str


Block = Text | Note | Bullets | Table | Figure | Interactive


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading and the blocks below it."""

    title: str
    blocks: Sequence[Block]
    folded: bool = False
    """Whether a browser shows its heading alone until the reader opens it."""


@dataclasses.dataclass(frozen=True)
class EmptySection:
    """A section for which there is nothing to show, and why."""

    title: str
    reason: str
    """A sentence."""


@dataclasses.dataclass(frozen=True)
class Document:
    """The whole report."""

    title: str
    sections: Sequence[Section]

    @property
    def figures(self) -> list[Figure]:
        """All figures in their order."""
        return [block for section in self.sections for block in section.blocks if isinstance(block, Figure)]

    @property
    def scripts(self) -> list[str]:
        """The scripts of all interactive parts."""
        return [block.script for section in self.sections for block in section.blocks if isinstance(block, Interactive)]


def to_markdown(document: Document) -> str:
    """Return the document as GitHub-flavoured Markdown, pictures by relative link."""
    parts = [f"# {markdown_cell(document.title)}"]
    for section in document.sections:
        parts.append(f"## {markdown_cell(section.title)}")
        parts += [_markdown_block(block) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def _paragraph(text: str) -> str:
    """Return text that stays a paragraph, whatever its first characters."""
    return OPENING.sub(r"\1\\\2", markdown_cell(text))


def _markdown_block(block: Block) -> str:
    if isinstance(block, Text | Interactive):
        return _paragraph(block.text)
    if isinstance(block, Note):
        return f"> **{markdown_cell(block.text)}**"
    if isinstance(block, Bullets):
        return "\n".join(f"- {_paragraph(item)}" for item in block.items)
    if isinstance(block, Figure):
        return f"![{markdown_cell(block.alt)}]({block.file})\n\n{_paragraph(block.caption)}"
    rules = [":---" if column < block.left else "---:" for column in range(len(block.head))]
    rows = [block.head, rules, *block.rows]
    lines = ["| " + " | ".join(cell if row is rules else markdown_cell(cell) for cell in row) + " |" for row in rows]
    caption = [_paragraph(block.caption), ""] if block.caption else []
    return "\n".join([*caption, *lines])


def to_html(document: Document, *, folder: Path) -> str:
    """Return the document as one HTML file that needs no other: pictures inlined, no network.

    The only scripts that a browser runs are those of the document's interactive parts, by their hash.

    Args:
        document: the report.
        folder: the run folder, which holds the figures.
    """
    here = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=here, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    images = {figure.file: base64.b64encode(web_image(folder / figure.file)).decode() for figure in document.figures}
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in document.scripts]
    return environment.get_template(TEMPLATE).render(document=document, images=images, hashes=hashes)
