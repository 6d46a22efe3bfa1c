"""Figures do not depend on the user's settings of matplotlib, and names in any script are drawn or reported."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image

import pipeline
from pipeline.figures import style
from pipeline.figures.plotting import Text, families_with, fontManager

PACKAGE = Path(pipeline.__file__).parent
DRAW = """
import sys
from pathlib import Path
import numpy as np
from pipeline.figures.style import save, styled
from pipeline.figures.plotting import Figure
@styled
def draw(path):
    figure = Figure(figsize=(2, 2))
    figure.subplots().imshow(np.arange(12).reshape(3, 4))
    save(figure, path)
draw(Path(sys.argv[1]))
"""
SETTINGS = """
image.origin: lower
text.usetex: True
figure.constrained_layout.use: True
savefig.bbox: tight
savefig.transparent: True
savefig.dpi: 20
font.family: serif
axes.grid: True
backend: module://no_such_backend
no.such_setting: 1
"""


def drawn(folder: Path, **environment: str) -> tuple[bytes, str]:
    """Return the figure that a fresh process draws in a folder, and what it prints."""
    path = folder / "figure.png"
    env = {name: value for name, value in os.environ.items() if not name.startswith("MPL")} | environment
    env["PYTHONPATH"] = str(PACKAGE.parent)
    done = subprocess.run([sys.executable, "-c", DRAW, path], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return path.read_bytes(), done.stderr


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The figure without any settings."""
    return drawn(tmp_path_factory.mktemp("plain"))[0]


def test_only_one_module_imports_matplotlib() -> None:
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] in ("matplotlib", "mpl_toolkits", "pylab") for name in names):
                found.add(path.relative_to(PACKAGE).as_posix())
    assert found == {"figures/plotting.py"}


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "Qt5Agg", "nonsense"])
def test_the_backend_of_the_environment_is_not_taken(tmp_path: Path, plain: bytes, backend: str) -> None:
    assert drawn(tmp_path, MPLBACKEND=backend) == (plain, "")


@pytest.mark.parametrize("where", ["MATPLOTLIBRC", "MPLCONFIGDIR", "the current folder"])
def test_settings_of_the_user_change_no_figure(tmp_path: Path, plain: bytes, where: str) -> None:
    folder = tmp_path if where == "the current folder" else tmp_path / "settings"
    folder.mkdir(exist_ok=True)
    (folder / "matplotlibrc").write_text(SETTINGS)
    environment = {} if folder == tmp_path else {where: str(folder)}
    assert drawn(tmp_path, **environment) == (plain, "")


def font_with(path: Path, family: str, characters: str) -> Path:
    """Write a font that draws some characters as squares."""
    pen = TTGlyphPen(None)
    for i, point in enumerate(((100, 0), (100, 800), (900, 800), (900, 0))):
        (pen.lineTo if i else pen.moveTo)(point)
    pen.closePath()
    names = [f"u{ord(character):04X}" for character in characters]
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder([".notdef", *names])
    font.setupCharacterMap({ord(character): name for character, name in zip(characters, names, strict=True)})
    font.setupGlyf({name: pen.glyph() for name in [".notdef", *names]})
    font.setupHorizontalMetrics(dict.fromkeys([".notdef", *names], (1000, 0)))
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": family, "styleName": "Regular"})
    font.setupOS2(sTypoAscender=800, usWinAscent=800, usWinDescent=200, usWeightClass=400)
    font.setupPost()
    font.save(path)
    return path


@pytest.fixture
def fonts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two fonts installed: one that draws \u80bf\u7624, one that draws \u95f4\u8d28 and \u80bf."""
    monkeypatch.setattr(fontManager, "ttflist", [e for e in fontManager.ttflist if "DejaVu" in e.name])
    fontManager.addfont(font_with(tmp_path / "one.ttf", "Test One", "\u80bf\u7624"))
    fontManager.addfont(font_with(tmp_path / "two.ttf", "Test Two", "\u95f4\u8d28\u80bf"))
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    fontManager.ttflist.append(type(fontManager.ttflist[0])(str(tmp_path / "broken.ttf"), name="Broken", weight=400))
    monkeypatch.setattr(style, "_reported", set())


@pytest.mark.usefixtures("fonts")
def test_fonts_are_found_for_the_characters_that_are_needed() -> None:
    assert families_with("\u80bf\u7624") == (["Test One"], set())
    assert families_with("\u80bf\u7624\u95f4\u8d28") == (["Test Two", "Test One"], set())
    assert families_with("\u80bf\U0001f9ec") == (["Test Two"], {"\U0001f9ec"})
    assert families_with("") == ([], set())


def figure_of(path: Path, title: str) -> list[str]:
    """Draw a figure with a title and return the fonts of the title."""

    @style.styled
    def draw() -> list[str]:
        figure = style.Figure(figsize=(2, 2))
        figure.subplots().set_title(title)
        style.save(figure, path)
        (text,) = (each for each in figure.findobj(Text) if each.get_text() == title)
        return text.get_fontfamily()

    return draw()


@pytest.mark.usefixtures("fonts")
def test_a_name_in_another_script_is_drawn_by_a_font_that_has_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert figure_of(tmp_path / "latin.png", "TUM \u00e9") == ["sans-serif"]
    assert figure_of(tmp_path / "a.png", "\u80bf\u7624 TUM") == ["sans-serif", "Test One"]
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("fonts")
def test_characters_that_no_font_has_are_reported_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert figure_of(tmp_path / "a.png", "\u0e40\u80bf") == ["sans-serif", "Test Two"]
    assert figure_of(tmp_path / "b.png", "\u0e40") == ["sans-serif"]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "\u0e40" in lines[0]
    assert "\u80bf" not in lines[0]
    with Image.open(tmp_path / "b.png") as image:
        assert np.asarray(image).std() > 0
