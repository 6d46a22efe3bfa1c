"""Normalisation by source through the commands: every way to read tiles uses it, and interruptions change nothing."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import pipeline.__main__ as pipeline
from pipeline import extract, fit_heads, merge, predict, prepare, report, robustness, train
from pipeline.api import TileEmbedder
from pipeline.errors import BadInput
from pipeline.network import tile_files
from pipeline.network.engines import samples
from pipeline.network.engines.samples import calibration_pixels
from pipeline.network.model_file import load_model
from pipeline.network.tile_files import TileFiles
from pipeline.storage import records
from pipeline.storage.embeddings.partial_rows import PartialRows
from pipeline.storage.embeddings.reader import read_embeddings
from pipeline.storage.predictions.corrupted import read_robustness
from pipeline.storage.predictions.csv_table import read_predictions
from pipeline.tiles import stain_normalisation
from pipeline.tiles.corruptions import CORRUPTIONS
from pipeline.tiles.manifest import read_manifest
from pipeline.tiles.stain_normalisation import Source, SourceColours, SourceFit, fit_sources, mean_stains

Words = Callable[..., list[str]]

STAINS = np.array([[0.65, 0.70, 0.29], [0.27, 0.85, 0.45]])
MACHINE = ("--device", "cpu", "--threads", "1", "--workers", "0")


def write_sources(folder: Path, *, sources: int = 10, per_class: int = 4, px: int = 24) -> Path:
    """Write stained tiles of two classes; each source has another light, and the last one has two tiles only."""
    rng = np.random.default_rng(11)
    for label in ("ADI", "TUM"):
        (folder / label).mkdir(parents=True)
    for source in range(sources):
        light = rng.uniform(0.75, 1, 3)
        for code, label in enumerate(("ADI", "TUM")):
            for i in range(per_class if source < sources - 1 else 1):
                amounts = rng.gamma(2, 0.3, (px, px, 2)) * ([0.4, 1.2] if code == 0 else [1.2, 0.4])
                amounts[rng.random((px, px)) < 0.2] = 0
                pixels = 250 * light * np.exp(-amounts @ STAINS)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / label / f"S{source}_{i:02d}.png")
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, words: Words) -> Path:
    """A folder with `tiles/` and `run/` after train --normalise source and extract; never changed."""
    base = tmp_path_factory.mktemp("normalised")
    write_sources(base / "tiles")
    run = base / "run"
    assert prepare.main(["--run", str(run), "--data", str(base / "tiles"), "--group-regex", r"S(\d)"]) == 0
    assert train.main(words("train", run, "--normalise", "source")) == 0
    assert extract.main(words("extract", run)) == 0
    return base


@pytest.fixture(scope="module")
def fitted(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after fit_heads; never changed."""
    copied = tmp_path_factory.mktemp("fitted") / "base"
    shutil.copytree(base, copied)
    assert fit_heads.main(["--run", str(copied / "run"), "--threads", "1", "--rounds", "4", "--no-baselines"]) == 0
    return copied


@pytest.fixture
def run(base: Path, tmp_path: Path) -> Path:
    """This test's own copy of the run after extract."""
    shutil.copytree(base, tmp_path / "copy")
    return tmp_path / "copy" / "run"


def test_the_model_keeps_the_mean_of_the_training_sources(base: Path) -> None:
    """P7: no pixel of a validation or test tile is in the target."""
    run = base / "run"
    manifest, model = read_manifest(run / "manifest.csv"), load_model(run / "model.safetensors")
    rows = manifest.table[manifest.table["split"] == "train"].reset_index(drop=True)
    tiles = [np.array(Image.open(manifest.root / path)) for path in rows["path"]]
    fits = fit_sources(list(map(Source, rows["group"])), range(len(tiles)), lambda row: tiles[row])
    assert model.preprocess.stains == mean_stains(fits)
    record = records.read_record(run / "model.safetensors")
    assert record["options"]["normalise"] == "source"
    assert record["details"]["normalised"]["sources"] == len(fits)


