"""Order, bad tiles, dead workers, and the arithmetic between pixels and the network."""

import multiprocessing
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import normalize

from pipeline.errors import PipelineError, WorkerLost
from pipeline.network import batches, shared_memory
from pipeline.network.batches import load_batches, normalise
from pipeline.network.preprocess import Preprocess
from pipeline.network.tile_files import CHANGED_PIXELS, TileFiles
from pipeline.tiles.decoding import pixel_hash


@pytest.fixture
def tiles(tmp_path: Path) -> TileFiles:
    """Twelve tiles of 16 px, row i all of grey value 10 * i."""
    names, hashes = [], []
    for i in range(12):
        pixels = np.full((16, 16, 3), 10 * i, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i:02d}.png")
        names.append(f"{i:02d}.png")
        hashes.append(pixel_hash(pixels).hex())
    return TileFiles(tmp_path, names, hashes, Preprocess(16))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_the_asked_order(tiles: TileFiles, workers: int) -> None:
    asked = [[3, 1], [11, 0, 7], [5]]
    got = list(load_batches(tiles, asked, workers=workers))
    assert [batch.rows for batch in got] == asked
    for batch in got:
        assert batch.pixels.dtype == torch.uint8
        assert batch.pixels.is_contiguous(memory_format=torch.channels_last)
        assert batch.pixels[:, 0, 0, 0].tolist() == [10 * row for row in batch.rows]
        assert [digest.tobytes().hex() for digest in batch.sha256] == [tiles.sha256[row] for row in batch.rows]
        assert batch.problems == [""] * len(batch.rows)


@pytest.mark.fault("odd sizes and numbers of tiles")
def test_no_batches() -> None:
    assert list(load_batches(TileFiles(Path(), [], [], Preprocess(16)), [], workers=0)) == []


@pytest.mark.fault("odd sizes and numbers of tiles")
def test_tiles_are_resized(tiles: TileFiles) -> None:
    tiles.preprocess = Preprocess(8)
    (batch,) = load_batches(tiles, [[2, 4]], workers=0)
    assert batch.pixels.shape == (2, 3, 8, 8)
    assert batch.pixels[1].unique().tolist() == [40]


@pytest.mark.fault("tile that changed after the manifest was made")
@pytest.mark.parametrize("workers", [0, 2])
def test_bad_tiles_become_problems(tiles: TileFiles, workers: int) -> None:
    """P4."""
    (tiles.root / "01.png").write_text("no image")
    (tiles.root / "02.png").unlink()
    Image.new("RGB", (16, 16), (1, 2, 3)).save(tiles.root / "03.png")
    tiles.sha256[4] = ""
    (batch,) = load_batches(tiles, [[0, 1, 2, 3, 4, 5]], workers=workers)
    good, garbage, absent, changed, known, last = batch.problems
    assert good == last == ""
    assert "01.png: not a readable" in garbage
    assert "02.png: not there" in absent
    assert changed.endswith(CHANGED_PIXELS)
    assert "03.png" in changed
    assert "04.png: unreadable when" in known
    assert not batch.pixels[1:5].any()
    assert not batch.sha256[1:5].any()
    assert batch.pixels[5].unique().tolist() == [50]


class Deadly(TileFiles):
    """Kills the worker that comes to row 4."""

    def __getitem__(self, row: int) -> tuple[int, np.ndarray, np.ndarray, str]:
        if row == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(row)


@pytest.mark.fault("kill -9 of a process that decodes tiles")
def test_a_killed_worker_is_one_line(tiles: TileFiles) -> None:
    deadly = Deadly(tiles.root, tiles.paths, tiles.sha256, Preprocess(16))
    with pytest.raises(WorkerLost, match="--workers 0") as caught:
        list(load_batches(deadly, [[row] for row in range(12)], workers=1))
    assert "\n" not in str(caught.value)


class Signalled(TileFiles):
    """Sends the worker SIGTERM at row 4, as a batch system does to all processes of a job."""

    def __getitem__(self, row: int) -> tuple[int, np.ndarray, np.ndarray, str]:
        if row == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().__getitem__(row)


def test_a_worker_leaves_the_first_sigterm_to_its_parent(tiles: TileFiles) -> None:
    signalled = Signalled(tiles.root, tiles.paths, tiles.sha256, Preprocess(16))
    got = [batch.rows[0] for batch in load_batches(signalled, [[row] for row in range(12)], workers=1)]
    assert got == list(range(12))


class Hung(TileFiles):
    """Delivers late."""

    def __getitem__(self, row: int) -> tuple[int, np.ndarray, np.ndarray, str]:
        time.sleep(3)
        return super().__getitem__(row)


@pytest.mark.fault("a process that decodes tiles hangs")
def test_a_hung_worker_is_one_line(tiles: TileFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "STALLED_S", 1)
    hung = Hung(tiles.root, tiles.paths, tiles.sha256, Preprocess(16))
    with pytest.raises(WorkerLost, match="timed out"):
        list(load_batches(hung, [[0]], workers=1))


