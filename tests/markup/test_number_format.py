import math

import pytest

from pipeline.markup import number_format


@pytest.mark.parametrize("value", [None, math.nan, math.inf, "1", True, [1]])
def test_what_is_no_finite_number_is_not_available(value):
    assert {
        number_format.number(value),
        number_format.seconds(value),
        number_format.size(value),
        number_format.percent(value),
    } == {"n/a"}


def test_numbers():
    assert number_format.number(0.12345) == "0.123"
    assert number_format.points(-0.0004) == "0.0"
    assert number_format.points(-0.0216) == "-2.2"
    assert number_format.interval(0.1, 0.25) == " (0.100 to 0.250)"
    assert number_format.interval(math.nan, 0.25) == ""
    assert [number_format.level_text(level) for level in (0.95, 0.9, 0.999)] == ["95 %", "90 %", "99.9 %"]


def test_sizes_and_times():
    assert [number_format.size(n) for n in (12, 1500, 2_345_678, 3e9)] == ["12 bytes", "1.5 kB", "2.3 MB", "3.0 GB"]
    assert [number_format.seconds(s) for s in (0.5, 61.2, 1200)] == ["0.50 s", "61 s", "20 min"]


def test_words():
    assert [number_format.count(n, "class") for n in (0, 1, 2)] == ["0 classes", "1 class", "2 classes"]
    assert number_format.listing(["a", "b", "c"]) == "a, b and c"
    assert number_format.compact({"a": 1.5, "b": [1, None], "c": {}}) == "a=1.5, b=(1, none), c=none"
