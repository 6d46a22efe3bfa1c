"""What stands around every command: exit codes, the lock, one line for each error, and nothing heavy for --help."""

import dataclasses
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.command import Command
from pipeline.cli.options import Common
from pipeline.errors import (
    BadArtifact,
    BadInput,
    BadTile,
    DiskFull,
    Interrupted,
    Locked,
    PipelineError,
    StaleInput,
    UsageError,
)
from pipeline.storage.lock import locked

COMMANDS = [
    "pipeline.__main__",
    "pipeline.doctor",
    "pipeline.prepare",
    "pipeline.ablate",
    "pipeline.compare",
    "pipeline.bench",
    "pipeline.merge",
    "pipeline.train",
    "pipeline.extract",
    "pipeline.baselines",
    "pipeline.fit_heads",
    "pipeline.robustness",
    "pipeline.report",
    "pipeline.predict",
    "pipeline.export",
    "pipeline.verify",
]
HEAVY = [
    "torch",
    "torchvision",
    "pandas",
    "numpy",
    "scipy",
    "sklearn",
    "xgboost",
    "matplotlib",
    "h5py",
    "PIL",
    "skimage",
    "cleanlab",
    "mapie",
]


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """A stage without options of its own."""


def run(work: Any, *words: str, access: Any = "begin") -> int:
    return Command("pipeline.x", "Text.", NoOptions, work, access=access)(list(words))


def failing(error: BaseException) -> Any:
    def work(common: Common, options: NoOptions) -> int:
        raise error

    return work


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BadInput("the message"), 1),
        (BadTile("the message"), 1),
        (BadArtifact("the message"), 1),
        (StaleInput("the message"), 1),
        (DiskFull("the message"), 1),
        (Locked("the message"), 1),
        (PipelineError("the message"), 1),
        (UsageError("the message"), 2),
        (Interrupted("the message", signum=2), 130),
        (Interrupted("the message", signum=15), 143),
        (OSError(28, "the message", "/x/file"), 1),
        (PermissionError(13, "the message"), 1),
        (MemoryError("the message"), 1),
    ],
)
def test_every_error_is_one_line_and_its_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], error: Exception, code: int
) -> None:
    assert run(failing(error), "--run", str(tmp_path / "run")) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert "the message" in err
    assert err.count("\n") == 1


def test_ctrl_c_is_130(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(failing(KeyboardInterrupt()), "--run", str(tmp_path)) == 130
    assert capsys.readouterr().err.count("\n") == 1


def test_bugs_are_not_hidden(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        run(failing(KeyError("bug")), "--run", str(tmp_path))


def test_the_works_exit_code_is_the_commands(tmp_path: Path) -> None:
    for code in (0, 1, 3):
        assert run(lambda common, options, code=code: code, "--run", str(tmp_path)) == code


def test_the_run_is_locked_during_the_work_and_free_after_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(common: Common, options: NoOptions) -> int:
        return run(failing(AssertionError("worked twice")), "--run", str(common.run))

    assert run(work, "--run", str(tmp_path)) == 1
    assert "is in use by" in capsys.readouterr().err
    with locked(tmp_path):
        pass


def test_temporaries_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".a.csv.abcdefgh.tmp").touch()
    run(lambda common, options: 0, "--run", str(tmp_path))
    assert files(tmp_path) == [".lock"]


@pytest.mark.fault("wrong option or configuration file")
@pytest.mark.parametrize(
    "words", [["--seed", "-1"], ["--device", "gpu"], ["--max-bad", "7"], ["--config", "none.toml"], ["--threads", "0"]]
)
def test_nothing_is_written_on_a_usage_error(tmp_path: Path, words: list[str]) -> None:
    assert run(failing(AssertionError("worked")), "--run", str(tmp_path / "run"), *words) == 2
    assert files(tmp_path) == []


@pytest.mark.parametrize("words", [["--sead", "1"], ["--seed", "x"], ["stray"]])
def test_nothing_is_written_on_a_wrong_command_line(tmp_path: Path, words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(failing(AssertionError("worked")), "--run", str(tmp_path / "run"), *words)
    assert caught.value.code == 2
    assert files(tmp_path) == []


def test_only_the_first_stage_begins_a_run_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "run"
    assert run(lambda common, options: 0, "--run", str(missing), access="write") == 1
    assert f"{missing}: no such run folder" in capsys.readouterr().err
    assert files(tmp_path) == []
    assert run(lambda common, options: 0, "--run", str(missing)) == 0
    assert missing.is_dir()


@pytest.mark.parametrize("name", COMMANDS[COMMANDS.index("pipeline.train") :])
def test_later_commands_name_a_missing_run_folder(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert importlib.import_module(name).main(["--run", str(tmp_path / "run")]) == 1
    assert "no such run folder" in capsys.readouterr().err
    assert files(tmp_path) == []


@pytest.mark.fault("run folder that may not be written to, or is none")
def test_a_run_that_is_a_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").write_text("mine")
    assert run(lambda common, options: 0, "--run", str(tmp_path / "run")) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert (tmp_path / "run").read_text() == "mine"


def test_help_and_errors_of_every_command_import_nothing_heavy() -> None:
    """--help and errors answer at once: torch alone takes more than a second."""
    code = f"""
import contextlib, importlib, io, json, sys
seen = {{}}
for name in {COMMANDS}:
    for words in (["--help"], ["--bogus"], ["--seed", "-1"]):
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()):
            try:
                code = importlib.import_module(name).main(words)
            except SystemExit as stop:
                code = stop.code
        seen[name + words[0]] = [code, len(out.getvalue()) > 500, [m for m in {HEAVY} if m in sys.modules]]
print(json.dumps(seen))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for name, (code_seen, helped, heavy) in json.loads(done.stdout).items():
        assert heavy == [], name
        assert code_seen == (0 if "--help" in name else 2), name
        assert helped == ("--help" in name), name


def test_python_m_exits_with_the_commands_code(tmp_path: Path) -> None:
    for words, code in (("pipeline --seed -1", 2), ("pipeline.verify --run none", 1)):
        done = subprocess.run(
            [sys.executable, "-m", *words.split()], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == code
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1


def test_help_of_all_stages_fits_a_screen(capsys: pytest.CaptureFixture[str]) -> None:
    from pipeline import __main__ as whole

    with pytest.raises(SystemExit) as caught:
        whole.main(["--help"])
    assert caught.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 50
    options = {word.rstrip(",") for line in lines for word in line.split() if word.startswith("--")}
    assert {f"--{name.replace('_', '-')}" for name in whole.BASICS} <= options
    for stage in ("prepare", "train", "extract", "fit_heads", "doctor"):
        assert any(stage in line for line in lines)
