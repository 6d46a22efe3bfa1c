"""Count the tries for each fault and write reports/reliability.md.

A test names the faults that it covers: `@pytest.mark.fault("a name of faults.FAULTS")`. A test that tries several times
reports `record_property` tries, survived and lost_rows. Any other test is one try.
"""

import dataclasses
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.storage.atomic import write_text

from .faults import FAULTS

ROOT = Path(__file__).parents[2]


@dataclasses.dataclass
class Count:
    """Results of the tests of one fault."""

    tries: int = 0
    survived: int = 0
    lost_rows: int = 0
    skipped: int = 0
    files: set[str] = dataclasses.field(default_factory=set)


def faults_of(item: pytest.Item) -> list[str]:
    """Return the names of the faults that a test covers.

    Raises:
        pytest.UsageError: a name that is not in `FAULTS`.
    """
    names = [mark.args[0] for mark in item.iter_markers("fault")]
    if unknown := set(names) - set(FAULTS):
        raise pytest.UsageError(f"{item.nodeid}: unknown fault {min(unknown)!r}: add it to tests/faults/faults.py")
    return names


class Ledger:
    """A plugin of pytest that writes the page. With several processes it counts in the first.

    Args:
        page: the file to write.
    """

    def __init__(self, page: Path) -> None:
        self.page = page
        self.counts = {name: Count() for name in FAULTS}
        self.total = Count()
        self.started = datetime.now(UTC)
        self.is_whole = True
        """Whether no process of the tests ended early."""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a test that ended."""
        if report.when not in ("setup", "call", "teardown"):  # xdist reports a test that ended its process
            self.is_whole = False
        properties = dict(report.user_properties)
        names = str(properties.get("faults", "")).splitlines()
        for count in (*(self.counts[name] for name in names), *([self.total] if names else [])):
            count.files.add(report.nodeid.partition("::")[0])
            if report.skipped:
                count.skipped += 1
            elif report.when == "call" or report.failed:
                tries = int(str(properties.get("tries", 1)))
                count.tries += tries
                count.survived += int(str(properties.get("survived", tries if report.passed else 0)))
                count.lost_rows += int(str(properties.get("lost_rows", 0)))

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Write the page if the tests ran to their end."""
        ended = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        if ended and self.is_whole and self.total.files:
            write_text(self.page, page(self.counts, self.total, started=self.started))


def row(name: str, count: Count) -> str:
    """Return one row of the table."""
    note = f" ({count.skipped} skipped here)" if count.skipped else ""
    where = ", ".join(f"`{file}`" for file in sorted(count.files)) or "not run"
    return f"| {name} | {FAULTS[name]} | {count.tries} | {count.survived} | {count.lost_rows} | {where}{note} |"


def commit() -> str:
    """Return the commit that was tested, marked if files differ from it."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "pipeline", "tests")
    return (git("rev-parse", "--short", "HEAD") or "no checkout") + (", with changes" if changed else "")


def page(counts: dict[str, Count], total: Count, *, started: datetime) -> str:
    """Return the page in Markdown."""
    took = (datetime.now(UTC) - started).total_seconds() / 60
    kills = os.environ.get("HISTOHEADS_KILLS", "10")
    cores, python = len(os.sched_getaffinity(0)), platform.python_version()
    lines = [
        "# Faults that were tried",
        "",
        f"Made by `make faults KILLS={kills}` at commit {commit()} on {started:%Y-%m-%d} (UTC), {took:.0f} min on",
        f"{cores} cores, {platform.system()}, Python {python}. This page is never edited.",
        "",
        f"**{total.tries} tries, {total.survived} survived, {total.lost_rows} rows lost.** A try is survived if the",
        "same command ends with the same bytes as without the fault, or in one clear line with nothing lost. Lost rows",
        "are rows of results that are missing or differ from those of the undisturbed run.",
        "",
        "`python -m pytest -m fault FILE` repeats the tests of a file.",
        "",
        "| fault | must | tries | survived | lost rows | tests |",
        "|---|---|---:|---:|---:|---|",
        *(row(name, count) for name, count in counts.items()),
    ]
    return "\n".join(lines) + "\n"