def test_each_tile_is_normalised_by_its_source(base: Path) -> None:
    run = base / "run"
    manifest, preprocess = read_manifest(run / "manifest.csv"), load_model(run / "model.safetensors").preprocess
    assert preprocess.stains is not None
    tiles = TileFiles.of_table(manifest.root, manifest.table, preprocess).fit_colours()
    test = np.flatnonzero(manifest.table["split"] == "test")
    group = manifest.table["group"].iloc[test[0]]
    own = [i for i in test if manifest.table["group"].iloc[i] == group]
    pixels = [np.array(Image.open(manifest.root / manifest.table["path"].iloc[i])) for i in own]
    fits = fit_sources([Source()] * len(own), range(len(own)), lambda row: pixels[row])
    alone = SourceColours(fits, preprocess.stains)
    for i, own_pixels in zip(own, pixels, strict=True):
        np.testing.assert_array_equal(tiles[int(i)][1], preprocess.apply(alone.apply(own_pixels, Source())))
    np.testing.assert_array_equal(tiles.part(range(3, 9))[2][1], tiles[5][1])
    with pytest.raises(RuntimeError, match="fit_colours"):
        TileFiles.of_table(manifest.root, manifest.table, preprocess)[0]
    train_rows = np.flatnonzero(manifest.table["split"] == "train")
    calibration = calibration_pixels(manifest, preprocess)
    np.testing.assert_array_equal(calibration[0].permute(1, 2, 0).numpy(), tiles[int(train_rows[0])][1])


