"""Options: defaults, then the TOML file, then the command line; nothing unknown passes."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from pipeline.cli.options import Common, check, parse, plain, read_toml
from pipeline.errors import UsageError
from pipeline.runtime.console import log


@dataclasses.dataclass(frozen=True)
class BakeOptions:
    """A stage of the tests."""

    heat: float = 0.5
    """How hot."""

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


STAGES = {"train": BakeOptions}


def bake(*words: str) -> tuple[Common, BakeOptions]:
    common, options = parse("python -m x", "Bakes.", STAGES, list(words))
    return common, options["train"]


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


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("sead = 1", "unknown option 'sead'; did you mean 'seed'"),
        ("max-bad = 1", "unknown option 'max-bad'; did you mean 'max_bad'"),
        ("[train]\nheet = 1", "unknown option 'heet'; did you mean 'heat'"),
        ("[train]\nzzzzzz = 1", "unknown option 'zzzzzz'; known: heat, loaves"),
        ("[trian]\nheat = 1", "unknown option 'trian'; did you mean 'train'"),
        ('config = "x"', "unknown option 'config'"),
        ("train = 3", r"'train' is a stage: its options stand below a line \[train\]"),
        ("[seed]\na = 1", "'seed' is a table; expected a value"),
        ("[train.heat]\na = 1", "'heat' is a table; expected a value"),
        ("seed = ", "not valid TOML"),
        ("seed = 1\nseed = 2", "not valid TOML"),
        ("[train]\nheat = 99", "--heat 99.0: below 10"),
        ("max_bad = 2", "--max-bad 2.0: a share between 0 and 1"),
        ("max_bad = nan", "--max-bad nan"),
        ("seed = -1", "--seed -1: a number from 0 up"),
        ("threads = 0", "--threads 0: too small"),
        ("workers = -1", "--workers -1: too small"),
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


def test_say_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    log.info("a\nb")
    assert capsys.readouterr() == ("", "a b\n")
