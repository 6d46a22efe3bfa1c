"""Runs on the same test tiles become one table; others are refused, and one head is chosen."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from pipeline import compare, verify
from pipeline.comparison.runs.match import match
from pipeline.comparison.runs.price import network_cost
from pipeline.comparison.runs.table import resampling_of
from pipeline.evaluation.bootstrap import paired_counts, paired_difference
from pipeline.evaluation.significance import holm, sign_flip
from pipeline.network.preprocess import Preprocess
from pipeline.storage import atomic, records
from pipeline.storage.predictions.corrupted import SCHEMA as ROBUSTNESS
from pipeline.storage.predictions.corrupted import to_csv as corrupted_csv
from pipeline.storage.predictions.csv_table import HeadOutput

CLASSES = ("adipose", "stroma", "tumour")
N, N_GROUPS = 120, 12


def make_run(
    run: Path,
    wrong: dict[str, float],
    *,
    names: Sequence[str] | None = None,
    hashes: bool = True,
    classes: Sequence[str] = CLASSES,
    order: Sequence[int] | None = None,
    arch: str = "resnet18",
    protocol: str = "grouped",
    seeds: Sequence[int] = (0,),
    labels: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    corrupted: bool = False,
) -> Path:
    """Write a run of 120 test tiles in which each head misclassifies a share of the tiles, the same tiles every time.

    Args:
        run: the folder.
        wrong: head -> share of the tiles of a group, from its end.
        names: tile_id of each tile; default: tile_000 ...
        hashes: whether there is a manifest with hashes.
        classes: in the order of the columns.
        order: of the rows in the file.
        arch: of model.json.
        protocol: of the record.
        seeds: one row per tile and seed.
        labels: true class of each tile.
        groups: of each tile.
        corrupted: whether there is a robustness.csv, in which svm misclassifies all tiles.
    """
    run.mkdir(parents=True)
    names = names or [f"tile_{i:03d}" for i in range(N)]
    labels = labels or [CLASSES[i % 3] for i in range(N)]
    groups = groups or [f"g{i % N_GROUPS:02d}" for i in range(N)]
    lines = []
    for head, share in wrong.items():
        for seed in seeds:
            for i in order or range(N):
                is_wrong = i // N_GROUPS >= round((1 - share) * N / N_GROUPS)
                predicted = CLASSES[(CLASSES.index(labels[i]) + is_wrong) % 3]
                p = [0.8 if name == predicted else 0.2 / (len(classes) - 1) for name in classes]
                lines.append([names[i], groups[i], "test", labels[i], head, predicted, seed, 0, *p])
    columns = ["tile_id", "group", "split", "label", "head", "predicted", "seed", "fold", *(f"p_{c}" for c in classes)]
    table = pd.DataFrame(lines, columns=columns)
    table.to_csv(run / "predictions.csv", index=False)
    details = {"protocol": protocol, "dataset": "made up"}
    records.write_record(records.Artifact(run / "predictions.csv", "predictions/1.0", "fit_heads"), details=details)
    if hashes:
        manifest = pd.DataFrame({"tile_id": names, "path": names, "label": labels, "group": groups, "split": "test"})
        manifest["sha256"] = [f"{i:064x}" for i in range(N)]
        manifest = manifest.assign(width=24, height=24, problem="")
        manifest.to_csv(run / "manifest.csv", index=False)
        facts = details | {"root": "tiles"}
        records.write_record(records.Artifact(run / "manifest.csv", "manifest/1.0", "prepare"), details=facts)
    preprocess = dataclasses.asdict(Preprocess(64))
    model = {"arch": arch, "classes": list(classes), "preprocess": preprocess, "init": None}
    atomic.write_text(run / "model.json", atomic.to_json(model))
    (run / "model.safetensors").write_bytes(b"weights")
    artifact = records.Artifact(run / "model.safetensors", "model/1.0", "train")
    records.write_record(artifact, outputs=[run / "model.json"])
    (run / "history.csv").write_text("epoch,seconds\n1,20\n2,22.5\n")
    if corrupted:
        tiles = table[(table["head"] == "svm") & (table["seed"] == 0)].reset_index(drop=True)
        y = np.array([CLASSES.index(label) for label in tiles["label"]])
        heads = {
            name: np.array([CLASSES.index(n) for n in table[table["head"] == name]["predicted"]]) for name in wrong
        }
        bad = {name: (y + 1) % 3 if name == "svm" else y for name in heads}
        answers = {
            c: {name: HeadOutput(code, np.eye(3)[code]) for name, code in those.items()}
            for c, those in (("none", heads), ("blur", bad))
        }
        atomic.write_text(run / "robustness.csv", corrupted_csv(tiles, answers, CLASSES))
        records.write_record(records.Artifact(run / "robustness.csv", ROBUSTNESS, "robustness"))
    return run


def run_compare(*words: object) -> int:
    return compare.main([*map(str, words), "--draws", "200"])


def lines_of(folder: Path) -> pd.DataFrame:
    table = pd.read_csv(folder / "compare.csv", keep_default_na=False, na_values={"value": "", "low": "", "p": ""})
    return table.set_index(["run", "head", "metric"]).sort_index()


def table_of(folder: Path) -> pd.DataFrame:
    """Return the scores: one line for each run, head and metric."""
    lines = lines_of(folder)
    return lines[lines["family"] == ""]


def pairs_of(folder: Path, family: str) -> pd.DataFrame:
    """Return the paired differences of a family by (run, head)."""
    pairs = lines_of(folder).xs("macro_f1_difference", level="metric")
    return pairs[pairs["family"] == family]


def details_of(folder: Path) -> dict:
    return records.check_artifact(folder / "compare.csv", schema="compare/1.1")["details"]


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error:"))
    return line


def test_the_table_holds_every_head_of_every_run_with_its_numbers(tmp_path: Path) -> None:
    """P8: the same numbers as from the predictions themselves, by the tests of the report."""
    a = make_run(tmp_path / "a", {"softmax": 0.3, "svm": 0.1, "knn": 0.2})
    b = make_run(tmp_path / "b", {"softmax": 0.2, "svm": 0.1}, order=list(range(N))[::-1])
    assert run_compare(a, b) == 0
    table = table_of(a)
    groups = np.arange(N) % N_GROUPS
    y = np.arange(N) % 3
    for run, head, share in (("a", "softmax", 0.3), ("a", "svm", 0.1), ("a", "knn", 0.2), ("b", "softmax", 0.2)):
        predicted = (y + (np.arange(N) // N_GROUPS >= round((1 - share) * 10))) % 3
        row = table.loc[(run, head, "macro_f1")]
        assert row["value"] == pytest.approx(f1_score(y, predicted, average="macro"))
        assert table.loc[(run, head, "accuracy"), "value"] == pytest.approx(1 - share)
        assert row["low"] <= row["value"] <= float(row["high"])
        assert (row["n"], row["n_units"]) == (N, N_GROUPS)
        if (run, head) != ("a", "svm"):
            best = (y + (np.arange(N) // N_GROUPS >= 9)) % 3
            pairs = pairs_of(a, "all").loc[[(run, head)]]
            pair = pairs[pairs["against"] == "a/svm"].iloc[0]
            gap = paired_difference(paired_counts(y, predicted, best, metric="macro_f1", units=groups), n_draws=200)
            assert (pair["value"], pair["low"]) == (pytest.approx(gap.value), pytest.approx(gap.low))
            assert pair["p"] == pytest.approx(
                sign_flip(paired_counts(y, predicted, best, metric="macro_f1", units=groups)).p
            )
    pairs = pairs_of(a, "all")
    assert len(pairs) == 10, "five heads"
    assert pairs["holm_p"].astype(float).tolist() == pytest.approx(holm(pairs["p"].to_numpy(float)).tolist())
    equal = pairs[pairs["outcome"] == "practically equal"]
    assert equal["against"].to_dict() == {("b", "svm"): "a/svm", ("a", "knn"): "b/softmax"}, "the same predictions"
    letters = table.xs("macro_f1", level="metric")["letters"].to_dict()
    assert letters == {
        ("a", "svm"): "a",
        ("b", "svm"): "a",
        ("a", "knn"): "b",
        ("b", "softmax"): "b",
        ("a", "softmax"): "c",
    }
    page = (a / "compare.md").read_text()
    assert page.count("\n| 1 | a | a | SVM |") == 1
    findings = verify.Findings(light=False)
    verify.check_folder(a, findings)
    assert {a / "compare.csv", a / "compare.md", a / "compare.html"} <= findings.known
    (a / "compare.md").write_text("edited")
    verify.check_folder(a, findings)
    assert any(str(a / "compare.md") in fault for fault in findings.faults)


def test_the_cheapest_that_is_practically_equal_is_chosen(tmp_path: Path) -> None:
    large = make_run(tmp_path / "large", {"softmax": 0.3, "svm": 0.1, "xgboost": 0.1}, arch="resnet50")
    small = make_run(tmp_path / "small", {"softmax": 0.3, "svm": 0.2}, arch="resnet10")
    assert run_compare(large, small, "--rope", 0.2) == 0
    assert details_of(large) == {
        "best": ["large", "xgboost"],
        "chosen": ["small", "svm"],
        "matched_by": "pixels",
        "unit": "group",
        "verdict": "cheaper",
    }
    assert run_compare(large, "--restart") == 0
    assert details_of(large)["chosen"] == ["large", "xgboost"], "smaller than an SVM's support vectors"
    assert run_compare(small, large, "--heads", "softmax") == 0
    assert (details_of(small)["verdict"], details_of(small)["chosen"]) == ("best", ["small", "softmax"])


def test_a_head_must_beat_the_best_baseline_of_all_runs(tmp_path: Path) -> None:
    """The rule of the report: a cheaper encoder that is not shown to beat the baseline is not used."""
    a = make_run(tmp_path / "a", {"svm": 0.3, "histogram_svm": 0.2, "majority": 0.7})
    b = make_run(tmp_path / "b", {"svm": 0.1, "histogram_svm": 0.2}, arch="resnet50")
    assert run_compare(a, b) == 0
    assert (details_of(a)["verdict"], details_of(a)["chosen"]) == ("best", ["b", "svm"])
    asked = [(*pair, other) for pair, other in pairs_of(a, "asked")["against"].items()]
    assert sorted(asked) == [("a", "svm", "a/histogram_svm"), ("a", "svm", "b/svm"), ("b", "svm", "a/histogram_svm")]
    assert ("b", "histogram_svm", "macro_f1") not in table_of(a).index, "the same baseline is there once"
    assert run_compare(a, "--restart") == 0
    assert (details_of(a)["verdict"], details_of(a)["chosen"]) == ("baseline", ["a", "histogram_svm"])


@pytest.mark.parametrize(
    ("runs", "code"), [({"softmax": 0.1}, "one_candidate"), ({"softmax": 0.3, "svm": 0.1}, "too_few_units")]
)
def test_what_cannot_be_chosen_has_a_code(tmp_path: Path, runs: dict[str, float], code: str) -> None:
    a = make_run(tmp_path / "a", runs, groups=[f"g{i % 5}" for i in range(N)])
    assert run_compare(a) == 0
    assert details_of(a)["verdict"] == code


def test_against_a_run_each_head_is_compared_with_the_same_head(tmp_path: Path) -> None:
    first = make_run(tmp_path / "first", {"softmax": 0.3, "svm": 0.2})
    other = make_run(tmp_path / "other", {"softmax": 0.1, "svm": 0.2, "xgboost": 0.1})
    assert run_compare(first, other, "--against", "first", "--out", tmp_path / "out") == 0
    pairs = pairs_of(tmp_path / "out", "asked")
    assert dict(zip(pairs.index, pairs["against"], strict=True)) == {
        ("other", "softmax"): "first/softmax",
        ("other", "svm"): "first/svm",
    }
    assert pairs["outcome"].tolist() == ["better", "practically equal"]
    assert details_of(tmp_path / "out")["verdict"] == "against_run"


def test_against_a_run_the_units_must_suffice_for_all_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Six groups decide one pair, but not three: the smallest p is then 3 / 32."""
    groups = [f"g{i % 6}" for i in range(N)]
    wrong = {"softmax": 0.3, "svm": 0.3, "xgboost": 0.3}
    first = make_run(tmp_path / "first", wrong, groups=groups)
    other = make_run(tmp_path / "other", dict.fromkeys(wrong, 0.1), groups=groups)
    out = tmp_path / "out"
    assert run_compare(first, other, "--against", "first", "--out", out) == 0
    assert details_of(out)["verdict"] == "too_few_units"
    assert run_compare(first, other, "--against", "first", "--out", out, "--heads", "svm", "--restart") == 0
    assert details_of(out)["verdict"] == "against_run"
    third = make_run(tmp_path / "third", {"logistic": 0.1}, groups=groups)
    capsys.readouterr()
    assert run_compare(first, third, "--against", "first", "--out", tmp_path / "none") == 1
    assert "--against first" in error_line(capsys)
    assert not (tmp_path / "none" / "compare.csv").exists()