def test_training_sees_the_tiles_that_extract_embeds(base: Path, monkeypatch: pytest.MonkeyPatch, words: Words) -> None:
    """The network embeds its training tiles as it was trained on them, and reads no test tile."""
    run, seen = base / "run", {}
    plain = tile_files.TileSource.__getitem__

    def spy(self: TileFiles, row: int) -> tile_files.Item:
        item = plain(self, row)
        seen[self.paths[row]] = item[1]
        return item

    again = base.parent / "again" / "run"
    shutil.copytree(run, again)
    shutil.copytree(base / "tiles", again.parent / "tiles")
    with monkeypatch.context() as patch:
        patch.setattr(tile_files.TileSource, "__getitem__", spy)
        assert train.main(words("train", again, "--normalise", "source", "--restart")) == 0
    manifest = read_manifest(run / "manifest.csv")
    tiles = TileFiles.of_table(manifest.root, manifest.table, load_model(run / "model.safetensors").preprocess)
    tiles.fit_colours()
    assert set(seen) == set(manifest.table["path"][manifest.table["split"] != "test"])
    for row, path in enumerate(manifest.table["path"]):
        if path in seen:
            np.testing.assert_array_equal(tiles[row][1], seen[path])
    assert (again / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
    shutil.rmtree(again.parent)


def test_a_source_of_two_tiles_keeps_its_colours(
    base: Path, run: Path, words: Words, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = records.read_record(base / "run" / "embeddings.h5")["details"]["normalised"]
    split = read_manifest(base / "run" / "manifest.csv").table.set_index("group")["split"]["9"].iloc[0]
    assert facts["sources"] == 10
    assert facts["unchanged"] == [f"9 ({split})"]
    capsys.readouterr()
    assert extract.main(words("extract", run, "--restart")) == 0
    assert f"1 of 10 sources keep their colours (fewer than 5 tiles, little tissue, or one stain): 9 ({split})" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("workers", ["0", "2"])
def test_p2_a_stop_continues_to_the_same_rows(
    base: Path, run: Path, words: Words, monkeypatch: pytest.MonkeyPatch, workers: str
) -> None:
    append, count = PartialRows.append, 0

    def counted(self: PartialRows, rows: np.ndarray) -> None:
        nonlocal count
        append(self, rows)
        count += 1
        if count == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    (run / "embeddings.h5").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(PartialRows, "append", counted)
        assert extract.main(words("extract", run)) == 143
    assert extract.main(words("extract", run, "--workers", workers)) == 0
    one, other = (read_embeddings(path / "embeddings.h5") for path in (base / "run", run))
    assert one.attrs["features_sha256"] == other.attrs["features_sha256"]
    assert one.attrs["preprocess"]["stains"] == other.attrs["preprocess"]["stains"]


def test_p2_rows_of_other_maps_are_refused(
    run: Path, words: Words, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A tile that cannot be read any more changes the map of its source, and so the rows that are there."""
    append = PartialRows.append

    def stopped(self: PartialRows, rows: np.ndarray) -> None:
        append(self, rows)
        os.kill(os.getpid(), signal.SIGTERM)

    (run / "embeddings.h5").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(PartialRows, "append", stopped)
        assert extract.main(words("extract", run)) == 143
    manifest = read_manifest(run / "manifest.csv")
    with_stains = manifest.table["path"][manifest.table["group"] != "9"]
    (manifest.root / with_stains.iloc[-1]).write_bytes(b"lost")
    capsys.readouterr()
    assert extract.main(words("extract", run, "--max-bad", "0.2")) == 1
    assert "rows made with another normalised" in capsys.readouterr().err
    assert extract.main(words("extract", run, "--max-bad", "0.2", "--restart")) == 3


def test_shards_have_the_maps_of_all_tiles(base: Path, run: Path, words: Words) -> None:
    for i in (1, 2):
        assert extract.main(words("extract", run, "--shard", f"{i}/2")) == 0
    shards = sorted(map(str, (run / "shards").glob("*.h5")))
    out = run / "merged.h5"
    assert merge.main([*shards, "--manifest", str(run / "manifest.csv"), "--out", str(out)]) == 0
    one, other = read_embeddings(base / "run" / "embeddings.h5"), read_embeddings(out)
    assert one.attrs["features_sha256"] == other.attrs["features_sha256"]


def test_other_options_do_not_replace_a_model(run: Path, words: Words, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(words("train", run)) == 1
    assert "normalise" in capsys.readouterr().err


def test_without_the_switch_nothing_is_written_about_it(trained_run: Path) -> None:
    """Runs of before stay current."""
    record = records.read_record(trained_run / "model.safetensors")
    assert "normalise" not in record["options"]
    assert "normalised" not in record["details"]
    assert "stains" not in json.loads((trained_run / "model.json").read_text())["preprocess"]


def test_robustness_estimates_the_stains_of_changed_tiles(
    fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(fitted, tmp_path / "copy")
    run = tmp_path / "copy" / "run"
    seen: list[TileFiles] = []
    fit_colours = TileFiles.fit_colours

    def spy(self: TileFiles, *args: Any, **kwargs: Any) -> TileFiles:
        seen.append(fit_colours(self, *args, **kwargs))
        return self

    monkeypatch.setattr(TileFiles, "fit_colours", spy)
    assert robustness.main(["--run", str(run), *MACHINE, "--corruptions", "brightness"]) == 0
    manifest = read_manifest(run / "manifest.csv")
    rows = manifest.table[manifest.table["split"] == "test"].reset_index(drop=True)
    pixels = [np.array(Image.open(manifest.root / path)) for path in rows["path"]]
    darker = [CORRUPTIONS["brightness"].apply(tile) for tile in pixels]
    sources = [Source(group, "test") for group in rows["group"]]
    fits = fit_sources(sources, range(len(rows)), lambda row: darker[row])
    assert seen[-1].colours is not None
    assert seen[-1].colours.fits == fits
    colours = SourceColours(fits, seen[-1].colours.target)
    row = int(np.flatnonzero(rows["group"] != "9")[0])
    expected = seen[-1].preprocess.apply(colours.apply(darker[row], sources[row]))
    np.testing.assert_array_equal(seen[-1][row][1], expected)


def test_drawn_tiles_have_the_maps_of_all_tiles(fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the sources of drawn tiles are estimated, on all of their tiles."""
    shutil.copytree(fitted, tmp_path / "copy")
    run, fitted_sources = tmp_path / "copy" / "run", []
    plain = tile_files.fit_sources

    def spy(*args: Any, **kwargs: Any) -> dict[Source, SourceFit]:
        fitted_sources.append(plain(*args, **kwargs))
        return fitted_sources[-1]

    monkeypatch.setattr(tile_files, "fit_sources", spy)
    words = ["--run", str(run), *MACHINE, "--corruptions", "brightness"]
    assert robustness.main(words) == 0
    every = read_robustness(run / "robustness.csv")
    assert robustness.main([*words, "--robustness-tiles", "1", "--workers", "2"]) == 0
    drawn = read_robustness(run / "robustness.csv")
    same = drawn.merge(every, on=["tile_id", "head", "corruption", "predicted"], suffixes=("", "_every"))
    assert len(same) == len(drawn) > 0
    np.testing.assert_allclose(same["p_TUM"], same["p_TUM_every"], atol=1e-6)
    of_all, of_one = fitted_sources
    assert len(of_all) > len(of_one) == 1
    assert of_one.items() <= of_all.items()


def test_calibration_tiles_need_their_own_sources_only(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, model = read_manifest(base / "run" / "manifest.csv"), load_model(base / "run" / "model.safetensors")
    every = calibration_pixels(manifest, model.preprocess)
    seen: list[set[Source]] = []
    plain = tile_files.fit_sources

    def spy(sources: list[Source], rows: list[int], read: Any, **kwargs: Any) -> dict[Source, SourceFit]:
        seen.append({sources[row] for row in rows})
        return plain(sources, rows, read, **kwargs)

    monkeypatch.setattr(tile_files, "fit_sources", spy)
    monkeypatch.setattr(samples, "N_CALIBRATION", 2)
    ends = calibration_pixels(manifest, model.preprocess)
    np.testing.assert_array_equal(ends.numpy(), every[[0, -1]].numpy())
    groups = manifest.table.loc[manifest.table["split"] == "train", "group"]
    assert seen == [{Source(groups.iloc[0], "train"), Source(groups.iloc[-1], "train")}]


def test_p2_a_stop_while_stains_are_estimated(
    base: Path, run: Path, words: Words, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = signal.getsignal(signal.SIGTERM)

    def stopping(pixels: np.ndarray) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        while signal.getsignal(signal.SIGTERM) != handler:  # until the main thread has handled it
            time.sleep(0.001)

    (run / "embeddings.h5").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(stain_normalisation, "estimate_stains", stopping)
        assert extract.main(words("extract", run)) == 143
    assert not (run / "embeddings.h5").exists()
    assert extract.main(words("extract", run, "--workers", "2")) == 0
    one, other = (read_embeddings(path / "embeddings.h5") for path in (base / "run", run))
    assert one.attrs["features_sha256"] == other.attrs["features_sha256"]


def test_a_group_may_be_called_all_tiles(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    preprocess = load_model(base / "run" / "model.safetensors").preprocess
    for group, warned in (("all tiles", False), ("", True)):
        tiles = TileFiles(base, ["x"] * 5, [""] * 5, preprocess, sources=[Source(group, "test")] * 5)
        tiles.colours = SourceColours({Source(group, "test"): SourceFit(5, preprocess.stains)}, preprocess.stains)
        capsys.readouterr()
        tile_files.log_colours("extract", [tiles])
        assert ("have no groups" in capsys.readouterr().err) == warned


def test_a_folder_of_tiles_is_one_source(fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The tiles of a test source, as a folder, get the predictions that they have in the run."""
    run = fitted / "run"
    manifest = read_manifest(run / "manifest.csv")
    rows = manifest.table[(manifest.table["split"] == "test") & (manifest.table["group"] != "9")]
    rows = rows[rows["group"] == rows["group"].iloc[0]]
    folder = tmp_path / "new"
    for path in rows["path"]:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(manifest.root / path, folder / path)
    words = ["--run", str(run), "--tiles", str(folder), "--out", str(tmp_path / "out"), *MACHINE]
    assert predict.main(words) == 0
    assert "count as one source" in capsys.readouterr().err
    new = read_new(tmp_path / "out" / "predictions.csv")
    known = read_predictions(run / "predictions.csv")
    known = known[known["head"] == "softmax"].set_index("tile_id")["p_TUM"]
    for name, p in new.items():
        assert known[name.removesuffix(".png")] == pytest.approx(p, abs=1e-4)
    with pytest.raises(BadInput, match="normalised by source"):
        TileEmbedder(run).fit(["x.png"])


def read_new(path: Path) -> dict[str, float]:
    """Return name -> probability of class TUM by softmax."""
    import pandas as pd

    table = pd.read_csv(path)
    return dict(zip(table["tile_id"], table["p_TUM"], strict=True))


def test_the_report_states_it(fitted: Path, tmp_path: Path) -> None:
    shutil.copytree(fitted, tmp_path / "copy")
    run = tmp_path / "copy" / "run"
    assert report.main(["--run", str(run)]) == 0
    text = (run / "comparison.md").read_text()
    assert "--normalise source" in text
    assert "9 (" in text


def test_tiles_without_groups_are_one_source(
    prepared_run: Path, words: Words, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(words("train", prepared_run, "--normalise", "source")) == 0
    assert "all tiles of a split count as one source" in capsys.readouterr().err


def test_sources_without_stains_are_one_line(tmp_path: Path, words: Words, capsys: pytest.CaptureFixture[str]) -> None:
    for label in ("A", "B"):
        (tmp_path / "tiles" / label).mkdir(parents=True)
        for i in range(12):
            pixels = np.full((24, 24, 3), 200 + i + 20 * (label == "B"), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "tiles" / label / f"S{i % 6}_{i}.png")
    run = tmp_path / "run"
    assert prepare.main(["--run", str(run), "--data", str(tmp_path / "tiles"), "--group-regex", r"S(\d)"]) == 0
    capsys.readouterr()
    assert train.main(words("train", run, "--normalise", "source")) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "--normalise none" in errors[0]


def test_a_frozen_encoder_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--run", str(tmp_path / "run"), "--encoder", "torchvision:resnet50", "--normalise", "source"]
    assert pipeline.main(words) == 2
    assert "--normalise source" in capsys.readouterr().err
