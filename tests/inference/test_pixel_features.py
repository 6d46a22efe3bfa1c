"""Heads on colours and texture predict new tiles and slides as they predicted the tiles of the run."""

import dataclasses
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from pipeline import baselines, fit_heads, predict, robustness, verify
from pipeline.errors import BadInput, StaleInput
from pipeline.inference import pixel_features
from pipeline.inference import tiles as inference
from pipeline.inference.pixel_features import describe_slide, pixel_preprocess, tile_side, why_no_description
from pipeline.names import COLOUR_AND_TEXTURE
from pipeline.storage import atomic, records
from pipeline.storage.embeddings.reader import read_embeddings
from pipeline.storage.predictions.corrupted import blocks, read_robustness
from pipeline.storage.predictions.csv_table import read_predictions
from pipeline.storage.predictions.unlabelled import read_predictions as read_tiles
from pipeline.tiles.corruptions import CORRUPTIONS, Corruption
from pipeline.tiles.manifest import read_manifest
from pipeline.tiles.stain_normalisation import REFERENCE

COMMON = ["--device", "cpu", "--threads", "1", "--workers", "0"]
OF_PIXELS = (*COLOUR_AND_TEXTURE, "baseline_mean", "untrained_svm")


@pytest.fixture(scope="module")
def base(fitted_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small trained run with baselines and fused heads; copied, never changed."""
    folder = tmp_path_factory.mktemp("pixels") / "base"
    shutil.copytree(fitted_base, folder)
    run = ["--run", str(folder / "run"), *COMMON]
    assert baselines.main([*run, "--baseline-px", "16"]) == 0
    assert fit_heads.main([*run, "--rounds", "4", "--heads", "svm", "fused_svm", "fused_xgboost"]) == 0
    return folder


@pytest.fixture
def run(base: Path, tmp_path: Path) -> Path:
    """This test's own copy of the run; its tiles are in `../tiles`."""
    shutil.copytree(base, tmp_path / "base")
    return tmp_path / "base" / "run"


def put(run: Path, *words: str | Path) -> int:
    return predict.main(["--run", str(run), *COMMON, *map(str, words)])


def one_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, text
    return lines[0]


def same(found: pd.DataFrame, known: pd.DataFrame, names: list[str]) -> None:
    """Check that rows of a prediction are those of tiles of the run."""
    theirs = known.set_index("tile_id").loc[names]
    assert list(found["predicted"]) == list(theirs["predicted"])
    np.testing.assert_allclose(found[["p_ADI", "p_TUM"]], theirs[["p_ADI", "p_TUM"]], atol=1e-4)


@pytest.mark.parametrize("head", [*OF_PIXELS, "fused_svm", "fused_mean", "linear"])
def test_a_folder_of_tiles(run: Path, tmp_path: Path, head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of the run get their predictions; a baseline on pixels runs no trained network."""
    if head in OF_PIXELS:
        monkeypatch.delattr(inference, "embed_batches")
    assert put(run, "--tiles", run.parent / "tiles", "--out", tmp_path / "out", "--head", head) == 0
    known = read_predictions(run / "predictions.csv")
    found = read_tiles(tmp_path / "out" / "predictions.csv")
    assert set(found["head"]) == {head}
    same(found, known[known["head"] == head], [name.removesuffix(".png") for name in found["tile_id"]])


def test_a_tile_that_cannot_be_read_is_left_out(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tiles := tmp_path / "new").mkdir()
    for path in sorted((run.parent / "tiles").rglob("*.png"))[:5]:
        shutil.copy(path, tiles)
    (tiles / "torn.png").write_bytes(b"torn")
    words = ("--tiles", tiles, "--out", tmp_path / "out", "--head", "histogram_svm")
    assert put(run, *words) == 1
    assert "1 of 6 tiles or more cannot be used" in one_line(capfd.readouterr().err)
    assert put(run, *words, "--max-bad", "0.2") == 3
    assert len(read_tiles(tmp_path / "out" / "predictions.csv")) == 5


@pytest.fixture
def slide(run: Path, embedded_slide: Callable[..., Path]) -> tuple[Path, list[str]]:
    """Embeddings of a slide that is made of tiles of the run, and these tiles; the sixth cannot be read."""
    manifest = read_embeddings(run / "embeddings.h5")
    names = [manifest.tile_id[7 * i % len(manifest.tile_id)] for i in range(12)]
    mosaic = np.full((400, 400, 3), 255, np.uint8)
    for i, name in enumerate(names):
        y, x = 200 + 32 * (i // 4), 100 + 32 * (i % 4)
        with Image.open(run.parent / "tiles" / f"{name}.png") as image:
            mosaic[y : y + 32, x : x + 32] = np.asarray(image)
    path = run.parent / "mosaic.png"
    Image.fromarray(mosaic).save(path)
    facts: dict[str, Any] = {"slide": path.name, "slide_sha256": atomic.sha256_file(path), "tile_px": 32, "lost": (5,)}
    facts |= {"slide_width": 400, "slide_height": 400}
    return embedded_slide(run, run.parent / "mosaic.h5", patch=32, stride=32, **facts), names[:5] + names[6:]


def test_a_slide(run: Path, slide: tuple[Path, list[str]], tmp_path: Path) -> None:
    path, names = slide
    known = read_predictions(run / "predictions.csv")
    for head, workers in (("histogram_handcrafted_svm", "3"), ("fused_xgboost", "0")):
        words = ("--embeddings", path, "--out", tmp_path / head, "--head", head, "--workers", workers)
        assert put(run, *words) == 3  # a tile was lost
        same(read_tiles(tmp_path / head / "predictions.csv"), known[known["head"] == head], names)
    assert put(run, "--embeddings", path, "--out", tmp_path / "all", "--head", "all") == 3
    heads = ["softmax", "svm", "fused_svm", "fused_xgboost", "mean", "fused_mean"]
    assert list(dict.fromkeys(read_tiles(tmp_path / "all" / "predictions.csv")["head"])) == heads


def test_a_slide_that_is_gone_or_changed(
    run: Path, slide: tuple[Path, list[str]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ("--embeddings", slide[0], "--out", tmp_path / "out")
    (run.parent / "mosaic.png").write_bytes(b"another")
    assert put(run, *words, "--head", "svm") == 3, "it needs the embeddings only"
    capfd.readouterr()
    assert put(run, *words, "--head", "fused_svm") == 1
    assert "mosaic.png: missing or changed" in one_line(capfd.readouterr().err)
    (run.parent / "mosaic.png").unlink()
    assert put(run, *words, "--head", "all", "--restart") == 3
    messages = capfd.readouterr().err
    assert "fused_svm, fused_xgboost, fused_mean are left out: " in messages
    assert "mosaic.png is missing" in messages
    assert set(read_tiles(tmp_path / "out" / "predictions.csv")["head"]) == {"softmax", "svm", "mean"}


def test_a_slide_that_cannot_be_read_again(run: Path, slide: tuple[Path, list[str]]) -> None:
    """Its tiles are read at another size than by `extract`, perhaps from a damaged level."""
    path = run.parent / "mosaic.png"
    path.write_bytes(path.read_bytes()[:-20_000])
    made = atomic.sha256_file(path)
    slide_info = read_embeddings(slide[0], with_features=False)
    assert slide_info.slide is not None
    content = dataclasses.replace(slide_info, slide=dataclasses.replace(slide_info.slide, slide_sha256=made))
    saved: Any = SimpleNamespace(
        described={"options": {"baseline_px": 16}, "seed": 0, "details": {}}, feature_sets={"handcrafted"}
    )
    manifest = read_manifest(run / "manifest.csv")
    with pytest.raises(BadInput, match="11 of 11 tiles cannot be read for colours and texture: take a head without"):
        describe_slide(saved, content, path, manifest, device=torch.device("cpu"), workers=2)


def test_texture_needs_tiles_of_the_size_of_the_run(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tiles := tmp_path / "large").mkdir()
    for path in sorted((run.parent / "tiles").rglob("*.png"))[:3]:
        with Image.open(path) as image:
            image.resize((48, 48)).save(tiles / path.name)
    for head in ("handcrafted_xgboost", "fused_svm"):
        assert put(run, "--tiles", tiles, "--out", tmp_path / head, "--head", head) == 1
        assert "48x48 px, but the run's tiles have 32x32 px" in one_line(capfd.readouterr().err)
    assert put(run, "--tiles", tiles, "--out", tmp_path / "colours", "--head", "histogram_svm") == 0


def test_tiles_of_several_sizes_have_no_scale_for_a_slide(
    run: Path, slide: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = read_manifest(run / "manifest.csv")
    assert tile_side(manifest) == 32
    assert not why_no_description(run.parent / "mosaic.png", run / "manifest.csv")
    manifest.table.loc[3, "width"] = 40
    assert tile_side(manifest) is None
    monkeypatch.setattr(pixel_features, "read_manifest", lambda _: manifest)
    assert "its tiles have several sizes" in why_no_description(run.parent / "mosaic.png", run / "manifest.csv")
    saved: Any = SimpleNamespace(feature_sets={"handcrafted"}, described={})
    content = read_embeddings(slide[0], with_features=False)
    words: dict[str, Any] = {"device": torch.device("cpu"), "workers": 0}
    with pytest.raises(BadInput, match="its tiles have several sizes"):
        describe_slide(saved, content, run.parent / "mosaic.png", manifest, **words)
    saved = SimpleNamespace(
        feature_sets={"colour_histogram"}, described={"options": {"baseline_px": 16}, "seed": 0, "details": {}}
    )
    found = describe_slide(saved, content, run.parent / "mosaic.png", manifest, **words)
    assert found["colour_histogram"].shape == (11, 512)


def test_saved_baselines_are_not_fitted_again(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    again = ["--run", str(run), *COMMON, "--rounds", "4", "--heads", "svm"]
    capfd.readouterr()
    assert fit_heads.main(again) == 0  # other heads: predictions are made again
    messages = capfd.readouterr().err
    assert not re.search(r"(histogram_svm|linear|untrained_svm) fitted", messages)
    assert "current, " in messages
    assert baselines.main(["--run", str(run), *COMMON, "--baseline-px", "20"]) == 0
    capfd.readouterr()
    assert fit_heads.main(again) == 0
    messages = capfd.readouterr().err
    assert re.search("histogram_svm fitted", messages)
    assert not re.search("(linear|svm|xgboost) fitted", messages.replace("_svm", "").replace("_xgboost", ""))


def test_baselines_without_a_file_are_no_choice(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert put(run, "--tiles", run.parent / "tiles", "--head", "knn") == 2
    assert "--head knn: one of auto, all, softmax" in one_line(capfd.readouterr().err)


def test_fused_heads_and_baselines_next_to_them_on_corrupted_tiles(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles that are not changed have the predictions of predictions.csv; other colours change those of all."""
    monkeypatch.setitem(CORRUPTIONS, "blur", Corruption(lambda pixels: pixels, "nothing"))
    monkeypatch.setitem(CORRUPTIONS, "jpeg", Corruption(lambda pixels: 255 - pixels, "other colours"))
    assert robustness.main(["--run", str(run), *COMMON, "--corruptions", "blur", "jpeg"]) == 0
    table = {(name, head): rows for name, head, rows in blocks(read_robustness(run / "robustness.csv"))}
    heads = {head for _, head in table}
    tested = {"softmax", "svm", "fused_svm", "fused_xgboost", "mean", "fused_mean"}
    assert heads == tested | {*COLOUR_AND_TEXTURE, "baseline_mean"}
    for head in heads:
        one, other, changed = (table[name, head].drop(columns="corruption") for name in ("none", "blur", "jpeg"))
        pd.testing.assert_frame_equal(one, other, rtol=1e-3, atol=1e-5)
        assert not np.allclose(one["p_ADI"], changed["p_ADI"], atol=1e-3), head
    inputs = records.read_record(run / "robustness.csv")["inputs"]
    assert {"heads/fused_svm.skops", "heads/histogram_svm.skops"} <= {*inputs}


def test_verify_knows_the_files_of_baselines(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert verify.main(["--run", str(run)]) == 0
    (run / "heads" / "histogram_svm.skops").write_bytes(b"another")
    capfd.readouterr()
    assert verify.main(["--run", str(run)]) == 1
    assert "histogram_svm.skops" in capfd.readouterr().err


def test_tiles_are_prepared_as_the_record_of_baselines_states() -> None:
    def prepared(**record: Any) -> Any:
        saved: Any = SimpleNamespace(described={"options": {"baseline_px": 24}, "seed": 1, "details": {}} | record)
        return pixel_preprocess(saved)

    assert (prepared().size, prepared().stains) == (24, None)
    assert prepared(details={"normalised": {"sources": 3}}).stains == REFERENCE
    for record in (
        *({"options": {}}, {"options": {"baseline_px": 0}}, {"options": {"baseline_px": True}}),
        *({"options": {"baseline_px": 2_000_000}}, {"seed": None}, {"seed": 2**70}, {"seed": -1}),
    ):
        with pytest.raises(StaleInput, match="has no baseline_px or seed"):
            prepared(**record)