def test_an_edited_description_of_the_network_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = make_run(tmp_path / "a", {"svm": 0.1}, arch="resnet50")
    edited = (a / "model.json").read_text().replace("resnet50", "resnet10")
    (a / "model.json").write_text(edited)
    assert run_compare(a) == 1
    assert str(a / "model.json") in error_line(capsys)


def test_tiles_are_matched_by_pixels_whatever_their_names(tmp_path: Path) -> None:
    a = make_run(tmp_path / "a", {"svm": 0.1})
    renamed = [f"other/{(i * 7) % N:03d}" for i in range(N)]
    b = make_run(tmp_path / "b", {"svm": 0.1}, names=renamed, classes=CLASSES[::-1])
    matched = match({"a": a, "b": b})
    assert matched.matched_by == "pixels"
    one, other = matched.heads
    assert np.array_equal(one.predicted, other.predicted)
    assert np.array_equal(one.p, other.p), "columns follow the first run's classes"


def test_tiles_of_equal_pixels_are_matched_one_by_one(tmp_path: Path) -> None:
    runs = {name: make_run(tmp_path / name, {"svm": 0.1}) for name in "ab"}
    for run in runs.values():
        manifest = pd.read_csv(run / "manifest.csv", keep_default_na=False, dtype=str)
        manifest.loc[3, "sha256"] = manifest.loc[0, "sha256"]  # the same class, another group
        manifest.to_csv(run / "manifest.csv", index=False)
        details = records.read_record(run / "manifest.csv")["details"]
        records.write_record(records.Artifact(run / "manifest.csv", "manifest/1.0", "prepare"), details=details)
    matched = match(runs)
    assert len(matched.y) == len(np.unique(matched.tile)) == N


