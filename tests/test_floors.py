"""Rows are the tiles', whatever the workers; bad tiles are named; a stop leaves no file; split and labels play no part."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline import floors
from pipeline.network.batches import normalise
from pipeline.network.resnet import build_network, features
from pipeline.storage import records
from pipeline.storage.embeddings import CHANGED, OK, UNREADABLE
from pipeline.storage.floors import SCHEMA, Floors, read_floors
from pipeline.storage.models import Preprocess
from pipeline.tiles.decoding import decode_tile
from pipeline.tiles.handmade import HANDMADE_NAMES, colour_histogram, handmade_features
from pipeline.tiles.manifest import Manifest, read_manifest, write_manifest

N = 32


def words(run: Path, *more: str) -> list[str]:
    """Return the command line on small tiles."""
    return ["--run", str(run), *["--device", "cpu", "--threads", "1", "--workers", "0"], *more]


def one_line(text: str) -> str:
    """Return the one line with which a command ended."""
    lines = [line for line in text.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, text
    assert "Traceback" not in text
    return lines[0]


def content(run: Path) -> Floors:
    """Return the file's content after checking it against its record."""
    records.check_artifact(run / "floors.h5", schema=SCHEMA)
    return read_floors(run / "floors.h5")


def tile(run: Path, row: int) -> Path:
    """Return the file of a row's tile."""
    manifest = read_manifest(run / "manifest.csv")
    return manifest.root / manifest.table["path"][row]


def assert_same(a: Floors, b: Floors) -> None:
    """Check that two files hold the same rows."""
    assert a.tile_id == b.tile_id
    np.testing.assert_array_equal(a.status, b.status)
    for name, found in a.features().items():
        np.testing.assert_array_equal(found, b.features()[name])


def test_rows_are_the_tiles_whatever_the_workers(prepared_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert floors.main(words(prepared_run)) == 0
    found = content(prepared_run)
    manifest = read_manifest(prepared_run / "manifest.csv")
    assert found.tile_id == list(manifest.table["tile_id"])
    assert [digest.tobytes().hex() for digest in found.sha256] == list(manifest.table["sha256"])
    assert (found.status == OK).all()
    assert (found.px, found.seed, found.arch, found.names) == (32, 0, "resnet50", list(HANDMADE_NAMES))
    pixels = [decode_tile(tile(prepared_run, row)) for row in range(N)]
    np.testing.assert_array_equal(found.colour_histogram, np.stack([colour_histogram(p) for p in pixels]))
    np.testing.assert_array_equal(found.handmade, np.stack([handmade_features(p) for p in pixels]))
    constants = Preprocess(size=32)
    batch = normalise(torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2), mean=constants.mean, std=constants.std)
    with torch.inference_mode():
        expected = features(build_network("resnet50", n_classes=2, seed=0).eval(), batch).numpy()
    np.testing.assert_allclose(found.untrained, expected, rtol=1e-3, atol=1e-3)

    capsys.readouterr()
    assert floors.main(words(prepared_run)) == 0
    assert "floors: current" in capsys.readouterr().err
    assert floors.main([*words(prepared_run, "--restart"), "--workers", "3"]) == 0
    assert_same(content(prepared_run), found)


def test_an_untrained_network_tells_tiles_apart(prepared_run: Path) -> None:
    """Without batch statistics its activations must neither vanish nor run away, or the floor would be none."""
    assert floors.main(words(prepared_run)) == 0
    untrained = content(prepared_run).untrained
    assert 0.01 < untrained.mean() < 1000
    spread = untrained.std(axis=0) / (untrained.mean(axis=0) + 1e-6)
    assert (untrained.std(axis=0) > 0).mean() > 0.8
    assert np.median(spread) > 0.01


def test_a_manifest_of_a_plan_and_tiles_of_other_sizes(prepared_run: Path) -> None:
    """A plan's manifest says test of every tile."""
    root = prepared_run.parent / "tiles"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (7, 50, 3), dtype=np.uint8)).save(root / "odd.png")
    manifest = read_manifest(prepared_run / "manifest.csv")
    table = manifest.table.iloc[:4].copy()
    table["split"] = "test"
    table.loc[0, ["path", "width", "height"]] = ["odd.png", 50, 7]
    table.loc[0, "sha256"] = floors_hash(root / "odd.png")
    plan = prepared_run.parent / "plan"
    write_manifest(plan / "manifest.csv", table, root=root, options={}, details={"dataset": "made"}, outputs=[], seed=0)
    assert floors.main(words(plan, "--floor-px", "16", "--seed", "4")) == 0
    found = content(plan)
    assert (found.status == OK).all()
    assert (found.px, found.seed) == (16, 4)
    np.testing.assert_array_equal(found.handmade[0], handmade_features(decode_tile(root / "odd.png")))


