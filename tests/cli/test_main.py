"""`histoheads NAME` is `python -m pipeline.NAME`."""

import importlib
import subprocess
from pathlib import Path

import pytest

from pipeline import __main__ as whole
from pipeline import cli
from pipeline.cli import main as script
from pipeline.cli.command import Command
from pipeline.names import COMMANDS

TOP = Path(cli.__file__).parents[1]
"""The folder of the package."""


def test_every_command_is_known() -> None:
    modules = {path.stem for path in TOP.glob("*.py")}
    assert set(COMMANDS) == modules - {"__init__", "__main__", "api", "errors", "names"}


@pytest.mark.parametrize("name", COMMANDS)
def test_each_word_runs_the_command_of_that_module(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    main = importlib.import_module(f"pipeline.{name}").main
    assert isinstance(main, Command)
    assert main.module == f"pipeline.{name}"
    with pytest.raises(SystemExit) as caught:
        script.main([name.replace("_", "-"), "--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("histoheads ")


@pytest.mark.parametrize(
    ("words", "passed"),
    [
        ([], []),
        (["--run", "x"], ["--run", "x"]),
        (["demo", "--seed", "1"], ["--data", "demo", "--run", "reports/demo", "--seed", "1"]),
    ],
)
def test_without_a_command_all_stages_are_run(
    words: list[str], passed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []

    def run_all(argv: list[str]) -> int:
        seen.append(argv)
        return 3

    monkeypatch.setattr(whole, "main", run_all)
    assert script.main(words) == 3
    assert seen == [passed]


def test_exit_codes_are_those_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["verify", "--run", str(tmp_path / "none")]) == 1
    assert script.main(["train", "--seed", "-1"]) == 2
    assert script.main(["trian"]) == 2
    assert "did you mean 'train'" in capsys.readouterr().err
    assert script.main(["xyzzyx"]) == 2
    assert script.main(["completion", "vi"]) == 2


@pytest.mark.parametrize("shell", script.SHELLS)
def test_completion_knows_commands_and_options(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """P3: its Python must not import files of the current folder."""
    assert script.main(["completion", shell]) == 0
    text = capsys.readouterr().out
    assert all(f"'{name}'" in text for name in COMMANDS)
    assert "'--group-regex'" in text
    assert '"$python_cmd" -I - ' in text
    assert text.count('"$python_cmd" ') == 1


def test_bash_completes_an_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script.main(["completion", "bash"])
    (tmp_path / "completion.sh").write_text(capsys.readouterr().out)
    (tmp_path / "typing.py").write_text("open('OWNED', 'w')")
    lines = """
source ./completion.sh
COMP_WORDS=(histoheads train --rec); COMP_CWORD=2; COMP_LINE="${COMP_WORDS[*]}"; COMP_POINT=${#COMP_LINE}
_tyro_histoheads
echo "${COMPREPLY[@]}"
"""
    done = subprocess.run(["bash", "-c", lines], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["--recipe"]
    assert not (tmp_path / "OWNED").exists()
