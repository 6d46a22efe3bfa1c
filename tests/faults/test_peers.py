"""What other tools of this field were seen to do, and this one must not.

TRIDENT takes a features file that is there for finished, THUNDER appends the rows of a second run to those of the
first, and readers of slides give an unreadable region back as white pixels.
"""

from pathlib import Path

import numpy as np
import pytest

from pipeline.storage import records
from pipeline.storage.embeddings.reader import UNREADABLE, read_embeddings
from pipeline.storage.predictions.csv_table import read_predictions
from pipeline.tiles.manifest import read_manifest

from .commands import Commands
from .conftest import WORDS, Finished

pytestmark = pytest.mark.slow


@pytest.mark.fault("seen in TRIDENT: a half-written HDF5 file passes for finished")
@pytest.mark.parametrize("record", ["with its record", "without a record"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_p1_a_half_written_hdf5_is_not_finished(
    commands: Commands, finished: Finished, tmp_path: Path, share: float, record: str
) -> None:
    """It is neither taken for current nor read, and extract makes it whole."""
    run = finished.copy(tmp_path, after="extract")
    path = run / "embeddings.h5"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    if record == "without a record":
        records.record_path(path).unlink()
    used = commands.run("fit_heads", WORDS["fit_heads"](run))
    assert used.code == 1
    assert "embeddings.h5" in used.error
    again = commands.run("extract", WORDS["extract"](run))
    assert again.code == 0, again.said
    assert "current" not in again.said
    assert not finished.wrong(run, "extract")


@pytest.mark.fault("seen in THUNDER: a second run doubles the rows")
@pytest.mark.parametrize("how", [[], ["--restart"]], ids=["again", "restart"])
def test_p2_a_second_run_doubles_no_row(commands: Commands, finished: Finished, tmp_path: Path, how: list[str]) -> None:
    run = finished.copy(tmp_path, after="robustness")
    for _ in range(2):
        for stage in ("extract", "baselines", "fit_heads", "robustness"):
            ended = commands.run(stage, [*WORDS[stage](run), *how])
            assert ended.code == 0, ended.said
            assert ("current" in ended.said) == (not how)
    embeddings = read_embeddings(run / "embeddings.h5")
    assert len(embeddings.tile_id) == len(set(embeddings.tile_id)) == 32
    table = read_predictions(run / "predictions.csv")
    assert not table.duplicated(["tile_id", "head"]).any()
    for stage in ("extract", "baselines", "fit_heads", "robustness"):
        assert not finished.wrong(run, stage)


@pytest.mark.fault("seen in slide readers: what cannot be read becomes white")
def test_p4_an_unreadable_tile_is_no_white_tile(commands: Commands, finished: Finished, tmp_path: Path) -> None:
    """It is named, marked, embedded by nothing and predicted by no head, and the exit code says so."""
    run = finished.copy(tmp_path, after="train")
    manifest = read_manifest(run / "manifest.csv")
    row = int(np.flatnonzero(manifest.table["split"] == "train")[3])
    name = manifest.table["tile_id"].iloc[row]
    tile = manifest.root / manifest.table["path"].iloc[row]
    tile.write_bytes(tile.read_bytes()[:500])
    for stage in ("extract", "fit_heads"):
        words = [*WORDS[stage](run), "--max-bad", "0.1"]
        ended = commands.run(stage, words)
        assert ended.code == 3, ended.said
        assert (name in ended.said) == (stage == "extract")
    embeddings = read_embeddings(run / "embeddings.h5")
    whole = read_embeddings(finished.base / "extract" / "embeddings.h5")
    assert np.flatnonzero(embeddings.status).tolist() == [row]
    assert embeddings.status[row] == UNREADABLE
    assert not embeddings.features[row].any()
    others = np.arange(len(embeddings.status)) != row
    np.testing.assert_array_equal(embeddings.features[others], whole.features[others])
    assert name not in set(read_predictions(run / "predictions.csv")["tile_id"])