def floors_hash(path: Path) -> str:
    """Return the hash of a tile's pixels as the manifest holds it."""
    from pipeline.tiles.decoding import pixel_hash

    return pixel_hash(decode_tile(path)).hex()


@pytest.mark.parametrize(("widths", "side"), [([50, 50, 7], 50), ([224, 224], 150), ([8, 9], 16)])
def test_the_input_side_is_the_median_width_within_bounds(widths: list[int], side: int) -> None:
    import pandas as pd

    manifest = Manifest(
        Path(), pd.DataFrame({"width": [*widths, 0], "problem": [""] * len(widths) + ["bad"]}), Path(), {}
    )
    assert floors.input_side(manifest, floors.FloorsOptions()) == side
    assert floors.input_side(manifest, floors.FloorsOptions(floor_px=64)) == 64


def test_bad_tiles_are_marked_and_named(prepared_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """P4."""
    tile(prepared_run, 3).write_text("no image")
    tile(prepared_run, 9).unlink()
    Image.new("RGB", (32, 32)).save(tile(prepared_run, 20))
    assert floors.main(words(prepared_run, "--max-bad", "0.1")) == 3
    found = content(prepared_run)
    assert found.status[[3, 9, 20]].tolist() == [UNREADABLE, UNREADABLE, CHANGED]
    assert np.flatnonzero(found.status).tolist() == [3, 9, 20]
    assert not any(values[[3, 9, 20]].any() for values in found.features().values())
    err = capsys.readouterr().err
    assert all(f"skipped {found.tile_id[row]}" in err for row in (3, 9, 20))
    reasons = records.read_record(prepared_run / "floors.h5")["details"]["skipped"]
    assert "not a readable" in reasons[found.tile_id[3]]
    assert "its pixels changed" in reasons[found.tile_id[20]]
    assert floors.main(words(prepared_run, "--max-bad", "0.1")) == 3, "current, but not whole"


def test_too_many_bad_tiles_stop_the_run(prepared_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """P4."""
    tile(prepared_run, 3).unlink()
    assert floors.main(words(prepared_run)) == 1
    line = one_line(capsys.readouterr().err)
    assert "above --max-bad 0.01" in line
    assert f"{tile(prepared_run, 3)}: not there" in line
    assert not list(prepared_run.glob("*floors.h5*"))


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_leaves_no_file_and_the_next_run_is_whole(
    prepared_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, signum: int
) -> None:
    """P1, P2."""
    look, calls = floors.look, []

    def interrupted(*given: object) -> np.ndarray:
        calls.append(1)
        os.kill(os.getpid(), signum)
        return look(*given)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(floors, "look", interrupted)
        assert floors.main(words(prepared_run)) == 128 + signum
    assert len(calls) == 1, "it stops after the batch in hand"
    assert "run the same command again" in one_line(capsys.readouterr().err)
    assert not list(prepared_run.glob("*floors.h5*"))
    assert floors.main(words(prepared_run)) == 0
    assert (content(prepared_run).status == OK).all()


def test_a_damaged_file_is_made_anew(prepared_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert floors.main(words(prepared_run)) == 0
    before = content(prepared_run)
    path = prepared_run / "floors.h5"
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    capsys.readouterr()
    assert floors.main(words(prepared_run)) == 0
    assert "current" not in capsys.readouterr().err
    assert_same(content(prepared_run), before)


def test_another_seed_or_side_is_another_file(prepared_run: Path) -> None:
    assert floors.main(words(prepared_run)) == 0
    before = content(prepared_run)
    assert floors.main(words(prepared_run, "--seed", "1")) == 0
    other = content(prepared_run)
    np.testing.assert_array_equal(other.handmade, before.handmade)
    assert not np.allclose(other.untrained, before.untrained)
    assert floors.main(words(prepared_run, "--floor-px", "24")) == 0
    assert content(prepared_run).px == 24


def test_wrong_use_is_one_line(prepared_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        floors.main(words(prepared_run, "--floor-px", "many"))
    assert caught.value.code == 2
    capsys.readouterr()
    assert floors.main(words(prepared_run.parent)) == 1
    assert "manifest.csv: not there" in one_line(capsys.readouterr().err)


def test_help_needs_neither_torch_nor_skimage() -> None:
    code = "import sys, pipeline.floors; print([name for name in ('torch', 'skimage', 'h5py') if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]
    )
    assert done.stdout.strip() == "[]"
