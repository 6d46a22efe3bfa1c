"""Which messages are printed, and how."""

from collections.abc import Iterator

import pytest

from pipeline.runtime.console import list_names, log, start_logging
from pipeline.runtime.progress import progress


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Leave the logger as commands find it."""
    yield
    start_logging()


def write_all() -> None:
    log.debug("detail")
    log.info("progress\nin two lines")
    log.warning("odd")
    log.error("wrong")


def test_each_message_is_one_line_with_its_level(capsys: pytest.CaptureFixture[str]) -> None:
    start_logging()
    write_all()
    assert capsys.readouterr() == ("", "progress in two lines\nwarning: odd\nerror: wrong\n")


def test_quiet_leaves_warnings_and_errors(capsys: pytest.CaptureFixture[str]) -> None:
    start_logging(quiet=True)
    write_all()
    assert capsys.readouterr().err == "warning: odd\nerror: wrong\n"
    with progress(2, unit="tile", label="x") as bar:
        assert bar.disable


def test_verbose_adds_details_times_and_tracebacks(capsys: pytest.CaptureFixture[str]) -> None:
    start_logging(verbose=True)
    write_all()
    try:
        raise KeyError("lost")
    except KeyError:
        log.debug("where", exc_info=True)
    lines = capsys.readouterr().err.splitlines()
    clocks, texts = zip(*(line.split(" ", 1) for line in lines), strict=True)
    assert texts[:4] == ("detail", "progress in two lines", "warning: odd", "error: wrong")
    assert all(len(clock) == 8 and clock.count(":") == 2 for clock in clocks)
    assert texts[-1] == "KeyError: 'lost'"


def test_a_name_cannot_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    log.info("a\x1b[2Jb")
    assert capsys.readouterr().err == "a\\x1b[2Jb\n"


def test_long_lists_of_names_are_counted() -> None:
    assert list_names(["a", "b"]) == "a, b"
    assert list_names([str(i) for i in range(15)]).endswith("11 and 3 more")
