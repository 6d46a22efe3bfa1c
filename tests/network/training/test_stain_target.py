"""A network's stain is fitted on its training tiles and goes with it wherever tiles become its input."""

import dataclasses
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from pipeline import extract, fit_heads, predict, report, robustness, train
from pipeline.errors import BadInput
from pipeline.network.batches import TileFiles, normalise
from pipeline.network.distributed import Ranks
from pipeline.network.engines.samples import calibration_pixels
from pipeline.network.extraction.slide_tiles import SlideTiles
from pipeline.network.model_file import load_model
from pipeline.network.preprocess import Preprocess
from pipeline.network.resnet import features
from pipeline.network.training import stain_target
from pipeline.network.training.stain_target import fit_stain
from pipeline.network.training.trainer import Trainer
from pipeline.storage.embeddings.reader import read_embeddings
from pipeline.storage.predictions.corrupted import blocks, read_robustness
from pipeline.storage.predictions.csv_table import read_predictions
from pipeline.storage.predictions.unlabelled import read_predictions as read_tiles
from pipeline.tiles.corruptions import CORRUPTIONS, Corruption
from pipeline.tiles.decoding import decode_tile, pixel_hash, resize
from pipeline.tiles.manifest import read_manifest
from pipeline.tiles.stain_normalisation import Macenko

Words = Callable[..., list[str]]
STAIN = Macenko(((0.55, 0.75, 0.37), (0.2, 0.83, 0.52)), (2.0, 1.2))


def tissue(folder: Path, n: int = 8, px: int = 24) -> list[str]:
    """Write tiles of two stains in amounts of their own; return their names."""
    rng = np.random.default_rng(1)
    folder.mkdir()
    for i in range(n):
        amounts = rng.uniform(0, 1 + i / n, (px, px, 2))
        pixels = 255 * np.exp(-amounts @ np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]]))
        Image.fromarray(np.rint(pixels).astype(np.uint8)).save(folder / f"{i}.png")
    return [f"{i}.png" for i in range(n)]


def split_tiles(run: Path, split: str, size: int, **more: object) -> TileFiles:
    manifest = read_manifest(run / "manifest.csv")
    rows = manifest.readable[manifest.readable["split"] == split]
    return TileFiles(manifest.root, list(rows["path"]), list(rows["sha256"]), Preprocess(size, **more))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def stained(prepared_base: Path, words: Words, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose network's tiles are normalised, after train."""
    base = tmp_path_factory.mktemp("stained") / "base"
    shutil.copytree(prepared_base, base)
    assert train.main(words("train", base / "run", "--stain", "macenko")) == 0
    return base / "run"


def test_the_target_is_that_of_the_training_tiles(stained: Path, prepared_base: Path) -> None:
    """P7."""
    stain = load_model(stained / "model.safetensors").preprocess.stain
    assert stain == fit_stain("macenko", split_tiles(prepared_base / "run", "train", 32), Ranks())
    assert stain != fit_stain("macenko", split_tiles(prepared_base / "run", "test", 32), Ranks())


def test_at_most_some_tiles_are_fitted_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = tissue(tmp_path / "tiles")
    monkeypatch.setattr(stain_target, "N_FITTED", 3)
    some = [names[i] for i in (0, 4, 7)]
    assert fit_stain("reinhard", TileFiles(tmp_path / "tiles", names, None, Preprocess(24)), Ranks()) == fit_stain(
        "reinhard", TileFiles(tmp_path / "tiles", some, None, Preprocess(24)), Ranks()
    )


def test_no_tissue_to_fit_on_is_one_line(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), "white").save(tmp_path / "glass.png")
    with pytest.raises(BadInput, match=r"none of 1 training tiles in .* shows enough stained tissue.*--stain none"):
        fit_stain("macenko", TileFiles(tmp_path, ["glass.png"], None, Preprocess(16)), Ranks())


def test_it_comes_after_the_change_and_the_resizing_and_the_hash_is_the_file_s(tmp_path: Path) -> None:
    (name, *_) = tissue(tmp_path / "tiles")
    change = CORRUPTIONS["colour_shift"].apply
    raw = decode_tile(tmp_path / "tiles" / name)
    tiles = TileFiles(tmp_path / "tiles", [name], None, Preprocess(16, stain=STAIN), change=change)
    _, pixels, digest, problem = tiles[0]
    assert not problem
    assert np.array_equal(pixels, STAIN.apply(resize(change(raw), 16)))
    assert not np.array_equal(pixels, resize(change(raw), 16))
    assert digest.tobytes() == pixel_hash(raw)


