"""Options: defaults, then the TOML file, then the command line; nothing unknown passes."""

import dataclasses
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from pipeline import __version__
from pipeline.cli.help_groups import help_texts
from pipeline.cli.options import Common, check, plain
from pipeline.cli.parse import Syntax, parse
from pipeline.cli.toml_file import read_toml
from pipeline.errors import UsageError
from pipeline.runtime.console import is_quiet, log


@dataclasses.dataclass(frozen=True)
class BakeOptions:
    """A stage of the tests."""

    heat: float = 0.5
    """How hot. From 0 to 10."""

    loaves: int | None = None
    """How many."""

    shares: tuple[float, float] = (0.5, 0.5)
    """Two numbers."""

    kind: Literal["rye", "spelt"] | None = None
    """Flour."""

    pattern: str | None = None
    """Text."""

    steam: bool = False
    """A switch."""

    oven: Path = Path("oven")
    """A folder."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check(self.heat < 10, f"--heat {self.heat}: below 10")


SYNTAX = Syntax("python -m x", "Bakes.", BakeOptions, stage="train")


def bake(*words: str) -> tuple[Common, BakeOptions]:
    return parse(SYNTAX, list(words))


@pytest.fixture
def toml(tmp_path: Path) -> Callable[[str], str]:
    """`toml(text)` -> path of a configuration file, as text."""

    def write(text: str) -> str:
        path = tmp_path / "c.toml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def test_defaults() -> None:
    assert bake() == (Common(), BakeOptions())


def test_command_line_wins_over_toml_and_toml_over_defaults(toml: Callable[[str], str]) -> None:
    file = toml(
        'run = "there"\nseed = 7\nforce = true\nmax_bad = 0.5\n'
        '[train]\nheat = 2\nshares = [0.1, 0.9]\nkind = "rye"\nsteam = true\noven = "big"\n'
    )
    common, options = bake("--config", file)
    assert (common.run, common.seed, common.force, common.max_bad) == (Path("there"), 7, True, 0.5)
    assert options == BakeOptions(heat=2, shares=(0.1, 0.9), kind="rye", steam=True, oven=Path("big"))
    for words in (["--config", file], [f"--config={file}"]):
        common, options = bake(
            "--seed", "8", "--no-force", "--heat=3", *words, "--no-steam", "--shares", "1", "2", "--kind", "spelt"
        )
        assert (common.run, common.seed, common.force) == (Path("there"), 8, False)
        assert options == BakeOptions(heat=3, shares=(1, 2), kind="spelt", oven=Path("big"))


def test_of_two_files_the_later_wins(toml: Callable[[str], str], tmp_path: Path) -> None:
    (tmp_path / "second.toml").write_text("seed = 2\n")
    common, _ = bake("--config", toml('seed = 1\nrun = "there"\n'), "--config", str(tmp_path / "second.toml"))
    assert (common.seed, common.run) == (2, Path("there"))


def test_tables_of_other_stages_are_passed_over(toml: Callable[[str], str]) -> None:
    file = toml("[prepare]\nanything = 1\n[train]\nloaves = 3\n[report]\n")
    assert bake("--config", file)[1].loaves == 3


@pytest.mark.parametrize("text", [r"-(\d+)_", "--seed", "a b", "", "=x", "ü"])
def test_any_text_passes_through_toml(toml: Callable[[str], str], text: str) -> None:
    assert bake("--config", toml(f"[train]\npattern = {json.dumps(text)}\n"))[1].pattern == text


def test_a_byte_order_mark_is_no_error(toml: Callable[[str], str]) -> None:
    assert bake("--config", toml("\ufeffseed = 4\n"))[0].seed == 4


@pytest.mark.fault("wrong option or configuration file")
@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("sead = 1", "unknown option 'sead'; did you mean 'seed'"),
        ("max-bad = 1", "unknown option 'max-bad'; did you mean 'max_bad'"),
        ("[train]\nheet = 1", "unknown option 'heet'; did you mean 'heat'"),
        ("[train]\nzzzzzz = 1", "unknown option 'zzzzzz'; known: heat, loaves"),
        ("[trian]\nheat = 1", "unknown option 'trian'; did you mean 'train'"),
        ('config = "x"', "unknown option 'config'"),
        ("train = 3", r"'train' is a stage: write its options below a line \[train\]"),
        ("[seed]\na = 1", "'seed' is a table; expected a value"),
        ("[train.heat]\na = 1", "'heat' is a table; expected a value"),
        ("seed = ", "not valid TOML"),
        ("seed = 1\nseed = 2", "not valid TOML"),
        ("[train]\nheat = 99", "--heat 99.0: below 10"),
        ("max_bad = 2", "--max-bad 2.0: a share between 0 and 1"),
        ("max_bad = nan", "--max-bad nan"),
        ("seed = -1", "--seed -1: a number from 0 up"),
        ("threads = 0", "--threads 0: at least 1"),
        ("workers = -1", "--workers -1: at least 0"),
        ('device = "gpu"', "--device gpu: auto, cpu, cuda, cuda:1 or mps"),
        ('device = "meta"', "--device meta"),
    ],
)
def test_errors_in_toml_are_one_line(toml: Callable[[str], str], text: str, pattern: str) -> None:
    with pytest.raises(UsageError, match=pattern) as caught:
        bake("--config", toml(text))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_file_that_is_not_there_or_no_text_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(UsageError, match=f"{path}: cannot be read"):
            bake("--config", str(path))
    (tmp_path / "a.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not valid TOML"):
        read_toml(tmp_path / "a.toml")


@pytest.mark.fault("wrong option or configuration file")
@pytest.mark.parametrize(
    "words",
    [
        ["--sead", "1"],
        ["--heat", "hot"],
        ["--loaves", "1.5"],
        ["--kind", "oat"],
        ["--shares", "1"],
        ["--seed"],
        ["--config"],
        ["--force", "yes"],
        ["stray"],
    ],
)
def test_a_wrong_command_line_exits_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        bake(*words)
    assert caught.value.code == 2
    assert "Traceback" not in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    "text", ['seed = "x"', "seed = 1.5", "seed = [1, 2]", 'force = "yes"', 'force = "True"', "[train]\nheat = 'x'"]
)
def test_a_wrong_type_in_toml_exits_with_2(toml: Callable[[str], str], text: str) -> None:
    with pytest.raises(SystemExit) as caught:
        bake("--config", toml(text))
    assert caught.value.code == 2


def test_help_shows_docstrings_and_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        bake("--help")
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("Bakes.", "How hot.", "--max-bad", "python -m x", "default: 0.5"))


def test_bytes_that_are_not_utf8_are_refused() -> None:
    with pytest.raises(UsageError, match="not UTF-8"):
        bake("--oven", "caf\udce9")


def test_plain_is_json() -> None:
    found: dict[str, Any] = plain(BakeOptions(oven=Path("a/b")))
    assert found["oven"] == "a/b"
    assert found["shares"] == [0.5, 0.5]
    assert json.loads(json.dumps(found)) == found


@dataclasses.dataclass(frozen=True)
class CutOptions:
    """Another stage of the tests."""

    GROUPS: ClassVar[Mapping[str, str]] = {"knife": "knife", "slice": "thin"}

    thin: bool = False
    """Thin slices."""

    knife: str = "bread"
    """Which knife. It is sharp."""


@dataclasses.dataclass(frozen=True)
class BakeAndCut:
    """Options of two stages."""

    train: BakeOptions
    report: CutOptions


def test_each_stage_of_several_gets_its_own_options(toml: Callable[[str], str]) -> None:
    both = Syntax("x", "", BakeAndCut)
    file = toml('[train]\nloaves = 3\n[report]\nknife = "long"\n')
    _, options = parse(both, ["--config", file, "--thin"])
    assert options == BakeAndCut(BakeOptions(loaves=3), CutOptions(thin=True, knife="long"))


def shown(capsys: pytest.CaptureFixture[str], syntax: Syntax[Any]) -> str:
    with pytest.raises(SystemExit) as caught:
        parse(syntax, ["--help"])
    assert caught.value.code == 0
    return capsys.readouterr().out


def test_help_shows_groups_in_their_order(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, Syntax("x", "", CutOptions))
    titles = ("knife options", "--knife TEXT", "slice options", "--thin", "run options", "machine options", "--version")
    places = [text.index(title) for title in titles]
    assert places == sorted(places)


def test_help_of_the_basics_is_short_and_all_options_are_still_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    syntax = Syntax("x", "", BakeAndCut, basics=("run", "heat", "knife"))
    text = shown(capsys, syntax)
    assert all(name in text for name in ("--run", "--heat", "--knife", "Which knife.", "How hot."))
    assert not any(name in text for name in ("--loaves", "--thin", "--seed", "From 0 to 10", "It is sharp"))
    assert parse(syntax, ["--loaves", "2"])[1].train.loaves == 2


def test_help_of_inherited_options_is_found() -> None:
    @dataclasses.dataclass(frozen=True)
    class Sliced(CutOptions):
        """Inherits."""

        pieces: int = 1
        """How many
        pieces."""

    assert help_texts(Sliced) == {
        "thin": "Thin slices.",
        "knife": "Which knife. It is sharp.",
        "pieces": "How many pieces.",
    }


@pytest.mark.parametrize("words", [["--version"], ["--heat", "99", "--version"]])
def test_version_is_printed(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for syntax in (SYNTAX, dataclasses.replace(SYNTAX, with_run=False)):
        with pytest.raises(SystemExit) as caught:
            parse(syntax, words)
        assert caught.value.code == 0
        assert capsys.readouterr().out == f"histoheads {__version__}\n"


def test_a_file_cannot_ask_for_the_version(toml: Callable[[str], str]) -> None:
    with pytest.raises(UsageError, match="unknown option 'version'"):
        bake("--config", toml("version = true\n"))


def test_quiet_and_verbose_set_what_is_printed(toml: Callable[[str], str]) -> None:
    for words, level in (([], "INFO"), (["--quiet"], "WARNING"), (["--verbose"], "DEBUG"), ([], "INFO")):
        bake(*words)
        assert logging.getLevelName(log.level) == level
        parse(dataclasses.replace(SYNTAX, with_run=False), words)
        assert logging.getLevelName(log.level) == level
    bake("--config", toml("quiet = true\n"))
    assert is_quiet()
    with pytest.raises(UsageError, match="choose one"):
        bake("--quiet", "--verbose")
    bake()
