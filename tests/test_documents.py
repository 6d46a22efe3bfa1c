"""Links and command lines of the documents are true."""

import importlib
import re
import shlex
import textwrap
from pathlib import Path

import pytest

from pipeline import names, report
from pipeline.cli.main import DEMO
from pipeline.cli.parse import parse
from pipeline.network.resnet import build_network

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "data" / "README.md"])
NAMES = [path.relative_to(ROOT).as_posix() for path in DOCUMENTS]


def headings(text: str) -> set[str]:
    """Return the anchors of a page as GitHub makes them."""
    lines = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_to_a_file(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        assert file.exists(), f"{name}: {target}"
        if anchor:
            assert anchor in headings(file.read_text(encoding="utf-8")), f"{name}: {target}"


def commands(text: str) -> list[str]:
    """Return the command lines of a page's indented blocks that call this package, continuations joined."""
    joined = re.sub(r"\\\n\s*", " ", text)
    lines = [line.strip() for line in joined.splitlines() if line.startswith("    ")]
    return [line for line in lines if re.match(r"(python -m pipeline|histoheads |torchrun .* pipeline)", line)]


def modules_and_words() -> list[tuple[str, list[str]]]:
    """Return (module, words) of every command line in the documents."""
    found = []
    for path in DOCUMENTS:
        for line in commands(path.read_text(encoding="utf-8")):
            words = shlex.split(line, comments=True)
            if words[:2] == ["histoheads", "completion"]:
                continue  # tests/cli/test_main.py reads what it prints
            if words[:2] == ["histoheads", "demo"]:
                found.append(("pipeline", [*DEMO, *words[2:]]))
                continue
            if words[0] == "histoheads":
                has_command = len(words) > 1 and words[1].replace("-", "_") in names.COMMANDS
                found.append((f"pipeline.{words[1]}", words[2:]) if has_command else ("pipeline", words[1:]))
                continue
            at = next(i for i, word in enumerate(words) if word.startswith("pipeline"))
            found.append((words[at], words[at + 1 :]))
    return found


COMMANDS = modules_and_words()


@pytest.mark.parametrize(("module", "words"), COMMANDS, ids=[" ".join([name, *words]) for name, words in COMMANDS])
def test_every_command_line_is_understood(module: str, words: list[str]) -> None:
    name = "pipeline.__main__" if module == "pipeline" else module
    command = importlib.import_module(name).main
    words = [word for word in words if not word.endswith(".toml") and word != "--config"]
    parse(command.syntax, words)


def scripts(text: str) -> list[str]:
    """Return the blocks of Python of a page that read files of a run."""
    blocks = re.findall(r"(?:^    .*\n|^\n(?=    ))+", text, re.MULTILINE)
    return [textwrap.dedent(block) for block in blocks if "import " in block and "reports/mine" in block]


@pytest.mark.parametrize("name", ["README.md", "docs/format.md"])
def test_python_that_reads_the_files_runs(name: str, fitted_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = scripts((ROOT / name).read_text(encoding="utf-8"))
    assert found
    small = build_network("resnet10", n_classes=2, seed=0)
    monkeypatch.setattr("torchvision.models.resnet50", lambda num_classes: small)
    report.main(["--run", str(fitted_run), "--map", "none", "--draws", "100", "--gallery", "0"])
    for script in found:
        exec(compile(script.replace("reports/mine", str(fitted_run)), name, "exec"), {})


@pytest.mark.parametrize("name", NAMES)
def test_readme_and_docs_are_short_and_fit_a_terminal(name: str) -> None:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    if name == "README.md":
        assert len(lines) <= 250
    if name == "README.md" or name.startswith("docs/"):
        for number, line in enumerate(lines, 1):
            assert len(line) <= 104 or line.startswith(("|", "    ")), f"{name}:{number}"
