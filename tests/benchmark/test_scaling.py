"""Slopes, and the words for them."""

import csv
import io

import pytest

from pipeline.benchmark.scaling import (
    Cost,
    extraction,
    fitted_slope,
    kb_per_tile,
    last_slope,
    slope,
    to_csv,
    to_page,
    verdict,
)

SIZES = (1000, 5000, 20_000)


def costs(power: float, *, start: float = 0.0, kb: float = 0.0) -> dict[int, Cost]:
    return {n: Cost(start + 3e-5 * n**power, 500 + kb * n / 1000) for n in SIZES}


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_the_exponent_of_a_power_is_found(power: float) -> None:
    assert slope({n: 7.0 * n**power for n in SIZES}) == pytest.approx(power)
    assert fitted_slope(costs(power), "seconds") == pytest.approx(power)


def test_starting_up_flattens_the_whole_slope_more_than_the_last() -> None:
    sizes = costs(2.0, start=50.0)
    whole, last = fitted_slope(sizes, "seconds"), last_slope(sizes, "seconds")
    assert whole is not None
    assert last is not None
    assert whole < last < 2.0


def test_one_size_has_no_slope() -> None:
    one = {1000: Cost(1.0, 500.0)}
    assert slope({1000: 3.0}) is None
    assert last_slope(one, "seconds") is None
    assert kb_per_tile(one) is None
    assert "one size" in verdict("extract", one)


def test_memory_per_further_tile() -> None:
    assert kb_per_tile(costs(1.0, kb=1.5)) == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("power", "kb", "met"), [(1.0, 0.0, True), (1.0, 1.9, True), (1.0, 2.1, False), (1.2, 0.0, False)]
)
def test_extraction_must_be_linear_and_flat(power: float, kb: float, *, met: bool) -> None:
    line = extraction({"extract": costs(power, kb=kb)})
    assert line.startswith("Met: " if met else "Missed: ")


def test_a_stage_that_grows_faster_says_so() -> None:
    assert "MORE THAN LINEAR" in verdict("prepare", costs(2.0))
    assert "linear in time or better" in verdict("prepare", costs(1.0))
    assert "growing in memory" in verdict("prepare", costs(1.0, kb=8.0))


def test_table_and_page() -> None:
    both = {"extract": costs(1.0), "report": {1000: Cost(2.0, 300.0)}}
    rows = list(csv.DictReader(io.StringIO(to_csv(both))))
    assert [row["tiles"] for row in rows] == ["1000", "5000", "20000", "1000"]
    page = to_page("Growth", both, facts=["a fact"], figure="x.png")
    assert "| extract | 0.0 | 0.1 | 0.6 | 1.00 | 1.00 |" in page
    assert "| report | 2.0 |  |  |  |  |" in page
    assert "- a fact" in page
    assert "x.png" in page