def test_without_hashes_tiles_are_matched_by_name(tmp_path: Path) -> None:
    a, b = (make_run(tmp_path / name, {"svm": 0.1}, hashes=name == "a") for name in "ab")
    assert match({"a": a, "b": b}).matched_by == "tile_id"


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        ({"names": [f"tile_{i + 2:03d}" for i in range(N)], "hashes": False}, ("120", "2 are not", "2 of those")),
        ({"seeds": (0, 1)}, ("240 test rows", "120 are not", "0 of those")),
        ({"labels": [CLASSES[0], CLASSES[0], *(CLASSES[i % 3] for i in range(2, N))]}, ("labels of 1 of 120",)),
        ({"groups": [f"g{i % 11:02d}" for i in range(N)]}, ("groups of 109 of 120",)),
        ({"classes": (*CLASSES, "mucus")}, ("1 classes", "'mucus'")),
    ],
)
def test_other_test_tiles_are_refused_in_one_line_with_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict, counts: tuple[str, ...]
) -> None:
    a, b = make_run(tmp_path / "a", {"svm": 0.1}), make_run(tmp_path / "b", {"svm": 0.1}, **change)
    assert run_compare(a, b) == 1
    line = error_line(capsys)
    assert "b cannot be compared with a" in line
    assert all(text in line for text in counts), line
    assert not (a / "compare.csv").exists()


