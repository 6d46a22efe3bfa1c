"""Commands in each other's way, without memory or network, and on machines that are set up oddly."""

import re
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipeline.storage import records

from .commands import Commands, serve
from .conftest import WORDS, Finished, temporaries
from .forking import no_network

pytestmark = pytest.mark.slow


# -- two processes on one run --------------------------------------------------------------------------------------


def wait_for(path: Path) -> None:
    """Wait until a file is there."""
    for _ in range(1200):
        if path.exists():
            return
        time.sleep(0.05)
    pytest.fail(f"{path} never came")


@pytest.mark.fault("two commands on one run")
@pytest.mark.parametrize("stage", ["train", "extract", "report", "__main__"])
def test_a_second_command_ends_at_once_and_names_the_first(
    commands: Commands, finished: Finished, tmp_path: Path, stage: str
) -> None:
    run = finished.copy(tmp_path, before="train")
    first = commands.start("train", [*WORDS["train"](run), "--epochs", "500"])
    try:
        wait_for(run / "checkpoint.pt")
        second = commands.run(stage, ["--run", str(run)])
    finally:
        first.kill()
        first.wait()
    assert second.code == 1
    assert f'"pid": {first.pid}' in second.error
    assert f'"host": "{socket.gethostname()}"' in second.error


@pytest.mark.fault("two commands on one run")
@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_run_whose_holder_was_killed_is_taken_over(
    commands: Commands, finished: Finished, tmp_path: Path, workers: str
) -> None:
    """The holder alone is killed: its workers see that within seconds, and only then is the run free."""
    run = finished.copy(tmp_path, before="train")
    words = [*WORDS["train"](run), "--epochs", "500", "--workers", workers]
    first = commands.start("train", words)
    wait_for(run / "checkpoint.pt")
    first.kill(group=False)
    first.wait()
    for _ in range(40):
        second = commands.start("train", words)
        while not re.search("is in use by|continuing after epoch", second.log.read_text(errors="replace")):
            time.sleep(0.1)
        second.kill(15)
        ended = second.wait()
        if "is in use by" not in ended.said:
            break
    assert ended.code == 143, ended.said
    assert "train: continuing after epoch" in ended.said


# -- memory --------------------------------------------------------------------------------------------------------


@pytest.mark.fault("memory of the machine full")
@pytest.mark.parametrize(
    ("stage", "words"),
    [("train", ["--batch-size", "4096", "--tile-px", "512"]), ("extract", ["--embed-batch", "4096"])],
)
def test_a_machine_without_memory_is_one_line_and_keeps_what_was_there(
    commands: Commands, finished: Finished, tmp_path: Path, stage: str, words: list[str]
) -> None:
    """By a limit of the address space, as `ulimit -v` sets it: 300 MB above what the process has."""
    run = finished.copy(tmp_path, before=stage)
    status = Path(f"/proc/{commands.process.pid}/status").read_text()
    size = int(status.partition("VmSize:")[2].split()[0]) * 1024
    ended = commands.run(stage, [*WORDS[stage](run), *words], limits={"AS": size + 300_000_000})
    assert ended.code == 1
    assert "not enough memory" in ended.error
    assert not finished.torn(run)
    again = commands.run(stage, [*WORDS[stage](run), "--restart"])
    assert again.code == 0, again.said
    assert not finished.wrong(run, stage)
    assert not temporaries(run)


# -- machines that are set up oddly --------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["C locale", "far east", "far west"])
def odd_commands(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """Commands in another time zone, locale and encoding."""
    settings = {
        "C locale": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"},
        "far east": {"TZ": "Pacific/Kiritimati", "PYTHONIOENCODING": "latin-1"},
        "far west": {"TZ": "Pacific/Midway", "PYTHONIOENCODING": "utf-16"},
    }
    yield from serve(tmp_path_factory.mktemp("odd"), **settings[request.param])


def everything(commands: Commands, finished: Finished, place: Path, **befalls: Any) -> list[str]:
    """Run all stages from the tiles on; return the files that are not those of the undisturbed run."""
    run = finished.copy(place, after="prepare")
    for path in run.rglob("*"):
        if path.is_file():
            path.unlink()
    wrong = []
    for stage, words in WORDS.items():
        ended = commands.run(stage, words(run), **befalls)
        assert ended.code == 0, ended.said
        wrong += finished.wrong(run, stage)
    return wrong


@pytest.mark.fault("another locale, encoding, time zone; a clock that jumps")
def test_locale_encoding_and_time_zone_change_nothing(
    odd_commands: Commands, finished: Finished, tmp_path: Path
) -> None:
    assert everything(odd_commands, finished, tmp_path) == []
    noted = datetime.fromisoformat(records.read_record(tmp_path / "run" / "predictions.csv")["created_utc"])
    assert noted.utcoffset() == UTC.utcoffset(None)
    assert abs((datetime.now(UTC) - noted).total_seconds()) < 3600
    checked = odd_commands.run("verify", ["--run", str(tmp_path / "run")])
    assert checked.code == 0, checked.said


@pytest.mark.fault("another locale, encoding, time zone; a clock that jumps")
def test_names_of_other_scripts_in_an_ascii_terminal(
    odd_commands: Commands, finished: Finished, tmp_path: Path
) -> None:
    """They are shown as they can be; a locale that has no such letters may refuse them, in one line."""
    run = finished.copy(tmp_path, after="prepare")
    other = tmp_path / "run2"
    (tmp_path / "tiles" / "ADI").rename(tmp_path / "tiles" / "Größe-組織")
    ended = odd_commands.run("prepare", [*WORDS["prepare"](run)[2:], "--run", str(other)])
    assert ended.code in (0, 1)
    if ended.code == 1:
        assert "has a character that no table can hold: rename it" in ended.error
    else:
        assert "Größe-組織" in (other / "manifest.csv").read_text(encoding="utf-8")


@pytest.mark.fault("another locale, encoding, time zone; a clock that jumps")
def test_a_clock_that_jumps_back_changes_nothing(commands: Commands, finished: Finished, tmp_path: Path) -> None:
    assert everything(commands, finished, tmp_path, clock=True) == []


# -- network -------------------------------------------------------------------------------------------------------


@pytest.mark.fault("no network")
@pytest.mark.parametrize(
    ("event", "words"), [("socket.getaddrinfo", ("example.org", 80)), ("socket.connect", (None, ("192.0.2.1", 80)))]
)
def test_no_command_of_these_tests_has_a_network(event: str, words: tuple[Any, ...]) -> None:
    """So each of them shows that none is needed."""
    with pytest.raises(OSError, match="no network in tests"):
        no_network(event, words)
