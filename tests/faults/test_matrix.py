"""The matrix names tests that exist, and all of them; the page made of it adds up."""

import ast
from datetime import UTC, datetime
from pathlib import Path

import pytest

from .ledger import Count, page, summed
from .matrix import MATRIX, Fault

ROOT = Path(__file__).parents[2]


def names_of(file: Path) -> set[str]:
    """Return the tests at the top of a file: functions, and machines of hypothesis."""
    body = ast.parse(file.read_text(encoding="utf-8")).body
    machines = [node.targets[0] for node in body if isinstance(node, ast.Assign)]
    found = {f"{target.id}::runTest" for target in machines if isinstance(target, ast.Name) and "Test" in target.id}
    return found | {node.name for node in body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


@pytest.mark.parametrize("fault", MATRIX, ids=lambda fault: str(fault.number))
def test_every_row_is_held_by_tests_that_exist_or_says_why_not(fault: Fault) -> None:
    assert bool(fault.held_by) != bool(fault.waits)
    assert len(set(fault.held_by)) == len(fault.held_by)
    for node in fault.held_by:
        file, _, name = node.partition("::")
        assert (ROOT / file).is_file(), node
        assert name in names_of(ROOT / file), node


def test_all_44_faults_of_the_matrix_are_there() -> None:
    assert [fault.number for fault in MATRIX] == list(range(1, len(MATRIX) + 1))
    assert len(MATRIX) == 44 + 3 + 10  # and three that were seen elsewhere, and ten beyond one machine


def test_every_test_of_this_folder_is_named() -> None:
    named = {node for fault in MATRIX for node in fault.held_by}
    for file in Path(__file__).parent.glob("test_*.py"):
        if file.name != Path(__file__).name:
            assert {f"{file.relative_to(ROOT).as_posix()}::{name}" for name in names_of(file)} <= named


def test_the_page_adds_up_and_hides_no_failure() -> None:
    first, second = MATRIX[0].held_by[:2]
    counts = {first: Count(tries=5, survived=4, lost_rows=2), second: Count(tries=1, survived=1, skipped=3)}
    assert summed(MATRIX[0].held_by, counts) == Count(tries=6, survived=5, lost_rows=2, skipped=3)
    text = page(counts, started=datetime.now(UTC))
    assert "**6 tries, 5 survived, 2 rows lost.**" in text
    row = next(line for line in text.splitlines() if line.startswith("| 1 |"))
    assert "| 6 | 5 | 2 |" in row
    assert "(3 skipped here)" in row
    assert "| 27 | files of earlier releases | - | - | - | not applicable yet: no version was released;" in text
    assert sum(line.startswith("| ") for line in text.splitlines()) == len(MATRIX) + 1
