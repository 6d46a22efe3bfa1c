"""Tables of predictions that are too long for CSV: the same rows, and the same report apart from what is sampled."""

import csv
import importlib.util
import random
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from pipeline import report, verify
from pipeline.cli.options import Common
from pipeline.comparison import predictions
from pipeline.comparison.read import read_predictions
from pipeline.errors import BadArtifact, PipelineError
from pipeline.report import ReportOptions
from pipeline.storage import records
from pipeline.storage.predictions import columns, csv_table, parquet_table, parquet_writer, pool_folds
from pipeline.storage.predictions.parquet_writer import parquet_lines

if importlib.util.find_spec("pyarrow") is None:
    pytest.skip("needs the extra `large`", allow_module_level=True)

CLASSES = ["a", "b", "c"]
HEADS = {"softmax": 1.5, "svm": 2.0, "knn": 0.8}
SPLITS = np.array(["train", "val", "test"])
N = 900


def make_table(n: int = N, *, seeds: int = 1, groups: int = 9) -> pd.DataFrame:
    """Lines of three heads, head by head; each tile has `seeds` rows; groups stand in one split each."""
    rng = np.random.default_rng(7)
    tile = np.tile(np.arange(n), seeds)
    group = tile % groups
    y = rng.integers(0, len(CLASSES), n)[tile]
    noise = rng.normal(0, 0.6, (groups, len(CLASSES)))[group]
    lines = []
    for head, skill in HEADS.items():
        scores = rng.normal(0, 1, (len(tile), len(CLASSES))) + noise + skill * np.eye(len(CLASSES))[y]
        p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        table = pd.DataFrame(
            {
                "tile_id": [f"slide{g}/tile_{t:06d}" for t, g in zip(tile, group, strict=True)],
                "group": [f"g{g}" for g in group],
                "split": SPLITS[[0, 1, 2, 2, 2, 2, 2, 2, 2]][group % 9],
                "label": np.array(CLASSES)[y],
                "head": head,
                "predicted": np.array(CLASSES)[p.argmax(axis=1)],
            }
        )
        if seeds > 1:
            table["seed"], table["fold"] = np.repeat(np.arange(seeds), n), 0
        table[[f"p_{name}" for name in CLASSES]] = p.astype(np.float32)
        lines.append(table)
    return pd.concat(lines, ignore_index=True)


def make_run(run: Path, table: pd.DataFrame, name: str, *, protocol: str = "grouped") -> Path:
    """Write a table in blocks of a head, with its record, into a run folder."""
    run.mkdir(parents=True, exist_ok=True)
    path = run / name
    with csv_table.written(path) as add:
        for _, lines in table.groupby("head", sort=False):
            add(lines)
    details = {"protocol": protocol, "dataset": "made", "credit": None, "calibrated_on": "val", "n_skipped": 0}
    records.write_record(records.Artifact(path, csv_table.SCHEMA, "fit_heads", seed=0), details=details)
    return run