def test_groups_that_the_first_run_does_not_know_must_agree_in_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = make_run(tmp_path / "a", {"svm": 0.1}, groups=[""] * N)
    b = make_run(tmp_path / "b", {"svm": 0.1}, arch="resnet10")
    c = make_run(tmp_path / "c", {"svm": 0.1}, groups=[f"g{i % 11:02d}" for i in range(N)])
    matched = match({"a": a, "b": b})
    assert matched.group is not None
    assert len(np.unique(matched.group)) == N_GROUPS
    assert run_compare(a, b, c) == 1
    assert "groups of 109 of 120" in error_line(capsys)


def test_seeds_are_rows_but_one_tile_and_shown_by_themselves(tmp_path: Path) -> None:
    a, b = (make_run(tmp_path / name, {"svm": 0.1}, seeds=(0, 3), protocol="random") for name in "ab")
    matched = match({"a": a, "b": b})
    assert matched.group is None, "a random split keeps no group whole"
    resampling = resampling_of(matched, n_draws=100, seed=0, level=0.95)
    assert (resampling.unit, resampling.n_units(np.arange(len(matched.y)))) == ("tile", N)
    assert run_compare(a, b) == 0
    table = table_of(a)
    assert table.loc[("b", "svm", "accuracy[seed 3]"), "n"] == N
    assert "biased upwards" in (a / "compare.md").read_text()


