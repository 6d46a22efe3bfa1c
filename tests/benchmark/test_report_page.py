"""The page: verdicts in words, tables without empty columns."""

from pipeline.benchmark.measurement import OURS, PLAIN, Measurement
from pipeline.benchmark.report_page import number, table_of, to_page
from pipeline.benchmark.targets import Verdict

ROWS = [
    Measurement("train", PLAIN, "tiles/s", (5.0, 6.0, 4.0), "fp32", 32),
    Measurement("train", OURS, "tiles/s", (12.0, 15.0, 9.0), "bf16", 32, 2.4, 0.7),
    Measurement("hdf5", OURS, "rows/s", (20_000.0,), share=0.012, note="a_note"),
]


def page() -> str:
    verdicts = [Verdict("training is fast", True, "2.4 times"), Verdict("svm is fast", None, "")]
    return to_page("Bench", ROWS, verdicts=verdicts, facts=["CPU: a"], remarks=["Quick."], figure=None)


def test_the_page_says_targets_first_then_tables_then_the_machine() -> None:
    text = page()
    order = ["- Met: training is fast. 2.4 times", "- Not measured: svm is fast", "- Quick.", "## Training", "- CPU: a"]
    positions = [text.index(part) for part in order]
    assert positions == sorted(positions)
    assert "## Embedding" not in text
    assert "![" not in text


def test_rows_have_median_range_ratio_and_share() -> None:
    assert "| ours | bf16 | tiles/s | 32 | 12 | 9 to 15 | 3 | 2.40 | 70.0 % |" in page()


def test_columns_without_content_are_left_out_and_shares_are_called_what_they_are() -> None:
    table = table_of("hdf5", ROWS[2:])
    assert list(table.head) == ["what", "unit", "median", "n", "of an extraction", "note"]
    assert table.rows == [["ours", "rows/s", "20,000", "1", "1.2 %", "a_note"]]
    assert "of the limit" in table_of("train", ROWS[:2]).head


def test_engines_stand_together_by_rising_batch() -> None:
    rows = [
        Measurement("embed", name, "tiles/s", (1.0,), "fp32", batch)
        for batch, name in ((16, "torch"), (16, "openvino"), (4, "torch"), (4, "openvino"))
    ]
    shown = [(row[0], row[3]) for row in table_of("embed", rows).rows]
    assert shown == [("torch", "4"), ("torch", "16"), ("openvino", "4"), ("openvino", "16")]


def test_agreement_has_one_line_for_each_engine() -> None:
    units = {"cosine": 0.99987, "share of tiles": 0.995, "points": -0.25}
    rows = [
        Measurement("agreement", "torch", unit, (value,), "bf16", 16, note="n" if unit == "points" else "")
        for unit, value in units.items()
    ]
    assert table_of("agreement", rows).rows == [["torch", "bf16", "16", "0.99987", "99.50 %", "-0.25", "n"]]


def test_numbers() -> None:
    shown = [number(value) for value in (0.99987, 1.0, 12.3456, 123_456.7, float("nan"), 0.0)]
    assert shown == ["0.99987", "1", "12.35", "123,457", "n/a", "0"]
