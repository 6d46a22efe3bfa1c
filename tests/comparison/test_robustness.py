"""Losses computed by hand, their intervals by the paired bootstrap of the report, and codes that claim no more."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from pipeline.comparison import robustness
from pipeline.comparison.scores import Resampling
from pipeline.errors import BadArtifact, StaleInput
from pipeline.evaluation.bootstrap import paired_counts, paired_difference
from pipeline.storage import records

CLASSES = ["a", "b", "c"]


def resampling(unit: str = "group", draws: int = 300) -> Resampling:
    return Resampling(unit, np.zeros(0, int), n_draws=draws, seed=3, level=0.95)  # type: ignore[arg-type]


def made(
    wrong: dict[tuple[str, str], float], *, n: int = 120, groups: int = 12, seeds: int = 1, rng_seed: int = 0
) -> pd.DataFrame:
    """Rows in which each (head, corruption) misclassifies with a given probability."""
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


def test_scores_and_losses_are_those_of_scikit_learn_and_of_paired_difference() -> None:
    corrupted = made(SOME)
    losses = robustness.measure_losses(corrupted, CLASSES, resampling())
    assert losses.heads == ["softmax", "svm"]
    assert losses.corruptions == ["blur", "jpeg"]
    assert losses.n_units == 12
    for head, corruption in SOME:
        y, named, groups = codes(corrupted, head, corruption)
        assert losses.score[head, corruption] == pytest.approx(f1_score(y, named, average="macro"))
        if corruption != "none":
            expected = paired_difference(
                paired_counts(y, codes(corrupted, head, "none")[1], named, metric="macro_f1", units=groups),
                n_draws=300,
                seed=3,
            )
            loss = losses.loss[head, corruption]
            assert (loss.value, loss.low, loss.high) == pytest.approx((expected.value, expected.low, expected.high))
    assert losses.mean["svm"].value == pytest.approx(np.mean([losses.loss["svm", c].value for c in ("blur", "jpeg")]))
    assert losses.mean["svm"].low < losses.mean["svm"].value < losses.mean["svm"].high
    assert losses.ranking == ["softmax", "svm"]
    assert losses.lead is not None
    assert losses.lead.value == pytest.approx(losses.mean["svm"].value - losses.mean["softmax"].value)
    assert losses.lead.low > 0
    assert losses.code == "decided"


def test_the_tile_is_the_unit_over_all_seeds() -> None:
    """Three seeds are no three times as many tiles: intervals must not shrink by them alone."""
    corrupted = made(SOME, n=60)
    one = robustness.measure_losses(corrupted, CLASSES, resampling("tile"))
    thrice = pd.concat([corrupted.assign(seed=seed) for seed in range(3)]).sort_values(
        ["corruption", "head"], key=lambda names: names.map({"none": 0}).fillna(1), kind="stable"
    )
    three = robustness.measure_losses(thrice, CLASSES, resampling("tile"))
    assert one.n_units == three.n_units == 60
    for key, loss in one.loss.items():
        other = three.loss[key]
        assert (other.value, other.low, other.high) == pytest.approx((loss.value, loss.low, loss.high))


def test_equal_heads_are_undecided_and_one_group_decides_nothing() -> None:
    equal = robustness.measure_losses(made(dict.fromkeys(SOME, 0.2), rng_seed=5), CLASSES, resampling())
    assert equal.code == "undecided"
    one_group = robustness.measure_losses(made(SOME, groups=1), CLASSES, resampling())
    assert np.isnan(one_group.loss["svm", "blur"].low)
    assert one_group.code == "no_interval"
    assert robustness.measure_losses(made(SOME, groups=5), CLASSES, resampling()).code == "too_few_units"
    alone = made({key: p for key, p in SOME.items() if key[0] == "svm"})
    losses = robustness.measure_losses(alone, CLASSES, resampling())
    assert losses.lead is None
    assert losses.code == "one_head"


def test_nothing_lost_is_zero_with_an_interval_of_zero() -> None:
    corrupted = made({("svm", "none"): 0.0, ("svm", "rotation"): 0.0})
    loss = robustness.measure_losses(corrupted, CLASSES, resampling()).loss["svm", "rotation"]
    assert (loss.value, loss.low, loss.high) == (0, 0, 0)


def test_only_rows_of_these_predictions_are_read(make_predictions: Callable[..., Any], tmp_path: Path) -> None:
    path, source = tmp_path / "robustness.csv", tmp_path / "predictions.csv"
    corrupted = made({("svm", "none"): 0.3, ("svm", "blur"): 0.5}, n=9, seeds=2)
    source.write_text("x")
    path.write_text(corrupted.to_csv(index=False))
    records.write_record(records.Artifact(path, "robustness/1.0", "robustness", inputs=[source]))
    clean = corrupted[corrupted["corruption"] == "none"].sort_values(["seed", "tile_id"], ascending=False)
    y, named = ([CLASSES.index(name) for name in clean[column]] for column in ("label", "predicted"))
    same = {name: list(clean[name]) for name in ("tile_id", "group", "seed")}
    predictions = make_predictions(y, {"softmax": y, "svm": named}, **same)
    pd.testing.assert_frame_equal(robustness.read_corrupted(path, predictions), corrupted)
    others = [
        make_predictions(y, {"svm": [(code + 1) % 3 for code in named]}, **same),
        make_predictions(y, {"softmax": named}, **same),
        make_predictions(y, {"svm": named}, **same | {"group": ["g"] * len(y)}),
        make_predictions(y, {"svm": named}, **same | {"seed": [7] * len(y)}),
        make_predictions(y, {"svm": named}, **same, classes=("a", "b", "d")),
    ]
    for other in others:
        with pytest.raises(StaleInput, match=r"rows are not those of predictions\.csv"):
            robustness.read_corrupted(path, other)
    source.write_text("y")
    with pytest.raises(StaleInput, match=r"made from predictions\.csv"):
        robustness.read_corrupted(path, predictions)
    pd.testing.assert_frame_equal(robustness.read_corrupted(path, predictions, force=True), corrupted)
    path.write_text(corrupted.replace("b", "a").to_csv(index=False))
    with pytest.raises(BadArtifact, match="its bytes are not those"):
        robustness.read_corrupted(path, predictions)
