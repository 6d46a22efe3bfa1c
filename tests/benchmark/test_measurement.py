"""The arithmetic of the table: medians, ratios by round, CSV."""

import csv
import io

import pytest

from pipeline.benchmark.measurement import COLUMNS, Measurement, find, median_ratio, to_csv


def test_the_ratio_is_the_median_of_the_rounds_ratios_not_the_ratio_of_the_medians() -> None:
    """A slow machine in one round slows both: 2, 2 and 2, though the medians would say 3."""
    assert median_ratio([2.0, 6.0, 20.0], [1.0, 3.0, 10.0]) == 2.0
    assert median_ratio([4.0, 60.0, 6.0], [1.0, 2.0, 3.0]) == 4.0


def test_rounds_that_do_not_belong_together_have_no_ratio() -> None:
    with pytest.raises(ValueError, match=r"shorter|longer"):
        median_ratio([1.0, 2.0], [1.0])


def test_csv_has_median_range_and_empty_cells_for_what_does_not_apply() -> None:
    rows = [
        Measurement("embed", "torch", "tiles/s", (3.0, 1.0, 8.0), "bf16", 8, 2.5, 0.75, 'a "note", quoted'),
        Measurement("svm", "ours", "s", (1.0, 2.0)),
    ]
    first, second = csv.DictReader(io.StringIO(to_csv(rows)))
    assert tuple(first) == COLUMNS
    assert [first[name] for name in ("median", "low", "high", "n", "ratio", "share")] == [
        "3",
        "1",
        "8",
        "3",
        "2.5",
        "0.75",
    ]
    assert first["note"] == 'a "note", quoted'
    assert (second["median"], second["batch"], second["ratio"], second["precision"]) == ("1.5", "", "", "")


def test_find_looks_at_part_name_and_unit() -> None:
    seconds, losses = Measurement("xgboost", "ours", "s", (1.0,)), Measurement("xgboost", "ours", "log-loss", (2.0,))
    assert find([seconds, losses], "xgboost", "ours", "log-loss") is losses
    assert find([seconds, losses], "xgboost", "ours") is seconds
    assert find([seconds], "xgboost", "plain") is None
