"""Counts what was tried for each fault of the matrix and how it ended, and writes reports/reliability.md of it.

A test that tries several times says so by `record_property`: tries, survived, lost_rows. Any other is one try.
"""

import collections
import dataclasses
import os
import platform
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.storage.atomic import write_text

from .matrix import MATRIX, Fault

ROOT = Path(__file__).parents[2]


@dataclasses.dataclass
class Count:
    """What became of the tries for one fault."""

    tries: int = 0
    survived: int = 0
    lost_rows: int = 0
    skipped: int = 0


def node_of(nodeid: str) -> str:
    """Return a test's id without its parameters, from the root of the project."""
    return nodeid.partition("[")[0]


class Ledger:
    """A plugin of pytest.

    Args:
        page: the file to write.
    """

    def __init__(self, page: Path) -> None:
        self.page = page
        self.counts: dict[str, Count] = collections.defaultdict(Count)
        self.started = datetime.now(UTC)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Let the tests of the matrix take part although they also stand in the default suite."""
        named = {node for fault in MATRIX for node in fault.held_by}
        for item in items:
            if node_of(item.nodeid) in named:
                item.add_marker(pytest.mark.fault)
        if missing := named - {node_of(item.nodeid) for item in items}:
            raise pytest.UsageError(f"--reliability: not among the tests of this call: {', '.join(sorted(missing))}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a test that ended."""
        count = self.counts[node_of(report.nodeid)]
        if report.skipped:
            count.skipped += 1
        elif report.when == "call" or report.failed:
            told = dict(report.user_properties)
            tries = int(str(told.get("tries", 1)))
            count.tries += tries
            count.survived += int(str(told.get("survived", tries if report.passed else 0)))
            count.lost_rows += int(str(told.get("lost_rows", 0)))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the page if the tests ran to their end."""
        if not session.shouldstop and session.testscollected:
            write_text(self.page, page(self.counts, started=self.started))


def summed(nodes: Iterable[str], counts: dict[str, Count]) -> Count:
    """Return the counts of some tests together."""
    found = [counts[node] for node in nodes if node in counts]
    names = [field.name for field in dataclasses.fields(Count)]
    return Count(**{name: sum(getattr(count, name) for count in found) for name in names})


def line(fault: Fault, count: Count) -> str:
    """Return one row of the table."""
    if fault.waits:
        return f"| {fault.number} | {fault.name} | - | - | - | not applicable yet: {fault.waits} |"
    files = sorted({node.partition("::")[0] for node in fault.held_by})
    where = ", ".join(f"`{file}`" for file in files)
    note = f" ({count.skipped} skipped here)" if count.skipped else ""
    return f"| {fault.number} | {fault.name} | {count.tries} | {count.survived} | {count.lost_rows} | {where}{note} |"


def commit() -> str:
    """Return the commit that was tested, with a word if files differ from it."""

    def ask(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = ask("status", "--porcelain", "--untracked-files=no", "--", "pipeline", "tests")
    return (ask("rev-parse", "--short", "HEAD") or "no checkout") + (", with changes" if changed else "")


def page(counts: dict[str, Count], *, started: datetime) -> str:
    """Return the page in Markdown."""
    totals = [summed(fault.held_by, counts) for fault in MATRIX]
    whole = summed({node for fault in MATRIX for node in fault.held_by}, counts)  # some tests hold two rows
    took = (datetime.now(UTC) - started).total_seconds() / 60
    kills = os.environ.get("HISTOHEADS_KILLS", "10")
    cores, python = len(os.sched_getaffinity(0)), platform.python_version()
    lines = [
        "# Faults, tried",
        "",
        f"Made by `make faults KILLS={kills}` at commit {commit()} on {started:%Y-%m-%d} (UTC), {took:.0f} min on",
        f"{cores} cores, {platform.system()}, Python {python}; never by hand.",
        "",
        f"**{whole.tries} tries, {whole.survived} survived, {whole.lost_rows} rows lost.** A try is survived if what",
        "was promised held: the same command ends with the same bytes as without the fault, or in one clear line with",
        "nothing lost. Lost rows are rows of results that are missing or other than those of the undisturbed run.",
        "",
        "A row by itself: `python -m pytest -m '' FILE` with a file of the last column. What is expected of each row,",
        "and the names of its tests, stand in `tests/faults/matrix.py`.",
        "",
        "| | fault | tries | survived | lost rows | tests |",
        "|---:|---|---:|---:|---:|---|",
        *(line(fault, total) for fault, total in zip(MATRIX, totals, strict=True)),
    ]
    return "\n".join(lines) + "\n"
