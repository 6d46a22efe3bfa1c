"""The page has a table for every measured part, without empty columns."""

from pipeline.benchmark.measurement import OURS, PLAIN, Measurement
from pipeline.benchmark.report_page import number, table_of, to_page

ROWS = [
    Measurement("train", PLAIN, "tiles/s", (5.0, 6.0, 4.0), "fp32", 32),
    Measurement("train", OURS, "tiles/s", (12.0, 15.0, 9.0), "bf16", 32, 2.4, 0.7),
    Measurement("limits", "memory copy", "GB/s", (20_000.0,), note="a_note"),
]


def test_the_page_has_the_tables_of_the_measured_parts_then_the_machine() -> None:
    text = to_page("Bench", ROWS, facts=["CPU: a"])
    positions = [text.index(part) for part in ("## Limits", "## Training", "- CPU: a")]
    assert positions == sorted(positions)
    assert "## Embedding" not in text
    assert "| ours | bf16 | tiles/s | 32 | 12 | 9 to 15 | 3 | 2.40 | 70.0 % |" in text


def test_columns_without_content_are_left_out() -> None:
    table = table_of(ROWS[2:])
    assert list(table.head) == ["what", "unit", "median", "n", "note"]
    assert table.rows == [["memory copy", "GB/s", "20,000", "1", "a_note"]]


def test_numbers() -> None:
    shown = [number(value) for value in (1.0, 12.3456, 123_456.7, float("nan"), 0.0)]
    assert shown == ["1", "12.35", "123,457", "n/a", "0"]
