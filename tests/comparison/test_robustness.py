"""Falls by hand, their intervals by the paired bootstrap of the whole report, and sentences that claim no more."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from pipeline.comparison import robustness
from pipeline.comparison.scores import Resampling
from pipeline.errors import BadArtifact, StaleInput
from pipeline.evaluation.bootstrap import paired_difference
from pipeline.markup.document import Document, Figure, Note, Table, Text, to_html, to_markdown
from pipeline.storage import records

CLASSES = ["a", "b", "c"]


def resampling(unit: str = "group", draws: int = 300) -> Resampling:
    return Resampling(unit, np.zeros(0, int), n_draws=draws, seed=3, level=0.95)  # type: ignore[arg-type]


def made(
    wrong: dict[tuple[str, str], float], *, n: int = 120, groups: int = 12, seeds: int = 1, rng_seed: int = 0
) -> pd.DataFrame:
    """Rows in which each (head, corruption) answers wrongly with a given probability."""
    rng = np.random.default_rng(rng_seed)
    y = np.arange(n) % 3
    parts = []
    for corruption in dict.fromkeys(name for _, name in wrong):
        for head in dict.fromkeys(head for head, _ in wrong):
            for seed in range(seeds):
                named = np.where(rng.random(n) < wrong[head, corruption], (y + rng.integers(1, 3, n)) % 3, y)
                parts.append(
                    pd.DataFrame(
                        {
                            "tile_id": [f"t{i}" for i in range(n)],
                            "group": [f"g{i % groups}" for i in range(n)],
                            "label": np.array(CLASSES, dtype=object)[y],
                            "head": head,
                            "corruption": corruption,
                            "predicted": np.array(CLASSES, dtype=object)[named],
                            "seed": seed,
                            "fold": 0,
                        }
                    )
                )
    return pd.concat(parts, ignore_index=True)


SOME = {
    ("softmax", "none"): 0.1,
    ("svm", "none"): 0.1,
    ("softmax", "blur"): 0.15,
    ("svm", "blur"): 0.5,
    ("softmax", "jpeg"): 0.1,
    ("svm", "jpeg"): 0.4,
}


def codes(corrupted: pd.DataFrame, head: str, corruption: str) -> tuple[Any, Any, Any]:
    rows = corrupted[(corrupted["head"] == head) & (corrupted["corruption"] == corruption)]
    return tuple(pd.factorize(rows[name], sort=True)[0] for name in ("label", "predicted", "group"))


def test_scores_and_falls_are_those_of_scikit_learn_and_of_paired_difference() -> None:
    corrupted = made(SOME)
    falls = robustness.measure_falls(corrupted, CLASSES, resampling())
    assert falls.heads == ["softmax", "svm"]
    assert falls.corruptions == ["blur", "jpeg"]
    assert falls.n_units == 12
    for head, corruption in SOME:
        y, named, groups = codes(corrupted, head, corruption)
        assert falls.score[head, corruption] == pytest.approx(f1_score(y, named, average="macro"))
        if corruption != "none":
            how = {"metric": "macro_f1", "units": groups, "n_draws": 300, "seed": 3, "level": 0.95}
            expected = paired_difference(y, codes(corrupted, head, "none")[1], named, **how)
            fall = falls.fall[head, corruption]
            assert (fall.value, fall.low, fall.high) == pytest.approx((expected.value, expected.low, expected.high))
    assert falls.mean["svm"].value == pytest.approx(np.mean([falls.fall["svm", c].value for c in ("blur", "jpeg")]))
    assert falls.mean["svm"].low < falls.mean["svm"].value < falls.mean["svm"].high
    assert falls.ranking == ["softmax", "svm"]
    assert falls.lead is not None
    assert falls.lead.value == pytest.approx(falls.mean["svm"].value - falls.mean["softmax"].value)
    assert falls.lead.low > 0


def test_the_tile_is_the_unit_over_all_seeds() -> None:
    """Three seeds are no three times as many tiles: intervals must not shrink by them alone."""
    corrupted = made(SOME, n=60)
    one = robustness.measure_falls(corrupted, CLASSES, resampling("tile"))
    thrice = pd.concat([corrupted.assign(seed=seed) for seed in range(3)]).sort_values(
        ["corruption", "head"], key=lambda names: names.map({"none": 0}).fillna(1), kind="stable"
    )
    three = robustness.measure_falls(thrice, CLASSES, resampling("tile"))
    assert one.n_units == three.n_units == 60
    for key, fall in one.fall.items():
        other = three.fall[key]
        assert (other.value, other.low, other.high) == pytest.approx((fall.value, fall.low, fall.high))


def test_equal_heads_are_undecided_and_one_group_tells_nothing() -> None:
    corrupted = made(dict.fromkeys(SOME, 0.2), rng_seed=5)
    said = robustness.verdict(robustness.measure_falls(corrupted, CLASSES, resampling()))
    assert "undecided" in said
    one_group = robustness.measure_falls(made(SOME, groups=1), CLASSES, resampling())
    assert np.isnan(one_group.fall["svm", "blur"].low)
    assert "one group does not tell whether by chance" in robustness.verdict(one_group)
    alone = made({key: p for key, p in SOME.items() if key[0] == "svm"})
    falls = robustness.measure_falls(alone, CLASSES, resampling())
    assert falls.lead is None
    assert robustness.verdict(falls).endswith(f"SVM {100 * falls.mean['svm'].value:.1f}.")


def test_nothing_lost_is_zero_with_an_interval_of_zero() -> None:
    corrupted = made({("svm", "none"): 0.0, ("svm", "rotation"): 0.0})
    fall = robustness.measure_falls(corrupted, CLASSES, resampling()).fall["svm", "rotation"]
    assert (fall.value, fall.low, fall.high) == (0, 0, 0)


@pytest.fixture
def material(make_predictions: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """Return a function that makes what the section reads."""

    def make(corrupted: pd.DataFrame | None, flattering: str = "") -> Any:
        predictions = make_predictions([0, 1, 2], {"softmax": [0, 1, 2]})
        return SimpleNamespace(
            run=tmp_path,
            predictions=predictions,
            resampling=resampling(),
            corrupted=corrupted,
            flattering=flattering,
            context=SimpleNamespace(missing={"robustness.csv": "not asked for"}),
        )

    return make


def test_the_section_says_what_was_lost_and_where_it_ends(material: Callable[..., Any], tmp_path: Path) -> None:
    section = robustness.section(material(made(SOME, seeds=2), "Random split: these figures flatter. "))
    note, figure, table, limits = section.blocks
    assert isinstance(note, Note)
    assert "softmax loses least; SVM loses" in note.text
    assert isinstance(figure, Figure)
    assert (tmp_path / figure.file).read_bytes()[:4] == b"\x89PNG"
    assert isinstance(table, Table)
    assert table.head == ["corruption", "what it does", "softmax", "SVM"]
    assert [row[0] for row in table.rows] == ["none", "blur", "jpeg", "mean fall"]
    assert table.rows[1][1].startswith("Gaussian blur, sigma 1 %")
    assert "120 test tiles, each under 2 seeds" in table.caption
    assert "300 paired resamples of 12 groups" in table.caption
    assert table.caption.startswith("Random split")
    assert isinstance(limits, Text)
    assert "fixed strength" in limits.text
    to_markdown(Document("x", [section]))
    to_html(Document("x", [section]), folder=tmp_path)


def test_without_robustness_csv_the_section_says_how_to_get_it(material: Callable[..., Any], tmp_path: Path) -> None:
    (text,) = robustness.section(material(None)).blocks
    assert "(not asked for): python -m pipeline.robustness makes it" in text.text  # type: ignore[union-attr]
    assert not (tmp_path / "figures").exists()


def test_an_unknown_corruption_and_one_group_stay_readable(material: Callable[..., Any]) -> None:
    corrupted = made({("svm", "none"): 0.1, ("svm", "<b>mine</b>"): 0.2}, groups=1)
    _, _, table, _ = robustness.section(material(corrupted)).blocks
    assert table.rows[1][:2] == ["<b>mine</b>", "n/a"]  # type: ignore[union-attr]
    assert "no intervals, for all tiles are of one group" in table.caption  # type: ignore[union-attr]


def test_only_answers_of_these_predictions_are_read(make_predictions: Callable[..., Any], tmp_path: Path) -> None:
    path, source = tmp_path / "robustness.csv", tmp_path / "predictions.csv"
    corrupted = made({("svm", "none"): 0.3, ("svm", "blur"): 0.5}, n=9, seeds=2)
    source.write_text("x")
    path.write_text(corrupted.to_csv(index=False))
    records.write_record(records.Artifact(path, "robustness/1.0", "robustness", inputs=[source]))
    clean = corrupted[corrupted["corruption"] == "none"].sort_values(["seed", "tile_id"], ascending=False)
    y, named = ([CLASSES.index(name) for name in clean[column]] for column in ("label", "predicted"))
    same = {name: list(clean[name]) for name in ("tile_id", "group", "seed")}
    predictions = make_predictions(y, {"softmax": y, "svm": named}, **same)
    pd.testing.assert_frame_equal(robustness.read_answers(path, predictions), corrupted)
    others = [
        make_predictions(y, {"svm": [(code + 1) % 3 for code in named]}, **same),
        make_predictions(y, {"softmax": named}, **same),
        make_predictions(y, {"svm": named}, **same | {"group": ["g"] * len(y)}),
        make_predictions(y, {"svm": named}, **same | {"seed": [7] * len(y)}),
        make_predictions(y, {"svm": named}, **same, classes=("a", "b", "d")),
    ]
    for other in others:
        with pytest.raises(StaleInput, match=r"rows are not those of predictions\.csv"):
            robustness.read_answers(path, other)
    source.write_text("y")
    with pytest.raises(StaleInput, match=r"made from predictions\.csv"):
        robustness.read_answers(path, predictions)
    pd.testing.assert_frame_equal(robustness.read_answers(path, predictions, force=True), corrupted)
    path.write_text(corrupted.replace("b", "a").to_csv(index=False))
    with pytest.raises(BadArtifact, match="its bytes are not those"):
        robustness.read_answers(path, predictions)
