"""The files that show the progress of a training: each epoch once, also after a restart of the process."""

import json
import sys
from pathlib import Path

import pytest

from pipeline.errors import BadArtifact, PipelineError
from pipeline.network.training.epoch_log import EVENTS, METRICS, EpochLog

HISTORY = [{"epoch": float(i), "train_loss": 1.0 / i, "val_accuracy": 0.5 + i / 10} for i in (1, 2, 3)]


def test_each_write_holds_every_finished_epoch(tmp_path: Path) -> None:
    log = EpochLog(tmp_path, tensorboard=False)
    for n in (1, 2, 2, 3):
        log.write(HISTORY[:n])
        lines = (tmp_path / METRICS).read_text().splitlines()
        assert [json.loads(line) for line in lines] == HISTORY[:n]
    assert {path.name for path in tmp_path.iterdir()} == {METRICS}


def test_event_files_hold_each_epoch_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = EpochLog(tmp_path, tensorboard=True)
    first.write(HISTORY[:2])  # then the process is killed; the checkpoint holds one epoch
    second = EpochLog(tmp_path, tensorboard=True)
    second.write(HISTORY[:2])
    second.write(HISTORY)
    second.close()
    events = EventAccumulator(str(tmp_path / EVENTS))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"train_loss", "val_accuracy"}
    found = [(event.step, round(event.value, 6)) for event in events.Scalars("train_loss")]
    assert found == [(1, 1.0), (2, 0.5), (3, 0.333333)]


def test_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(PipelineError, match="tensorboard"):
        EpochLog(tmp_path, tensorboard=True)


def test_a_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    """P5."""
    pytest.importorskip("tensorboard")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / EVENTS).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadArtifact):
        EpochLog(tmp_path / "run", tensorboard=True).write(HISTORY)
    assert not list((tmp_path / "elsewhere").iterdir())