def reported(run: Path) -> dict[tuple[str, str, str], list[float]]:
    """Run the report; return value, low and high by head, split and metric."""
    assert report.run(Common(run=run), ReportOptions(draws=200, map="none", gallery=0)) == 0
    with (run / "comparison.csv").open(encoding="utf-8", newline="") as handle:
        return {
            (row["head"], row["split"], row["metric"]): [
                float(row[name]) if row[name] else np.nan for name in ("value", "low", "high", "n", "n_groups")
            ]
            for row in csv.DictReader(handle)
        }


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks for each head."""
    for module in (columns, parquet_table, parquet_writer):
        monkeypatch.setattr(module, "BLOCK_ROWS", 128)


def test_both_forms_hold_the_same_lines_and_one_replaces_the_other(tmp_path: Path) -> None:
    table = make_table()
    run = make_run(tmp_path / "run", table, "predictions.csv")
    before = csv_table.read_predictions(run / "predictions.csv")
    make_run(run, table, "predictions.parquet")
    assert records.existing_table(run / "predictions.csv") == run / "predictions.parquet"
    assert sorted(path.name for path in run.iterdir()) == ["predictions.parquet", "predictions.parquet.json"]
    after = csv_table.read_predictions(run / "predictions.parquet")
    assert list(after) == list(before)
    for name in before:
        if name.startswith("p_"):
            np.testing.assert_array_equal(after[name], before[name].astype(np.float32))
        else:
            assert after[name].tolist() == before[name].tolist()
    make_run(run, table, "predictions.csv")
    assert records.existing_table(run / "predictions.csv") == run / "predictions.csv"
    assert not (run / "predictions.parquet").exists()


def test_the_size_decides_the_form(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    assert csv_table.table_for(path, csv_table.LARGE_LINES) == path
    assert csv_table.table_for(path, csv_table.LARGE_LINES + 1) == tmp_path / "predictions.parquet"


@pytest.mark.parametrize("seeds", [1, 2])
def test_the_report_of_a_large_table_says_what_that_of_a_small_one_does(tmp_path: Path, seeds: int) -> None:
    table = make_table(seeds=seeds)
    small = reported(make_run(tmp_path / "small", table, "predictions.csv"))
    found = reported(make_run(tmp_path / "large", table, "predictions.parquet"))
    assert list(found) == list(small)
    for key, values in small.items():
        np.testing.assert_allclose(found[key], values, rtol=2e-6, err_msg=str(key))  # float32 and nine digits
    groups = [(tmp_path / name / "per_group.csv").read_text() for name in ("small", "large")]
    assert groups[0] == groups[1]
    page = (tmp_path / "large" / "comparison.md").read_text(encoding="utf-8")
    assert "by a hash of the tiles' names" not in page  # so few rows need no sample
    whole = (tmp_path / "small" / "comparison.md").read_text(encoding="utf-8")
    sentences = [re.findall(r"^- .* is (?:better|worse) than .*$", text, re.M) for text in (page, whole)]
    assert sentences[0] == sentences[1] != []
    findings = verify.Findings(light=False)
    verify.check_content(tmp_path / "large", findings)
    assert findings.faults == []


@pytest.mark.slow
def test_tiles_are_drawn_in_blocks_and_the_intervals_are_as_wide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_table(4500)
    small = reported(make_run(tmp_path / "small", table, "predictions.csv", protocol="random"))
    monkeypatch.setattr(predictions, "BLOCKS", 300)
    monkeypatch.setattr(predictions, "MANY_ROWS", 4000)
    found = reported(make_run(tmp_path / "large", table, "predictions.parquet", protocol="random"))
    for metric in ("accuracy", "macro_f1", "nll", "brier"):
        exact, blocked = (of["svm", "test", metric] for of in (small, found))
        assert blocked[0] == pytest.approx(exact[0], rel=2e-6)
        assert blocked[2] - blocked[1] == pytest.approx(exact[2] - exact[1], rel=0.35)
    page = (tmp_path / "large" / "comparison.md").read_text(encoding="utf-8")
    assert "300 blocks of tiles dealt at random" in page
    assert "intervals over single tiles have the same width" in page


def test_single_rows_are_looked_at_in_a_sample_of_whole_tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictions, "MANY_ROWS", 400)
    run = make_run(tmp_path / "run", make_table(seeds=2), "predictions.parquet")
    content = read_predictions(run / "predictions.csv")
    rows, note = content.sample("test")
    assert f"{len(rows)} of the 1400 test rows" in note
    assert 250 < len(rows) < 550
    assert len(content.rows("test")) == 1400
    assert (np.bincount(content.tile_code[rows])[np.unique(content.tile_code[rows])] == 2).all()
    table = csv_table.read_predictions(run / "predictions.parquet")
    p = table.loc[table["head"] == "svm", [f"p_{name}" for name in CLASSES]].to_numpy()
    np.testing.assert_array_equal(content.probabilities("svm", rows[::-7]), p[rows[::-7]])
    named = content.predicted["svm"][rows]
    np.testing.assert_array_equal(content.named_probability("svm", rows), p[rows, named])
    reported(run)
    page = (run / "comparison.md").read_text(encoding="utf-8")
    assert re.search(rf"a sample of {len(rows)} of the 1400 test rows", page)


def rewritten(path: Path, change) -> None:
    """Write the lines of a Parquet table again, changed, one row group for each head."""
    table = csv_table.read_predictions(path).drop(columns=["seed", "fold"])
    table = table if (changed := change(table)) is None else changed
    with parquet_lines(path) as add:
        for _, lines in table.groupby("head", sort=False):
            add(lines)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.__setitem__("p_a", t["p_a"] + 0.1), "sum to 1"),
        (lambda t: t.loc.__setitem__((t.index[5], "p_a"), np.nan), "empty|sum to 1"),
        (lambda t: t.loc.__setitem__((t.index[N + 5], "tile_id"), "other"), "different rows"),
        (lambda t: t.loc.__setitem__((t.index[N + 5], "group"), "g0x"), "differ between the heads"),
        (lambda t: t.loc.__setitem__((t.index[5], "predicted"), "z"), "unknown"),
        (lambda t: t.loc.__setitem__((t.index[5], "split"), "z"), "unknown"),
        (lambda t: t.loc.__setitem__((t.index[[6, N + 6, 2 * N + 6]], "tile_id"), t["tile_id"][7]), "has two rows"),
        (lambda t: t.drop(index=t.index[-1]), "different rows"),
        (lambda t: t.rename(columns={"p_a": "q_a"}), "columns are not"),
    ],
)
def test_a_table_that_breaks_the_schema_is_refused_by_name(tmp_path: Path, change, message: str) -> None:
    path = make_run(tmp_path / "run", make_table(), "predictions.parquet") / "predictions.parquet"
    rewritten(path, change)
    with pytest.raises(BadArtifact, match=message) as told:
        csv_table.open_parquet(path).check()
    assert str(path) in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"\0" * 100 + b"PAR1", b"a,b\n1,2\n"])
def test_what_is_no_parquet_file_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "predictions.parquet"
    path.write_bytes(content)
    with pytest.raises(BadArtifact, match="not a readable Parquet file") as told:
        csv_table.open_parquet(path)
    assert "\n" not in str(told.value)


def test_parts_are_pooled_into_either_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = make_table()
    fold_of = table["group"].map({f"g{i}": i % 2 for i in range(9)})
    parts, files = [], []
    for seed, fold in [(0, 0), (0, 1), (4, 0), (4, 1)]:
        own = table[(fold_of == fold) | (table["split"] != "test")]
        form = "parquet" if fold else "csv"
        run = make_run(tmp_path / f"{seed}-{fold}", own, f"predictions.{form}")
        files.append(run / f"predictions.{form}")
        n_test = int((own["split"] == "test").sum() / len(HEADS))
        parts.append(SimpleNamespace(arm="grouped", seed=seed, fold=fold, n={"test": n_test}))
    found = {}
    for form, most in (("csv", 10_000), ("parquet", 100)):
        monkeypatch.setattr(csv_table, "LARGE_LINES", most)
        protocol = SimpleNamespace(run=tmp_path, predictions=lambda arm: tmp_path / "predictions.csv")
        out = pool_folds.write_pooled(protocol, parts, files)
        assert out == tmp_path / f"predictions.{form}"
        found[form] = csv_table.read_predictions(out)  # refuses heads on other rows
    assert len(found["csv"]) == len(found["parquet"]) == 2 * (table["split"] == "test").sum()
    keys = ["head", "seed", "fold", "tile_id"]
    left, right = (found[form].sort_values(keys, kind="stable", ignore_index=True) for form in found)
    pd.testing.assert_frame_equal(left, right, check_dtype=False, rtol=1e-6, atol=1e-7)
    with pytest.raises(BadArtifact, match="tested in two folds of one seed"):
        pool_folds.write_pooled(protocol, [parts[0], SimpleNamespace(**vars(parts[0]) | {"fold": 1})], files[:1] * 2)
    assert csv_table.read_predictions(tmp_path / "predictions.parquet").equals(found["parquet"])


def complaint(path: Path) -> str | None:
    """Return why a table is refused, or None."""
    try:
        csv_table.open_parquet(path).check()
    except BadArtifact as error:
        return str(error)
    return None


def test_a_flipped_bit_is_refused_in_one_line_or_changes_nothing_that_breaks_the_schema(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", make_table(90), "predictions.parquet") / "predictions.parquet"
    content, places, refused = path.read_bytes(), random.Random(3), 0
    for _ in range(150):
        changed = bytearray(content)
        changed[places.randrange(len(content))] ^= 1 << places.randrange(8)
        path.write_bytes(changed)
        told = complaint(path)
        refused += told is not None
        assert told is None or "\n" not in told
    assert refused > 50


def test_without_pyarrow_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(PipelineError, match=r"pip install 'histoheads\[large\]'"):
        parquet_writer.require_pyarrow()
