"""The margin of a run is that of its test rows; prices come from its records."""

import dataclasses
import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline.comparison.heads_summary import SourceProbe
from pipeline.comparison.runs import margin
from pipeline.comparison.runs.csv_rows import numbers
from pipeline.comparison.runs.margin import read_margin
from pipeline.comparison.runs.price import Price, read_price
from pipeline.errors import BadArtifact
from pipeline.evaluation.robustness_margin import RobustnessMargin, robustness_margins, summarise_margins
from pipeline.network.preprocess import Preprocess
from pipeline.storage import atomic, records
from pipeline.storage.embeddings.reader import SCHEMA, read_embeddings
from pipeline.storage.protocol import PartEntry, Protocol, write_protocol

from ...builders import make_run  # noqa: TID252  (no package has the tests)


def test_the_margin_is_that_of_the_readable_test_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "run", n=900, bad=(12, 13))
    rows = read_embeddings(run / "embeddings.h5")
    test = (rows.split == 2) & (rows.status == 0)
    group = np.unique(np.array(rows.group)[test], return_inverse=True)[1]
    expected = summarise_margins(robustness_margins(rows.features[test], rows.label[test], group))
    assert test.sum() == 178
    assert read_margin(run, seed=0) == expected
    monkeypatch.setattr(margin, "MOST_ROWS", 150)
    sampled = read_margin(run, seed=0)
    assert isinstance(sampled, RobustnessMargin)
    assert (sampled.n, sampled) == (150, read_margin(run, seed=0))
    assert read_margin(run, seed=1) != sampled


def test_without_rows_or_groups_there_is_a_reason(tmp_path: Path) -> None:
    assert read_margin(tmp_path, seed=0) == "no embeddings.h5"
    run = make_run(tmp_path / "run")
    with h5py.File(run / "embeddings.h5", "r+") as file:
        file["group"][:] = b""
    assert read_margin(run, seed=0) == "groups are not known"


def test_a_plan_that_tests_one_group_a_part_has_no_margin_but_a_reason(tmp_path: Path) -> None:
    parts = []
    for fold in range(2):
        part = make_run(tmp_path / "parts" / f"grouped-seed0-fold{fold}", n=300)
        with h5py.File(part / "embeddings.h5", "r+") as file:
            group = file["group"][:]
            group[file["split"][:] == 2] = f"g{fold}".encode()
            file["group"][:] = group
        parts.append(PartEntry(part.name, "grouped", 0, fold, None, "", {}, [f"g{fold}"], {}))
    assert isinstance(read_margin(part, seed=0), str), "one group is in test"
    plan = write_protocol(Protocol(tmp_path, "logo", 2, [0], 0, parts))
    (tmp_path / "manifest.csv").write_text("")
    records.write_record(records.Artifact(tmp_path / "manifest.csv", "manifest/1.0", "prepare"), outputs=[plan])
    assert "one group" in str(read_margin(tmp_path, seed=0))


def test_prices_come_from_the_records(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    artifact = records.Artifact(run / "embeddings.h5", SCHEMA, "extract", {"dtype": "float16"})
    details = {"skipped": {}, "tiles_per_second": 12.5, "views": 8, "engine": "torch", "precision": "fp32"}
    records.write_record(artifact, details=details, device="cpu")
    encoder = {"parameters": 7, "dimension": 6, "gflops": 0.5, "weights": "w.safetensors"}
    model = {"arch": "timm:x", "classes": ["a"], "preprocess": dataclasses.asdict(Preprocess(32)), "encoder": encoder}
    write_model(run, model)
    probe = {"accuracy": 0.5, "chance": 0.2, "balanced_accuracy": 0.4, "chance_balanced": 0.1, "n_tiles": 9}
    heads = {"svm": {"fit_seconds": 2.0, "search_seconds": 1.5}, "majority": {}}
    (run / "heads").mkdir()
    content = {"heads": heads, "source_probe": probe | {"n_groups": 3}}
    atomic.write_text(run / "heads" / "heads.json", atomic.to_json(content))
    price = read_price(run)
    assert isinstance(price.probe, SourceProbe)
    assert price.fit_seconds == {"svm": 3.5}
    assert numbers(price, RobustnessMargin(0.1, -0.2, 0.3, 8, 10)) == {
        "tile_px": 32,
        "parameters": 7,
        "dimension": 6,
        "bytes_per_tile": 12,
        "gflops": 4,
        "tiles_per_second": 12.5,
        "train_seconds": 0,
        "source_probe_accuracy": 0.5,
        "source_probe_chance": 0.2,
        "margin_median": 0.1,
        "margin_tail_mean": -0.2,
        "margin_share_negative": 0.3,
        "margin_support": 0.8,
    }
    assert numbers(Price(), "no embeddings.h5") == {}
    (run / "history.csv").write_text("epoch,seconds\n1,2\n")
    damages = {
        "heads/heads.json": "[]",
        "history.csv": "epoch,time\n1,2\n",
        "model.json": "{}",
        "embeddings.h5.json": "{",
    }
    for name, content in damages.items():
        whole = (run / name).read_bytes()
        (run / name).write_text(content)
        with pytest.raises(BadArtifact, match=re.escape(name)):
            read_price(run)
        (run / name).write_bytes(whole)
    write_model(run, model | {"encoder": {"parameters": "many"}})
    with pytest.raises(BadArtifact, match=r"model\.json: its encoder"):
        read_price(run)


def write_model(run: Path, model: dict) -> None:
    """Write a description of a network with its record."""
    path = run / "model.safetensors"
    path.write_bytes(b"weights")
    atomic.write_text(run / "model.json", atomic.to_json(model))
    records.write_record(records.Artifact(path, "model/1.0", "extract"), outputs=[run / "model.json"])
