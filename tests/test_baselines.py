"""Rows are the tiles', whatever the workers; bad tiles are named; a stop leaves no file."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from pipeline import baselines
from pipeline.network.batches import normalise
from pipeline.network.engines.torch_engine import TorchEngine
from pipeline.network.extraction import pixel_features
from pipeline.network.preprocess import Preprocess
from pipeline.network.resnet import build_network, features
from pipeline.storage import records
from pipeline.storage.baseline_features import SCHEMA, Baselines, read_baselines
from pipeline.storage.embeddings.reader import CHANGED, OK, UNREADABLE
from pipeline.tiles.decoding import decode_tile, pixel_hash, resize
from pipeline.tiles.handcrafted_features import HANDCRAFTED_NAMES, colour_histogram, handcrafted_features
from pipeline.tiles.manifest import COLUMNS, Manifest, read_manifest, write_manifest
from pipeline.tiles.stain_normalisation import REFERENCE, Source, SourceColours, fit_sources

N = 12


@pytest.fixture(autouse=True)
def several_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiles stand in three batches, the last of them short."""
    monkeypatch.setattr(pixel_features, "BATCH", 5)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with a manifest as a plan has it: twelve tiles, all of them "test"; tile 0 is 50 x 7 px."""
    rng = np.random.default_rng(5)
    rows = []
    (tmp_path / "tiles").mkdir()
    for i in range(N):
        height, width = (7, 50) if i == 0 else (32, 32)
        pixels = (rng.integers(0, 156, (height, width, 3)) + 8 * i).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "tiles" / f"{i:02d}.png")
        rows.append((f"{i:02d}", f"{i:02d}.png", "AB"[i % 2], "", "test", pixel_hash(pixels).hex(), width, height, ""))
    path = tmp_path / "run" / "manifest.csv"
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    details = {"dataset": "made", "protocol": "random"}
    write_manifest(path, table, root=tmp_path / "tiles", options={}, details=details, outputs=[], seed=0)
    return path.parent


def words(run: Path, *more: str) -> list[str]:
    """Return the command line on small tiles."""
    return ["--run", str(run), *["--device", "cpu", "--threads", "1", "--workers", "0"], *more]


def one_line(text: str) -> str:
    """Return the one line with which a command ended."""
    lines = [line for line in text.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, text
    assert "Traceback" not in text
    return lines[0]


def content(run: Path) -> Baselines:
    """Return the file's content after checking it against its record."""
    records.check_artifact(run / "baselines.h5", schema=SCHEMA)
    return read_baselines(run / "baselines.h5")


def tile(run: Path, row: int) -> Path:
    """Return the file of a row's tile."""
    manifest = read_manifest(run / "manifest.csv")
    return manifest.root / manifest.table["path"][row]


def assert_same(a: Baselines, b: Baselines) -> None:
    """Check that two files hold the same rows."""
    assert a.tile_id == b.tile_id
    np.testing.assert_array_equal(a.status, b.status)
    for name, found in a.features().items():
        np.testing.assert_array_equal(found, b.features()[name])


