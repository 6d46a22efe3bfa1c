"""robustness as a command: the same changed pixels for all heads, the heads that stand in the run, what is refused."""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline import extract, fit_heads, robustness, train
from pipeline.heads.svm.classifier import Svm
from pipeline.inference.saved_heads import SavedHeads
from pipeline.network.batches import normalise
from pipeline.network.model_file import Model, load_model
from pipeline.network.preprocess import Preprocess
from pipeline.network.tile_files import TileFiles
from pipeline.storage import atomic, records
from pipeline.storage.predictions.corrupted import blocks, read_robustness
from pipeline.storage.predictions.csv_table import read_predictions
from pipeline.storage.protocol import PartEntry, Protocol, write_protocol
from pipeline.tiles.corruptions import CORRUPTIONS, Corruption
from pipeline.tiles.decoding import decode_tile, pixel_hash, resize
from pipeline.tiles.manifest import read_manifest

Words = Callable[..., list[str]]
HEADS = ["softmax", "svm", "xgboost", "mean"]
ANSWER = ["tile_id", "group", "label", "head", "corruption", "predicted"]


def put(run: Path, *words: str) -> int:
    return robustness.main(["--run", str(run), "--device", "cpu", "--threads", "1", "--workers", "0", *words])


def one_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, text
    assert "Traceback" not in text
    return lines[0]


def rows_tested(run: Path) -> pd.DataFrame:
    table = read_predictions(run / "predictions.csv")
    return table[(table["split"] == "test") & table["head"].isin(HEADS)].reset_index(drop=True)


def named(run: Path, corruption: str) -> dict[str, list[str]]:
    table = read_robustness(run / "robustness.csv")
    return {head: list(rows["predicted"]) for name, head, rows in blocks(table) if name == corruption}