def test_tiles_of_slides_are_normalised_and_hashed_as_read(tmp_path: Path) -> None:
    (name, *_) = tissue(tmp_path / "tiles")
    raw = decode_tile(tmp_path / "tiles" / name)

    class Slide:
        path = tmp_path / "slide.svs"

        def read_tile(self, *place: int) -> np.ndarray:
            return raw

    tiles = SlideTiles(Slide(), np.array([[3, 4]]), side=48, preprocess=Preprocess(24, stain=STAIN))  # type: ignore[arg-type]
    _, pixels, digest, problem = tiles[0]
    assert not problem
    assert np.array_equal(pixels, STAIN.apply(raw))
    assert digest.tobytes() == pixel_hash(raw)


def test_int8_is_calibrated_on_normalised_tiles(stained: Path) -> None:
    manifest, seen = read_manifest(stained / "manifest.csv"), load_model(stained / "model.safetensors").preprocess
    assert seen.stain is not None
    raw, got = (
        calibration_pixels(manifest, dataclasses.replace(seen, stain=stain)).permute(0, 2, 3, 1)
        for stain in (None, seen.stain)
    )
    assert np.array_equal(got[0].numpy(), seen.stain.apply(raw[0].numpy()))


@pytest.mark.slow
def test_the_stain_goes_with_the_model(
    stained: Path,
    words: Words,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """P8: embeddings, heads, robustness and new tiles see what the network was trained on; the report says so."""
    shutil.copytree(stained.parent, tmp_path / "base")
    run = tmp_path / "base" / "run"
    assert extract.main(words("extract", run)) == 0
    model, found = load_model(run / "model.safetensors"), read_embeddings(run / "embeddings.h5")
    stain = model.preprocess.stain
    assert stain is not None
    assert found.attrs["preprocess"]["stain"]["method"] == "macenko"
    root = read_manifest(run / "manifest.csv").root
    seen = np.stack([stain.apply(decode_tile(root / path)) for path in found.path])
    x = normalise(torch.from_numpy(seen).permute(0, 3, 1, 2), mean=model.preprocess.mean, std=model.preprocess.std)
    with torch.inference_mode():
        np.testing.assert_allclose(found.features, features(model.network, x).numpy(), rtol=1e-3, atol=1e-4)
    assert fit_heads.main(["--run", str(run), "--threads", "1", "--heads", "svm", "--no-baselines"]) == 0
    monkeypatch.setitem(CORRUPTIONS, "blur", Corruption(lambda pixels: pixels, "nothing"))
    small = ["--run", str(run), "--device", "cpu", "--threads", "1", "--workers", "0"]
    assert robustness.main([*small, "--corruptions", "blur"]) == 0
    rows = {(name, head): table for name, head, table in blocks(read_robustness(run / "robustness.csv"))}
    for head in ("softmax", "svm"):
        pd.testing.assert_frame_equal(
            *(rows[name, head].drop(columns="corruption") for name in ("none", "blur")), rtol=1e-4
        )
    assert predict.main([*small, "--tiles", str(root), "--out", str(tmp_path / "new"), "--head", "softmax"]) == 0
    known = read_predictions(run / "predictions.csv").query("head == 'softmax'").set_index("tile_id")
    new = read_tiles(tmp_path / "new" / "predictions.csv")
    ids = new["tile_id"].str.removesuffix(".png")
    np.testing.assert_allclose(new["p_ADI"], known.loc[ids, "p_ADI"], rtol=1e-3, atol=1e-5)
    assert report.main(["--run", str(run), "--draws", "100", "--map", "none"]) == 0
    assert "normalised in stain before the network sees it (Macenko et al. 2009)" in (run / "comparison.md").read_text()
    capsys.readouterr()
    assert train.main(words("train", run)) == 1
    assert "was made with stain='macenko', now 'none'" in capsys.readouterr().err


def test_a_stop_continues_to_the_same_model(
    stained: Path, prepared_run: Path, words: Words, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2: pixels that were normalised once, and again after the stop."""
    step, count = Trainer.step, 0

    def counted(self: Trainer, *batch: object) -> None:
        nonlocal count
        step(self, *batch)  # type: ignore[arg-type]
        count += 1
        if count == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    argv = words("train", prepared_run, "--stain", "macenko")
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", counted)
        assert train.main(argv) == 143
    assert train.main(argv) == 0
    assert (prepared_run / "model.safetensors").read_bytes() == (stained / "model.safetensors").read_bytes()


def test_the_target_s_numbers_are_plain(stained: Path) -> None:
    stain = load_model(stained / "model.safetensors").preprocess.stain
    assert stain is not None
    for stains in dataclasses.asdict(stain)["stains"]:
        assert np.linalg.norm(stains) == pytest.approx(1, abs=1e-5)