class DeadlyOnWord(TileFiles):
    """Kills the worker at row 4, once the file `go` is there."""

    def __getitem__(self, row: int) -> tuple[int, np.ndarray, np.ndarray, str]:
        if row == 4:
            while not (self.root / "go").exists():
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(row)


@pytest.mark.fault("kill -9 of a process that decodes tiles")
def test_a_death_waits_until_the_caller_asks_for_more(tiles: TileFiles) -> None:
    """Otherwise torch raises in the midst of an optimizer's step, and what is saved then is torn."""
    deadly = DeadlyOnWord(tiles.root, tiles.paths, tiles.sha256, Preprocess(16))
    loaded = load_batches(deadly, [[row] for row in range(12)], workers=1)
    others = multiprocessing.active_children()
    next(loaded)
    (worker,) = set(multiprocessing.active_children()) - set(others)
    (tiles.root / "go").touch()
    assert worker.pid is not None
    ended = os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)  # SIGCHLD comes here
    assert ended is not None
    assert ended.si_status == signal.SIGKILL
    with pytest.raises(WorkerLost):
        list(loaded)


@pytest.mark.fault("kill -9 of a process that decodes tiles")
def test_loading_goes_on_after_a_worker_was_lost(tiles: TileFiles) -> None:
    with pytest.raises(WorkerLost):
        list(load_batches(Deadly(tiles.root, tiles.paths, tiles.sha256, Preprocess(16)), [[4]], workers=1))
    assert [batch.rows for batch in load_batches(tiles, [[4], [5]], workers=1)] == [[4], [5]]


class Buggy(TileFiles):
    """Raises what no worker's end raises."""

    def __getitem__(self, row: int) -> tuple[int, np.ndarray, np.ndarray, str]:
        raise RuntimeError("a bug")


@pytest.mark.fault("a decoder that raises anything")
def test_a_bug_is_not_taken_for_a_dead_worker(tiles: TileFiles) -> None:
    with pytest.raises(RuntimeError, match="a bug"):
        list(load_batches(Buggy(tiles.root, tiles.paths, tiles.sha256, Preprocess(16)), [[0]], workers=0))


def test_normalise_is_torchvisions() -> None:
    pixels = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = normalize(pixels.float() / 255, list(mean), list(std))
    got = normalise(pixels, mean=mean, std=std)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


# -- shared memory -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shares", [False, True])
def test_tiles_are_the_same_by_pipe_and_by_shared_memory(
    tiles: TileFiles, monkeypatch: pytest.MonkeyPatch, shares: bool
) -> None:
    needed: list[int] = []
    monkeypatch.setattr(batches, "has_room", lambda n: needed.append(n) or shares)
    sent = [batch.pixels.is_shared() for batch in load_batches(tiles, [[3, 1], [5]], workers=1)]
    assert sent == [shares] * 2
    (batch,) = load_batches(tiles, [[3, 1]], workers=1)
    assert batch.pixels.is_contiguous(memory_format=torch.channels_last)
    assert batch.pixels[:, 0, 0, 0].tolist() == [30, 10]
    assert needed == [2 * 16 * 16 * 3 * 5] * 2


@pytest.mark.parametrize(("free", "room"), [(400, True), (399, False)])
def test_shared_memory_must_hold_twice_the_batches(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], free: int, room: bool
) -> None:
    monkeypatch.setattr(shared_memory.shutil, "disk_usage", lambda _: SimpleNamespace(free=free * 10**6))
    shared_memory._report.cache_clear()
    assert [shared_memory.has_room(200 * 10**6) for _ in range(2)] == [room] * 2
    assert capsys.readouterr().err.count(f"has {free} MB free, 400 MB are needed") == (0 if room else 1)


def test_a_long_path_of_the_temporary_folder_leaves_pipes(
    tiles: TileFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The path of a socket has at most 107 bytes on Linux: workers would wait for ever."""
    folder = tmp_path / ("n" * 80)
    folder.mkdir()
    monkeypatch.setattr(shared_memory.tempfile, "tempdir", str(folder))
    monkeypatch.setattr(shared_memory.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**12))
    shared_memory._report.cache_clear()
    whole = [batch.pixels.numpy() for batch in load_batches(tiles, [[0, 1], [2, 3]], workers=1)]
    assert sum(map(len, whole)) == 4
    assert capsys.readouterr().err.count("TMPDIR: at most 75") == 1


def test_full_shared_memory_is_one_line(tiles: TileFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory.shutil, "disk_usage", lambda _: SimpleNamespace(free=4096))
    with pytest.raises(PipelineError, match=r"/dev/shm.*--shm-size 1g, or give --workers 0"):
        list(load_batches(tiles, [[3, 1]], workers=1))
    assert len(list(load_batches(tiles, [[3, 1]], workers=0))) == 1


def test_a_system_without_that_folder_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "SHARED_MEMORY", Path("/not there"))
    assert shared_memory.has_room(10**15)
