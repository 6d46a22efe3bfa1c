"""Parts of a plan become one table, and their facts one summary."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline.errors import BadArtifact, StaleInput
from pipeline.storage.predictions import pool_folds
from pipeline.storage.predictions.pool_folds import (
    check_same_options,
    list_values,
    mean_of,
    recorded_options,
    summarise,
    summary_of,
)


def table(p: list[float], *, ids: tuple[str, ...] = ("t0", "t1")) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "tile_id": ids,
            "group": ["g", "g"],
            "split": ["test", "test"],
            "label": ["a", "b"],
            "head": ["svm", "svm"],
            "predicted": ["a" if value >= 0.5 else "b" for value in p],
            "seed": 0,
            "fold": 0,
            "p_a": p,
            "p_b": [1 - value for value in p],
        }
    )


def test_inner_networks_are_averaged_and_decide_together() -> None:
    pooled = mean_of([table([0.9, 0.6]), table([0.2, 0.1])], seed=4, fold=2)
    assert pooled["p_a"].tolist() == pytest.approx([0.55, 0.35])
    assert pooled["predicted"].tolist() == ["a", "b"]
    assert set(zip(pooled["seed"], pooled["fold"], strict=True)) == {(4, 2)}


def test_one_network_keeps_its_own_decisions() -> None:
    only = table([0.9, 0.6]).assign(predicted=["b", "a"])
    assert mean_of([only], seed=0, fold=1)["predicted"].tolist() == ["b", "a"]


def test_other_test_rows_are_refused() -> None:
    with pytest.raises(BadArtifact, match="seed 1, fold 3 have different test rows"):
        mean_of([table([0.9, 0.6]), table([0.9, 0.6], ids=("t0", "t2"))], seed=1, fold=3)


def test_facts_of_parts_become_means_and_counts() -> None:
    assert summarise([1, 2, 3]) == 2
    assert summarise(["rbf", "rbf"]) == "rbf"
    assert summarise(["rbf", "linear", "rbf"]) == "rbf (2), linear (1)"
    assert summarise([{"a": 1}, {"a": 3, "b": "x"}]) == {"a": 2, "b": "x"}
    contents = [
        {
            "classes": ["a", "b"],
            "heads": {"svm": {"chosen": {"C": c}, "search": [1], "notes": [], "calibration": {"params": {"a": [c]}}}},
            "source_probe": {"accuracy": c / 10},
            "separability": {"val": {"accuracy": 0.5}},
        }
        for c in (1.0, 3.0)
    ]
    found = summary_of(contents)
    assert found["heads"]["svm"] == {"chosen": {"C": "1 (1), 3 (1)"}, "calibration": {}}
    assert found["source_probe"] == {"accuracy": pytest.approx(0.2), "n_probed": 2, "n_parts": 2}
    contents[0]["source_probe"] = {"reason": "one group"}
    assert summary_of(contents)["source_probe"]["n_probed"] == 1
    assert list_values([16, 40, 25, 31, 18]) == "16 to 40"
    assert found["n_parts"] == 2


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"options": {"lr": 2.0}}, r"other/model.safetensors was made with other options .*lr=2.0, there 1.0"),
        ({"options": {"lr": 1.0, "normalise": "source"}}, "normalise='source', there not set"),
        ({"details": {"precision": "fp32"}}, "trained in='fp32', there 'bf16'"),
    ],
)
def test_parts_that_were_made_in_another_way_are_refused(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], told: str
) -> None:
    same = {"options": {"lr": 1.0}, "details": {"precision": "bf16"}, "stage": "train"}
    monkeypatch.setattr(
        pool_folds.records, "read_record_alone", lambda path: same | (change if path.parent.name == "other" else {})
    )
    check_same_options(Path("first"), Path("first"))
    with pytest.raises(StaleInput, match=told):
        check_same_options(Path("other"), Path("first"))


def test_parts_may_follow_the_colours_of_their_own_training_sources() -> None:
    def trained(*, blur: float, by_colours: list[str]) -> dict[str, object]:
        details = {"precision": "fp32", "decided_by_colours": by_colours}
        return {"options": {"epochs": 3, "blur": blur}, "details": details, "stage": "train"}

    one, other = (trained(blur=blur, by_colours=["blur"]) for blur in (0.0, 0.005))
    assert recorded_options(one) == recorded_options(other)
    one, other = (trained(blur=blur, by_colours=[]) for blur in (0.0, 0.005))
    assert recorded_options(one) != recorded_options(other)


def test_embeddings_of_parts_may_come_from_other_engines() -> None:
    one, other = (
        {"options": {"dtype": "float32"}, "details": {"precision": name}, "stage": "extract"}
        for name in ("fp32", "bf16")
    )
    assert recorded_options(one) == recorded_options(other)


def test_rows_of_one_part_may_have_fitted_into_memory_and_those_of_another_not() -> None:
    one, other = (
        {"options": {"rounds": 3} | given, "details": {}, "stage": "fit_heads"}
        for given in ({}, {"memory": 4 * 10**9, "cluster": False})
    )
    assert recorded_options(one) == recorded_options(other)
