import json

import numpy as np
import pytest

from pipeline.comparison.heads_summary import HeadFacts, read_heads_summary
from pipeline.comparison.sections import calibration
from pipeline.evaluation import conformal
from pipeline.markup.document import Table, Text

needs_mapie = pytest.mark.skipif(not conformal.is_installed(), reason="needs mapie")

COMPARED = HeadFacts(
    calibration="isotonic", left_out="group", calibration_nll={"temperature": 0.5, "sigmoid": 0.4, "isotonic": 0.3}
)


@pytest.fixture
def make_classified(make_predictions, make_data):
    """Return a function that makes data of test (and validation) rows, of which svm classifies 3 in 4 correctly."""

    def make(*, n=80, n_val=0, n_groups=8, classes=("a", "b", "c"), heads=None, seeds=1, **known):
        total = (n + n_val) * seeds
        y = [i % 2 for i in range(total)]
        predicted = [code if i % 8 < 6 else 1 - code for i, code in enumerate(y)]
        predictions = make_predictions(
            y,
            {"svm": predicted, "softmax": y, "majority": [0] * total},
            group=[f"g{i // 8 % n_groups}" for i in range(total)] if n_groups else [""] * total,
            split=(["test"] * n + ["val"] * n_val) * seeds,
            tile_id=[f"t{i}" for i in range(n + n_val)] * seeds,
            seed=[s for s in range(seeds) for _ in range(n + n_val)],
            classes=classes,
            **known,
        )
        return make_data(predictions, draws=20, heads=heads)

    return make


def tables(section):
    return [block for block in section.blocks if isinstance(block, Table)]


def test_calibration_of_a_plan_has_test_columns_only(make_classified):
    section = calibration.calibration(make_classified())
    (table,) = tables(section)
    assert list(table.head) == ["head", "NLL test", "Brier test", "ECE test"]
    assert [row[0] for row in table.rows] == ["SVM", "softmax", "majority class"]
    assert table.rows[1] == ["softmax", f"{-np.log(0.8):.3f}", f"{0.2**2 + 2 * 0.1**2:.3f}", "0.200"]
    assert "15 bins of equal width" in table.caption
    assert "validation" not in table.caption
    assert section.blocks[0].text == "softmax has the best probabilities on the test rows: NLL 0.223."
    assert section.blocks[1].file == "figures/reliability.png"


def test_calibration_with_validation_rows(make_classified):
    data = make_classified(n_val=40)
    (table,) = tables(calibration.calibration(data))
    assert list(table.head)[1:3] == ["NLL validation", "NLL test"]
    assert all(cell != "n/a" for row in table.rows for cell in row)


def test_heads_fitted_on_validation_rows_are_not_scored_on_them(make_classified):
    data = make_classified(n_val=40)
    data.predictions.record["details"]["fit_on"] = "heldout"
    (table,) = tables(calibration.calibration(data))
    assert list(table.head) == ["head", "NLL test", "Brier test", "ECE test"]


def test_validation_rows_do_not_set_the_threshold(make_classified):
    data = make_classified(n_val=40)
    before = calibration.selective(data)
    val = data.predictions.rows("val")
    for p in data.predictions.p.values():
        p[val] = np.eye(3)[data.predictions.y[val]]
    assert calibration.selective(data) == before


def test_methods_are_listed_where_heads_json_has_them(make_classified):
    heads = {"svm": COMPARED, "softmax": HeadFacts(calibration="temperature")}
    _, table = tables(calibration.calibration(make_classified(heads=heads)))
    assert table.rows == [["SVM", "isotonic", "group", "0.500", "0.400", "0.300"]]


@pytest.mark.parametrize("nll", [None, [], {}, "low", {"temperature": "x"}])
def test_a_foreign_comparison_of_methods_is_no_crash(make_classified, tmp_path, nll):
    entry = {"svm": {"calibration": {"nll": nll}}, "softmax": {}}
    (tmp_path / "heads.json").write_text(json.dumps({"heads": entry}))
    heads = read_heads_summary(tmp_path / "heads.json").heads
    for table in tables(calibration.calibration(make_classified(heads=heads)))[1:]:
        assert table.rows == [["SVM", "n/a", "n/a", "n/a", "n/a", "n/a"]]


def test_referral_lists_the_main_heads(make_classified):
    table = tables(calibration.selective(make_classified()))[0]
    assert table.rows[0] == ["SVM", "0.750", "0.750", "0.750", "0.750", "0.250"]  # every tile has confidence 0.8
    assert table.rows[1] == ["softmax", "1.000", "1.000", "1.000", "1.000", "0.000"]
    assert len(table.rows) == 2


@needs_mapie
@pytest.mark.parametrize("classes", [("a", "b"), tuple("abcdefghi")])
@pytest.mark.parametrize(("n_val", "n_groups"), [(0, 8), (0, 1), (0, 0), (60, 8)])
def test_prediction_sets(make_classified, classes, n_val, n_groups):
    section = calibration.selective(make_classified(n_val=n_val, n_groups=n_groups, classes=classes))
    sets = tables(section)[1]
    assert sets.rows[1] == ["softmax", "100.0 %", "1.00", "100.0 %", "0.0 %", "100.0 % (a)"]
    # a quarter of svm's predictions are wrong with the smallest probability: only sets of all classes hold 95 %
    assert sets.rows[0][:3] == ["SVM", "100.0 %", f"{len(classes)}.00"]
    assert f"each half of the {'groups' if n_groups > 1 else 'tiles'}" in sets.caption
    assert ("Groups differ" in sets.caption) == (n_groups > 0)


@needs_mapie
def test_a_tile_of_several_seeds_does_not_cover_itself(make_classified, monkeypatch):
    data = make_classified(n_groups=0, seeds=3)
    seen = []
    split = conformal.assign_folds

    def spy(y, groups, **how):
        fold, unit = split(y, groups, **how)
        seen.append((np.asarray(groups), fold))
        return fold, unit

    monkeypatch.setattr(conformal, "assign_folds", spy)
    calibration.selective(data)
    for names, fold in seen:
        assert not set(names[fold == 0]) & set(names[fold == 1])
    assert len(seen) == 2


def test_why_there_are_no_prediction_sets(make_classified, monkeypatch):
    reason = calibration.selective(make_classified(n=30)).blocks[-1]
    if conformal.is_installed():
        assert isinstance(reason, Text)
        assert reason.text.startswith("Prediction sets: n/a: sets at 95 % need more than 20 calibration rows")
    monkeypatch.setattr(conformal, "is_installed", lambda: False)
    assert calibration.selective(make_classified()).blocks[-1] == Text(
        "Prediction sets: n/a: pip install 'histoheads[conformal]'"
    )


def test_tables_after_a_random_split_state_the_bias(make_classified):
    data = make_classified(protocol="random")
    for table in [*tables(calibration.calibration(data)), *tables(calibration.selective(data))]:
        assert table.caption.startswith("Random split")


@pytest.mark.parametrize("n", [1, 2])
def test_a_tile_or_two(make_classified, n):
    data = make_classified(n=n, n_groups=1)
    assert tables(calibration.calibration(data))
    assert tables(calibration.selective(data))
