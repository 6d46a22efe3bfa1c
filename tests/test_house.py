"""The rules of CONTRIBUTING that no linter knows: sizes of modules and folders, and words."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pipeline"

LINES, MODULES = 300, 16
"""Most lines of a module, and most modules of a folder below the commands."""


def banned_words() -> list[str]:
    """Return the words that CONTRIBUTING lists: the indented lines of its section Words."""
    section = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("\n## Words\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("    ")]
    return [word.strip() for line in lines for word in line.split(",")]


def files_with_words() -> list[Path]:
    """Return what the list is for."""
    return sorted([*PACKAGE.rglob("*.py"), *(ROOT / "docs").glob("*.md"), ROOT / "README.md"])


def findings(words: list[str], files: list[Path]) -> list[str]:
    """Return `file:line: word` for every banned word, also across the end of a line."""
    pattern = re.compile(r"\b(" + "|".join(re.escape(word).replace(r"\ ", r"\s+") for word in words) + r")\b", re.I)
    found = []
    for file in files:
        text = file.read_text(encoding="utf-8")
        for match in pattern.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(f"{file.relative_to(ROOT)}:{line}: {' '.join(match[0].split())}")
    return found


def test_the_list_is_read() -> None:
    words = banned_words()
    assert len(words) > 10
    assert "anew" in words
    assert "named wrongly" in words


def test_words_are_found_across_lines() -> None:
    assert findings(["anew", "named wrongly"], [Path(__file__)])
    assert not findings(["zz" + "yzx"], [Path(__file__)])


def test_no_banned_word_is_used() -> None:
    found = findings(banned_words(), files_with_words())
    assert not found, "\n".join(found)


def test_no_sentence_begins_with_of() -> None:
    pattern = re.compile(r'(?:"""|[.:;] |^\s*)Of\s[a-z]', re.M)
    found = [path for path in files_with_words() if pattern.search(path.read_text(encoding="utf-8"))]
    assert not found


def test_no_module_is_long() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE.rglob("*.py")}
    long = [f"{path.relative_to(ROOT)}: {n} lines" for path, n in lengths.items() if n > LINES]
    assert not long, "\n".join(long)


def test_no_room_is_crowded() -> None:
    folders = [path for path in PACKAGE.rglob("*") if path.is_dir()]
    crowded = [
        str(folder.relative_to(ROOT))
        for folder in folders
        if len(set(folder.glob("*.py")) - {folder / "__init__.py"}) > MODULES
    ]
    assert not crowded
