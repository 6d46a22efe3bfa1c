import dataclasses

import numpy as np
import pytest

from pipeline.comparison.report_data import ReportData
from pipeline.comparison.run_files import Context
from pipeline.comparison.scores import by_key, choose_resampling, score_heads
from pipeline.comparison.sections import calibration
from pipeline.evaluation import conformal
from pipeline.markup.document import Figure, Table, Text

needs_mapie = pytest.mark.skipif(not conformal.is_installed(), reason="needs mapie")

COMPARED = {
    "method": "isotonic",
    "params": {"scores": [[0.0]], "p": [[0.5]]},
    "rows": "val",
    "unit": "group",
    "nll": {"temperature": 0.5, "sigmoid": 0.4, "isotonic": 0.3},
}


def with_nothing_but(kind, **fields):
    """Return a dataclass whose other fields are None: the sections here must not need them."""
    return kind(**dict.fromkeys(field.name for field in dataclasses.fields(kind)) | fields)


@pytest.fixture
def make_material(make_predictions):
    """Return a function that makes Material of test rows (and validation rows) that svm names right 3 times in 4."""

    def make(*, n=80, n_val=0, n_groups=8, classes=("a", "b", "c"), heads=None, seeds=1, **known):
        total = (n + n_val) * seeds
        y = [i % 2 for i in range(total)]
        named = [code if i % 8 < 6 else 1 - code for i, code in enumerate(y)]
        predictions = make_predictions(
            y,
            {"svm": named, "softmax": y, "majority": [0] * total},
            group=[f"g{i // 8 % n_groups}" for i in range(total)] if n_groups else [""] * total,
            split=(["test"] * n + ["val"] * n_val) * seeds,
            tile_id=[f"t{i}" for i in range(n + n_val)] * seeds,
            seed=[s for s in range(seeds) for _ in range(n + n_val)],
            classes=classes,
            **known,
        )
        resampling = choose_resampling(predictions, n_draws=20, seed=0, level=0.95)
        scores = by_key(score_heads(predictions, resampling, {}))
        figures = {name: Figure(f"figures/{name}.png", name, name) for name in ("reliability", "selective")}
        return with_nothing_but(
            ReportData,
            predictions=predictions,
            context=with_nothing_but(Context, heads=heads or {}),
            resampling=resampling,
            scores=scores,
            figures=figures,
        )

    return make


def tables(section):
    return [block for block in section.blocks if isinstance(block, Table)]


def test_calibration_of_a_plan_has_test_columns_only(make_material):
    section = calibration.calibration(make_material())
    (table,) = tables(section)
    assert list(table.head) == ["head", "NLL test", "Brier test", "ECE test"]
    assert [row[0] for row in table.rows] == ["SVM", "softmax", "majority class"]
    assert table.rows[1] == ["softmax", f"{-np.log(0.8):.3f}", f"{0.2**2 + 2 * 0.1**2:.3f}", "0.200"]
    assert "15 bins of equal width" in table.caption
    assert "validation" not in table.caption
    assert section.blocks[0].file == "figures/reliability.png"


def test_calibration_with_validation_rows(make_material):
    material = make_material(n_val=40)
    (table,) = tables(calibration.calibration(material))
    assert list(table.head)[1:3] == ["NLL validation", "NLL test"]
    assert all(cell != "n/a" for row in table.rows for cell in row)


def test_heads_fitted_on_validation_rows_are_not_judged_on_them(make_material):
    material = make_material(n_val=40)
    material.predictions.record["details"]["fit_on"] = "heldout"
    (table,) = tables(calibration.calibration(material))
    assert list(table.head) == ["head", "NLL test", "Brier test", "ECE test"]


def test_validation_rows_do_not_set_the_threshold(make_material):
    material = make_material(n_val=40)
    before = calibration.selective(material)
    val = material.predictions.rows("val")
    for p in material.predictions.p.values():
        p[val] = np.eye(3)[material.predictions.y[val]]
    assert calibration.selective(material) == before


