"""Every fault has a test; the page adds up and hides no failure."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from .faults import FAULTS
from .ledger import Count, Ledger, page

TESTS = Path(__file__).parents[1]


def test_every_fault_has_a_test() -> None:
    text = "\n".join(file.read_text(encoding="utf-8") for file in TESTS.rglob("test_*.py"))
    assert set(re.findall(r'mark\.fault\(\s*"([^"]+)"', text)) == set(FAULTS)


def test_every_test_of_this_folder_names_its_fault() -> None:
    for file in set(Path(__file__).parent.glob("test_*.py")) - {Path(__file__)}:
        text = file.read_text(encoding="utf-8")
        unmarked = re.findall(r"(?<!\))\n\n\n(?:@pytest\.mark\.parametrize\([^\n]*\)\n)*def (test_\w+)", text)
        assert not unmarked, f"{file}: {unmarked}"


@pytest.mark.parametrize(
    ("when", "status", "is_written"),
    [("call", 0, True), ("call", 1, True), ("call", 2, False), ("???", 1, False)],
    ids=["passed", "failed", "stopped", "a process ended"],
)
def test_a_page_is_written_only_of_whole_runs(tmp_path: Path, when: str, status: int, is_written: bool) -> None:
    ledger, name = Ledger(tmp_path / "page.md"), next(iter(FAULTS))
    facts = {"outcome": "passed", "longrepr": None, "keywords": {}, "location": ("", 0, "")}
    ledger.pytest_runtest_logreport(
        pytest.TestReport("tests/a.py::b", when="call", user_properties=[("faults", name)], **facts)
    )
    ledger.pytest_runtest_logreport(pytest.TestReport("tests/a.py::c", when=when, user_properties=[], **facts))
    ledger.pytest_sessionfinish(status)
    assert (tmp_path / "page.md").is_file() == is_written


def test_the_page_adds_up_and_hides_no_failure() -> None:
    counts = {name: Count() for name in FAULTS}
    first = next(iter(FAULTS))
    counts[first] = Count(tries=6, survived=5, lost_rows=2, skipped=3, files={"tests/a.py"})
    text = page(counts, counts[first], started=datetime.now(UTC))
    assert "**6 tries, 5 survived, 2 rows lost.**" in text
    row = next(line for line in text.splitlines() if line.startswith(f"| {first} |"))
    assert "| 6 | 5 | 2 | `tests/a.py` (3 skipped here) |" in row
    assert sum(line.startswith("| ") for line in text.splitlines()) == len(FAULTS) + 1