def test_every_head_answers_under_every_corruption(fitted_run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert put(fitted_run) == 0
    table = read_robustness(fitted_run / "robustness.csv")
    assert list(dict.fromkeys(table["corruption"])) == ["none", *CORRUPTIONS]
    assert list(dict.fromkeys(table["head"])) == HEADS
    clean, rows = rows_tested(fitted_run), table[table["corruption"] == "none"].reset_index(drop=True)
    same = ["tile_id", "group", "label", "head", "predicted", "p_ADI", "p_TUM"]
    pd.testing.assert_frame_equal(rows[same], clean[same])
    p = table[["p_ADI", "p_TUM"]].to_numpy()
    assert (np.array(["ADI", "TUM"])[p.argmax(axis=1)] == table["predicted"]).all()
    record = records.check_artifact(fitted_run / "robustness.csv", schema="robustness/1.0")
    names = ["heads/heads.json", "heads/svm.skops", "heads/xgboost.ubj", "manifest.csv", "model.safetensors"]
    assert sorted(record["inputs"]) == [*names, "predictions.csv"]
    assert record["details"]["skipped"] == {}
    assert record["device"] == "cpu"

    before = (fitted_run / "robustness.csv").read_bytes()
    capfd.readouterr()
    assert put(fitted_run) == 0
    assert "current" in capfd.readouterr().err
    (fitted_run / "robustness.csv").write_bytes(before[:-40])  # damaged: made again, by two workers this time
    assert put(fitted_run, "--workers", "2") == 0
    assert (fitted_run / "robustness.csv").read_bytes() == before
    assert put(fitted_run, "--corruptions", "jpeg", "rotation") == 0
    table = read_robustness(fitted_run / "robustness.csv")
    assert list(dict.fromkeys(table["corruption"])) == ["none", "jpeg", "rotation"]


def test_tiles_that_are_not_changed_get_the_answers_of_predictions_csv(
    fitted_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way through network and heads is that of extract and fit_heads, so that a fall is the corruption's."""
    monkeypatch.setitem(CORRUPTIONS, "blur", Corruption(lambda pixels: pixels, "nothing"))
    assert put(fitted_run, "--corruptions", "blur") == 0
    table = {(name, head): rows for name, head, rows in blocks(read_robustness(fitted_run / "robustness.csv"))}
    for head in HEADS:
        one, other = table["none", head], table["blur", head]
        pd.testing.assert_frame_equal(one.drop(columns="corruption"), other.drop(columns="corruption"), rtol=1e-4)


@pytest.mark.slow
def test_tiles_go_through_the_engine_of_the_embeddings(
    fitted_run: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Another engine's rounding must not look like a corruption's effect; where it is missing, it is told."""
    pytest.importorskip("openvino")
    words = ["--run", str(fitted_run), "--device", "cpu", "--threads", "1", "--workers", "0", "--restart"]
    assert extract.main([*words, "--engine", "openvino", "--embed-precision", "fp32", "--embed-batch", "5"]) == 0
    assert fit_heads.main(["--run", str(fitted_run), "--threads", "1", "--rounds", "4", "--restart"]) == 0
    monkeypatch.setitem(CORRUPTIONS, "blur", Corruption(lambda pixels: pixels, "nothing"))
    capfd.readouterr()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "openvino", None)
        assert put(fitted_run, "--corruptions", "blur") == 1
        assert "pip install 'histoheads[cpu]'" in one_line(capfd.readouterr().err)
    assert put(fitted_run, "--corruptions", "blur") == 0
    details = records.read_record(fitted_run / "robustness.csv")["details"]
    assert (details["engine"], details["precision"]) == ("openvino", "fp32")
    table = {(name, head): rows for name, head, rows in blocks(read_robustness(fitted_run / "robustness.csv"))}
    for head in HEADS:
        one, other = table["none", head], table["blur", head]
        pd.testing.assert_frame_equal(one.drop(columns="corruption"), other.drop(columns="corruption"), rtol=1e-4)


def test_tiles_are_seen_in_as_many_views_as_the_embeddings(fitted_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter turn changes nothing then, and an unchanged tile gets the answers of predictions.csv."""
    words = ["--run", str(fitted_run), "--device", "cpu", "--threads", "1", "--workers", "0", "--restart"]
    words += ["--engine", "torch", "--embed-precision", "fp32", "--embed-batch", "5", "--views", "8"]
    assert extract.main(words) == 0
    assert fit_heads.main(["--run", str(fitted_run), "--threads", "1", "--rounds", "4", "--restart"]) == 0
    monkeypatch.setitem(CORRUPTIONS, "blur", Corruption(lambda pixels: pixels, "nothing"))
    assert put(fitted_run, "--corruptions", "blur", "rotation") == 0
    table = {(name, head): rows for name, head, rows in blocks(read_robustness(fitted_run / "robustness.csv"))}
    for head in HEADS:
        for name in ("blur", "rotation"):
            one, other = table["none", head], table[name, head]
            pd.testing.assert_frame_equal(one.drop(columns="corruption"), other.drop(columns="corruption"), rtol=1e-4)


@pytest.mark.parametrize("views", [0, 2, "8", 8.0, None])
def test_a_record_of_unknown_views_is_refused(
    fitted_run: Path, capfd: pytest.CaptureFixture[str], views: object
) -> None:
    path = fitted_run / "embeddings.h5"
    record = records.read_record(path)
    details = record["details"] | {"views": views}
    inputs = [fitted_run / name for name in record["inputs"]]
    records.write_record(
        records.Artifact(path, record["schema"], "extract", record["options"], inputs), details=details
    )
    assert put(fitted_run) == 1
    assert "no known views" in one_line(capfd.readouterr().err)


def test_embeddings_whose_record_names_no_engine_are_refused(
    fitted_run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = fitted_run / "embeddings.h5"
    record = records.read_record(path)
    run_details = {name: value for name, value in record["details"].items() if name != "batch"}
    inputs = [fitted_run / name for name in record["inputs"]]
    records.write_record(
        records.Artifact(path, record["schema"], "extract", record["options"], inputs), details=run_details
    )
    assert put(fitted_run) == 1
    assert "has no batch from 1 to" in one_line(capfd.readouterr().err)


def test_all_heads_see_the_tiles_own_pixels_changed_before_resizing(
    fitted_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[np.ndarray] = []

    def negative(pixels: np.ndarray) -> np.ndarray:
        seen.append(pixels)
        return 255 - pixels

    monkeypatch.setitem(CORRUPTIONS, "brightness", Corruption(negative, "negative"))
    assert put(fitted_run, "--corruptions", "brightness") == 0
    answers = named(fitted_run, "brightness")
    manifest = read_manifest(fitted_run / "manifest.csv")
    files = manifest.table[manifest.table["split"] == "test"]
    assert len(seen) == len(files)  # once for all heads
    pixels = [decode_tile(manifest.root / path) for path in files["path"]]
    assert all(np.array_equal(a, b) for a, b in zip(seen, pixels, strict=True))
    model = load_model(fitted_run / "model.safetensors")
    stack = torch.from_numpy(np.stack([resize(255 - tile, model.preprocess.size) for tile in pixels]))
    x = normalise(stack.permute(0, 3, 1, 2), mean=model.preprocess.mean, std=model.preprocess.std)
    kept: list[torch.Tensor] = []
    model.network.avgpool.register_forward_hook(lambda module, args, out: kept.append(out.flatten(1)))
    with torch.inference_mode():
        logits = model.network(x)
    assert answers["softmax"] == [model.classes[code] for code in logits.argmax(dim=1)]
    svm = Svm.load(fitted_run / "heads/svm.skops").pipeline
    assert answers["svm"] == [model.classes[code] for code in svm.predict(kept[0].numpy())]


def test_a_drawn_part_of_the_test_rows(fitted_run: Path) -> None:
    """The same tiles for one seed; the answers for a tile do not change with the number of tiles."""
    assert put(fitted_run, "--corruptions", "jpeg") == 0
    all_rows = read_robustness(fitted_run / "robustness.csv")
    drawn = []
    for seed in ("0", "0", "3"):
        assert put(fitted_run, "--corruptions", "jpeg", "--robustness-tiles", "2", "--seed", seed, "--restart") == 0
        part = read_robustness(fitted_run / "robustness.csv")
        assert len(part) == 2 * 2 * len(HEADS)
        merged = part.merge(all_rows, on=ANSWER, how="left", indicator=True)
        assert (merged["_merge"] == "both").all()
        drawn.append(list(part["tile_id"][:2]))
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


def test_stale_and_damaged_inputs_are_refused(fitted_run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def refused(*words: str) -> str:
        assert put(fitted_run, *words) == 1
        assert not (fitted_run / "robustness.csv").exists()
        return one_line(capfd.readouterr().err)

    for name in ("heads/svm.skops", "heads/xgboost.ubj", "heads/heads.json", "model.safetensors", "model.json"):
        path = fitted_run / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        assert path.name in refused()
        assert path.name in refused("--force")
        path.unlink()
        assert path.name in refused()
        path.write_bytes(whole)
    whole = (fitted_run / "embeddings.h5").read_bytes()
    (fitted_run / "embeddings.h5").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "predictions.csv was made from embeddings.h5" in refused()
    (fitted_run / "embeddings.h5").unlink()  # heavy files may be gone: their records stay
    assert put(fitted_run, "--corruptions", "blur") == 0


def test_another_network_than_the_heads_were_given_is_refused(
    fitted_run: Path, words: Words, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train.main(words("train", fitted_run, "--epochs", "1", "--restart")) == 0
    assert put(fitted_run) == 1
    assert "was made from model.safetensors" in one_line(capfd.readouterr().err)
    assert put(fitted_run, "--force") == 1
    assert "was not made by" in one_line(capfd.readouterr().err)


def test_a_tile_that_is_gone_is_left_out_everywhere_and_told(
    fitted_run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    manifest = read_manifest(fitted_run / "manifest.csv")
    gone = manifest.table[manifest.table["split"] == "test"].iloc[1]
    (manifest.root / gone["path"]).unlink()
    assert put(fitted_run) == 1
    assert "above --max-bad 0.01" in one_line(capfd.readouterr().err)
    assert put(fitted_run, "--max-bad", "0.5") == 3
    assert f"skipped {gone['tile_id']}" in capfd.readouterr().err
    assert gone["tile_id"] not in set(read_robustness(fitted_run / "robustness.csv")["tile_id"])
    assert list(records.read_record(fitted_run / "robustness.csv")["details"]["skipped"]) == [gone["tile_id"]]
    assert put(fitted_run, "--max-bad", "0.5") == 3
    assert "current" in capfd.readouterr().err


def test_a_stop_keeps_what_stood_there(
    fitted_run: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert put(fitted_run, "--corruptions", "blur") == 0
    before = (fitted_run / "robustness.csv").read_bytes()
    load = robustness.load_trained

    def stopping(*args: object) -> tuple[Model, SavedHeads]:
        model, saved = load(*args)  # type: ignore[arg-type]
        model.network.register_forward_hook(lambda *_: None)
        model.network.avgpool.register_forward_hook(lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        return model, saved

    monkeypatch.setattr(robustness, "load_trained", stopping)
    assert put(fitted_run) == 143
    assert "SIGTERM" in one_line(capfd.readouterr().err)
    assert (fitted_run / "robustness.csv").read_bytes() == before


def test_of_a_plan_the_main_arm_is_put_under_robustness_and_pooled(
    fitted_run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Two seeds of the main arm; the random-split control's folder holds no network, which nobody asks for."""
    run = tmp_path / "plan"
    (run / "parts").mkdir(parents=True)
    (run / "parts" / "tiles").symlink_to(fitted_run.parent / "tiles")
    plan = Protocol(run, "grouped", 1, [0, 1], 0, [])
    digest = atomic.sha256_file(fitted_run / "manifest.csv")
    for arm, seed in (("grouped", 0), ("grouped", 1), ("random", 0)):
        part = PartEntry(f"{arm}-seed{seed}-fold0", arm, seed, 0, None, digest, {}, [], {})
        plan.parts.append(part)
        shutil.copytree(fitted_run, plan.folder(part))
    (plan.folder(plan.parts[2]) / "model.safetensors").unlink()
    (run / "manifest.csv").write_bytes((fitted_run / "manifest.csv").read_bytes())
    outputs = [write_protocol(plan)]
    records.write_record(records.Artifact(run / "manifest.csv", "manifest/1.0", "prepare"), outputs=outputs, details={})
    assert put(run, "--corruptions", "blur") == 0
    pooled = read_robustness(run / "robustness.csv")
    one = read_robustness(plan.folder(plan.parts[0]) / "robustness.csv")
    assert not (plan.folder(plan.parts[2]) / "robustness.csv").exists()
    for seed in (0, 1):
        rows = pooled[pooled["seed"] == seed].reset_index(drop=True)
        pd.testing.assert_frame_equal(rows[ANSWER], one[ANSWER])
    capfd.readouterr()
    before = (run / "robustness.csv").read_bytes()
    assert put(run, "--corruptions", "blur") == 0
    assert f"current, {run / 'robustness.csv'}" in capfd.readouterr().err
    assert (run / "robustness.csv").read_bytes() == before


@pytest.mark.parametrize("words", [("--robustness-tiles", "0"), ("--corruptions", "jpeg", "jpeg")])
def test_options_out_of_range_are_usage_errors(fitted_base: Path, words: tuple[str, ...]) -> None:
    assert put(fitted_base / "run", *words) == 2


def test_the_command_knows_every_corruption() -> None:
    assert list(get_args(robustness.Name)) == list(CORRUPTIONS)


def test_changed_tiles_keep_the_hash_of_the_file(fitted_base: Path) -> None:
    manifest = read_manifest(fitted_base / "run" / "manifest.csv")
    rows = manifest.table.iloc[:2]
    dark = TileFiles(manifest.root, list(rows["path"]), list(rows["sha256"]), Preprocess(16), change=np.zeros_like)
    _, pixels, digest, problem = dark[1]
    assert problem == ""
    assert not pixels.any()
    assert digest.tobytes() == pixel_hash(decode_tile(manifest.root / rows["path"].iloc[1]))
