"""Tiles for the check are evenly spaced; those for int8 are training tiles and nothing else."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import BadInput
from pipeline.evaluation.folds import evenly_spaced
from pipeline.network.batches import decoded
from pipeline.network.engines.samples import calibration_pixels, fingerprint, sample_pixels
from pipeline.network.preprocess import Preprocess
from pipeline.network.tile_files import TileFiles
from pipeline.tiles.manifest import read_manifest


def test_rows_are_spread_evenly_and_none_is_taken_twice() -> None:
    assert list(evenly_spaced(range(10), 4)) == [0, 3, 6, 9]
    assert list(evenly_spaced([5, 6, 9], 64)) == [5, 6, 9]
    assert list(evenly_spaced([], 4)) == []
    assert len(set(evenly_spaced(range(1000), 64))) == 64


def test_the_sample_leaves_out_what_cannot_be_read(prepared_run: Path) -> None:
    manifest = read_manifest(prepared_run / "manifest.csv")
    hashes = list(manifest.table["sha256"])
    hashes[3] = ""
    (manifest.root / manifest.table["path"][5]).unlink()
    tiles = TileFiles(manifest.root, list(manifest.table["path"]), hashes, Preprocess(16))
    sample = sample_pixels(tiles)
    assert sample.shape == (30, 3, 16, 16)
    kept = [row for row in range(32) if row not in (3, 5)]
    np.testing.assert_array_equal(sample.permute(0, 2, 3, 1).numpy(), np.stack([tiles[row][1] for row in kept]))
    assert decoded(tiles, [3, 5]).shape == (0, 3, 16, 16)


def test_int8_is_calibrated_on_training_tiles_alone(prepared_run: Path) -> None:
    """P7: without the tiles of val and test it comes out the same; a changed training tile changes it."""
    manifest = read_manifest(prepared_run / "manifest.csv")
    table = manifest.table
    train = table[table["split"] == "train"]
    pixels = calibration_pixels(manifest, Preprocess(size=16))
    tiles = TileFiles(manifest.root, list(train["path"]), list(train["sha256"]), Preprocess(16))
    np.testing.assert_array_equal(
        pixels.permute(0, 2, 3, 1).numpy(), np.stack([tiles[row][1] for row in range(len(train))])
    )
    for path in table.loc[table["split"] != "train", "path"]:
        (manifest.root / path).unlink()
    assert fingerprint(calibration_pixels(manifest, Preprocess(size=16))) == fingerprint(pixels)
    (manifest.root / train["path"].iloc[0]).unlink()
    assert fingerprint(calibration_pixels(manifest, Preprocess(size=16))) != fingerprint(pixels)
    for path in train["path"].iloc[1:]:
        (manifest.root / path).unlink()
    with pytest.raises(BadInput, match="no training tile can be read, and --embed-precision int8"):
        calibration_pixels(manifest, Preprocess(size=16))