def test_rows_are_the_tiles_whatever_the_workers(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert baselines.main(words(run)) == 0
    found = content(run)
    manifest = read_manifest(run / "manifest.csv")
    assert found.tile_id == list(manifest.table["tile_id"])
    assert [digest.tobytes().hex() for digest in found.sha256] == list(manifest.table["sha256"])
    assert (found.status == OK).all()
    assert (found.px, found.seed, found.arch, found.names) == (32, 0, "resnet50", list(HANDCRAFTED_NAMES))
    pixels = [decode_tile(tile(run, row)) for row in range(N)]
    np.testing.assert_array_equal(found.colour_histogram, np.stack([colour_histogram(p) for p in pixels]))
    np.testing.assert_array_equal(found.handcrafted, np.stack([handcrafted_features(p) for p in pixels]))
    constants = Preprocess(size=32)
    inputs = torch.from_numpy(np.stack([resize(p, 32) for p in pixels])).permute(0, 3, 1, 2)
    with torch.inference_mode():
        batch = normalise(inputs, mean=constants.mean, std=constants.std)
        expected = features(build_network("resnet50", n_classes=2, seed=0).eval(), batch).numpy()
    np.testing.assert_allclose(found.untrained, expected, rtol=1e-3, atol=1e-3)
    # without batch statistics activations must neither vanish nor run away, or this were no baseline
    assert 0.01 < expected.mean() < 1000
    assert (expected.std(axis=0) > 0.01 * expected.mean(axis=0)).mean() > 0.5

    capsys.readouterr()
    assert baselines.main(words(run)) == 0
    assert "baselines: current" in capsys.readouterr().err
    assert baselines.main([*words(run, "--restart"), "--workers", "3"]) == 0
    assert_same(content(run), found)


@pytest.mark.parametrize(("widths", "side"), [([50, 50, 7], 50), ([224, 224], 150), ([8, 9], 16)])
def test_the_input_side_is_the_median_width_within_bounds(widths: list[int], side: int) -> None:
    table = pd.DataFrame({"width": [*widths, 0], "problem": [""] * len(widths) + ["not readable"]})
    manifest = Manifest(Path(), table, Path(), {})
    assert baselines.input_side(manifest, baselines.BaselinesOptions()) == side
    assert baselines.input_side(manifest, baselines.BaselinesOptions(baseline_px=64)) == 64


def test_bad_tiles_are_marked_and_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """P4."""
    tile(run, 3).write_text("no image")
    tile(run, 7).unlink()
    Image.new("RGB", (32, 32)).save(tile(run, 10))
    assert baselines.main(words(run, "--max-bad", "0.3")) == 3
    found = content(run)
    assert found.status[[3, 7, 10]].tolist() == [UNREADABLE, UNREADABLE, CHANGED]
    assert np.flatnonzero(found.status).tolist() == [3, 7, 10]
    assert not any(values[[3, 7, 10]].any() for values in found.features().values())
    err = capsys.readouterr().err
    assert all(f"skipped {found.tile_id[row]}" in err for row in (3, 7, 10))
    reasons = records.read_record(run / "baselines.h5")["details"]["skipped"]
    assert "not a readable" in reasons[found.tile_id[3]]
    assert "its pixels changed" in reasons[found.tile_id[10]]
    assert baselines.main(words(run, "--max-bad", "0.3")) == 3, "current, but not whole"


def test_too_many_bad_tiles_stop_the_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """P4."""
    tile(run, 3).unlink()
    assert baselines.main(words(run)) == 1
    line = one_line(capsys.readouterr().err)
    assert "above --max-bad 0.01" in line
    assert f"{tile(run, 3)}: not there" in line
    assert not list(run.glob("*baselines.h5*"))


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_leaves_no_file_and_the_next_run_is_whole(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, signum: int
) -> None:
    """P1, P2."""
    start, calls = TorchEngine.start, []

    def interrupted(self: TorchEngine, pixels: torch.Tensor) -> object:
        calls.append(1)
        os.kill(os.getpid(), signum)
        return start(self, pixels)

    with monkeypatch.context() as patch:
        patch.setattr(TorchEngine, "start", interrupted)
        assert baselines.main(words(run)) == 128 + signum
    assert len(calls) == 1, "it stops after the batch in hand"
    assert "run the same command again" in one_line(capsys.readouterr().err)
    assert not list(run.glob("*baselines.h5*"))
    assert baselines.main(words(run)) == 0
    assert (content(run).status == OK).all()


def test_a_damaged_file_is_made_anew_and_another_seed_or_side_is_another_file(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert baselines.main(words(run)) == 0
    before = content(run)
    path = run / "baselines.h5"
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    capsys.readouterr()
    assert baselines.main(words(run)) == 0
    assert "current" not in capsys.readouterr().err
    assert_same(content(run), before)
    assert baselines.main(words(run, "--seed", "1", "--baseline-px", "24")) == 0
    other = content(run)
    assert (other.px, other.seed) == (24, 1)
    np.testing.assert_array_equal(other.handcrafted, before.handcrafted)
    assert not np.allclose(other.untrained, before.untrained)


def test_wrong_use_is_one_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        baselines.main(words(run, "--baseline-px", "many"))
    assert caught.value.code == 2
    capsys.readouterr()
    assert baselines.main(words(run.parent)) == 1
    assert "manifest.csv: not there" in one_line(capsys.readouterr().err)


def test_help_needs_neither_torch_nor_skimage() -> None:
    code = (
        "import sys, pipeline.baselines; print([name for name in ('torch', 'skimage', 'h5py') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]
    )
    assert done.stdout.strip() == "[]"


def test_colours_normalised_by_source(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each group has one map to a fixed target; a source in several splits is refused."""
    manifest = read_manifest(run / "manifest.csv")

    def dealt(protocol: str, group: list[str], split: list[str]) -> pd.DataFrame:
        table = manifest.table.assign(group=group, split=split)
        details = {"dataset": "made", "protocol": protocol}
        write_manifest(manifest.path, table, root=tmp_path / "tiles", options={}, details=details, outputs=[], seed=0)
        return table

    halves = ["train"] * 6 + ["test"] * 6
    for protocol, group in (("random", ["a"] * 6 + ["b"] * 6), ("given", [""] * 12), ("grouped", ["a"] * 12)):
        dealt(protocol, group, halves)
        assert baselines.main(words(run, "--baseline-normalise", "source")) == 2
        assert "several splits" in one_line(capsys.readouterr().err)
    table = dealt("grouped", ["a"] * 6 + ["b"] * 6, halves)
    assert baselines.main(words(run, "--baseline-normalise", "source")) == 0
    pixels = [decode_tile(tile(run, row)) for row in range(N)]
    sources = list(map(Source, table["group"]))
    colours = SourceColours(fit_sources(sources, range(N), lambda row: pixels[row]), REFERENCE)
    found = content(run)
    for row, source in enumerate(sources):
        expected = colours.apply(pixels[row], source)
        np.testing.assert_array_equal(found.colour_histogram[row], colour_histogram(expected))
        np.testing.assert_array_equal(found.handcrafted[row], handcrafted_features(expected))
    record = records.read_record(run / "baselines.h5")
    assert record["details"]["normalised"] == colours.facts
    assert record["options"]["baseline_normalise"] == "source"