def test_costs_are_those_of_the_network_and_no_time_decides(tmp_path: Path) -> None:
    a = make_run(tmp_path / "a", {"svm": 0.1}, arch="resnet50")
    details = {"engine": "torch", "precision": "bf16", "views": 8}
    (a / "embeddings.h5").write_bytes(b"heavy files are not committed, their records are")
    artifact = records.Artifact(a / "embeddings.h5", "embeddings/1.1", "extract")
    records.write_record(artifact, details=details, device="cpu")
    (a / "embeddings.h5").unlink()
    parameters, dimension, gflops = network_cost("resnet50", 64, n_classes=3)
    assert (parameters, dimension) == (23_508_032 + 3 * 2049, 2048)
    assert gflops == pytest.approx(0.67, abs=0.02), "2 x 4.1 GFLOP at 224 px, of which 64 px are a twelfth"
    assert run_compare(a) == 0
    found = table_of(a).loc[("a", "")]["value"]
    assert found.to_dict() == pytest.approx(
        {"tile_px": 64, "parameters": parameters, "dimension": 2048, "gflops": 8 * gflops, "train_seconds": 42.5}
    )
    assert "| torch, bf16, cpu |" in (a / "compare.md").read_text()


def test_corruptions_are_a_table_where_a_run_has_them(tmp_path: Path) -> None:
    a = make_run(tmp_path / "a", {"softmax": 0.1, "svm": 0.1}, corrupted=True)
    b = make_run(tmp_path / "b", {"softmax": 0.1, "svm": 0.1})
    assert run_compare(a, b) == 0
    table = table_of(a)
    assert table.loc[("a", "svm", "macro_f1[blur]"), "value"] == 0
    assert table.loc[("a", "softmax", "macro_f1[blur]"), "value"] == 1
    clean = table.loc[("a", "svm", "macro_f1"), "value"]
    assert table.loc[("a", "svm", "macro_f1_loss[blur]"), "value"] == pytest.approx(clean)
    assert ("b", "svm", "macro_f1[blur]") not in table.index


def test_a_current_table_is_left_alone_and_that_of_other_runs_not_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b, c = (make_run(tmp_path / name, {"svm": 0.1, "softmax": 0.2}) for name in "abc")
    assert run_compare(a, b) == 0
    first = (a / "compare.csv").read_bytes()
    capsys.readouterr()
    assert run_compare(a, b) == 0
    assert "compare: current" in capsys.readouterr().err
    assert run_compare(a, c) == 1
    assert "comparison of other runs" in error_line(capsys)
    assert (a / "compare.csv").read_bytes() == first
    assert run_compare(a, c, "--restart") == 0
    assert json.loads((a / "compare.csv.json").read_text())["options"]["runs"] == ["a", "c"]
    (a / "compare.csv.json").write_text("{")
    assert run_compare(a, c) == 1
    assert run_compare(a, c, "--restart") == 0
    (b / "history.csv").write_text("epoch,seconds\n1,1\n")
    assert run_compare(a, b, "--out", tmp_path / "out") == 0
    assert table_of(tmp_path / "out").loc[("b", "", "train_seconds"), "value"] == 1


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ([], 2),
        (["a", "a"], 2),
        (["a", "--against", "x"], 2),
        (["a", "--heads", "mlp"], 1),
        (["a", "nowhere"], 1),
        (["a", "--level", "1"], 2),
    ],
)
def test_wrong_words_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], code: int
) -> None:
    make_run(tmp_path / "a", {"svm": 0.1})
    monkeypatch.chdir(tmp_path)
    assert compare.main(words) == code
    error_line(capsys)


def test_runs_of_the_same_name_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    assert compare.run_names([tmp_path / "x" / "run", tmp_path / "y" / "run"]) == [
        (tmp_path / "x" / "run").as_posix(),
        (tmp_path / "y" / "run").as_posix(),
    ]
    assert compare.run_names([tmp_path / "x", tmp_path / "y"]) == ["x", "y"]