def test_methods_are_listed_where_heads_json_has_them(make_material):
    heads = {"svm": {"calibration": COMPARED}, "softmax": {"calibration": {"method": "temperature", "rows": "val"}}}
    _, table = tables(calibration.calibration(make_material(heads=heads)))
    assert table.rows == [["SVM", "isotonic", "group", "0.500", "0.400", "0.300"]]


@pytest.mark.parametrize("nll", [None, [], {}, "low", {"temperature": "x"}])
def test_a_foreign_comparison_of_methods_is_no_crash(make_material, nll):
    section = calibration.calibration(make_material(heads={"svm": {"calibration": {"nll": nll}}, "softmax": {}}))
    for table in tables(section)[1:]:
        assert table.rows == [["SVM", "n/a", "n/a", "n/a", "n/a", "n/a"]]


def test_referral_lists_the_main_heads(make_material):
    table = tables(calibration.selective(make_material()))[0]
    assert table.rows[0] == ["SVM", "0.750", "0.750", "0.750", "0.750", "0.250"]  # every tile has confidence 0.8
    assert table.rows[1] == ["softmax", "1.000", "1.000", "1.000", "1.000", "0.000"]
    assert len(table.rows) == 2


@needs_mapie
@pytest.mark.parametrize("classes", [("a", "b"), tuple("abcdefghi")])
@pytest.mark.parametrize(("n_val", "n_groups"), [(0, 8), (0, 1), (0, 0), (60, 8)])
def test_prediction_sets(make_material, classes, n_val, n_groups):
    section = calibration.selective(make_material(n_val=n_val, n_groups=n_groups, classes=classes))
    sets = tables(section)[1]
    assert sets.rows[1] == ["softmax", "100.0 %", "1.00", "100.0 %", "0.0 %", "100.0 % (a)"]
    # a quarter of svm's answers are wrong with the smallest probability: only sets of all classes hold 95 %
    assert sets.rows[0][:3] == ["SVM", "100.0 %", f"{len(classes)}.00"]
    assert f"each half of the {'groups' if n_groups > 1 else 'tiles'}" in sets.caption
    assert ("Groups differ" in sets.caption) == (n_groups > 0)


@needs_mapie
def test_a_tile_of_several_seeds_does_not_cover_itself(make_material, monkeypatch):
    material = make_material(n_groups=0, seeds=3)
    seen = []
    split = conformal.assign_folds

    def spy(y, groups, **how):
        fold, unit = split(y, groups, **how)
        seen.append((np.asarray(groups), fold))
        return fold, unit

    monkeypatch.setattr(conformal, "assign_folds", spy)
    calibration.selective(material)
    for names, fold in seen:
        assert not set(names[fold == 0]) & set(names[fold == 1])
    assert len(seen) == 2


def test_why_there_are_no_prediction_sets(make_material, monkeypatch):
    reason = calibration.selective(make_material(n=30)).blocks[-1]
    if conformal.is_installed():
        assert isinstance(reason, Text)
        assert reason.text.startswith("Prediction sets: n/a: sets at 95 % need more than 20 calibration rows")
    monkeypatch.setattr(conformal, "is_installed", lambda: False)
    assert calibration.selective(make_material()).blocks[-1] == Text(
        "Prediction sets: n/a: pip install 'histoheads[conformal]'"
    )


def test_tables_after_a_random_split_say_that_they_flatter(make_material):
    material = make_material(protocol="random")
    for table in [*tables(calibration.calibration(material)), *tables(calibration.selective(material))]:
        assert table.caption.startswith("Random split")


@pytest.mark.parametrize("n", [1, 2])
def test_a_tile_or_two(make_material, n):
    material = make_material(n=n, n_groups=1)
    assert tables(calibration.calibration(material))
    assert tables(calibration.selective(material))
