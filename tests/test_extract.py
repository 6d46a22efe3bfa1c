"""Rows do not depend on workers, stops, kills or neighbours; bad tiles are named; stale inputs are refused."""

import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from pipeline import extract, prepare, train
from pipeline.network.engines.samples import N_SAMPLE_SAME
from pipeline.network.model_file import load_model
from pipeline.storage import atomic, records
from pipeline.storage.embeddings.partial_rows import PartialRows, row_type
from pipeline.storage.embeddings.reader import CHANGED, OK, UNREADABLE, read_embeddings
from pipeline.tiles.manifest import read_manifest

Words = Callable[..., list[str]]

N, BATCH = 32, 5


def one_line(text: str) -> str:
    """Return the one line with which a command ended."""
    lines = [line for line in text.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, text
    assert "Traceback" not in text
    return lines[0]


def features_sha256(run: Path) -> str:
    """Return the hash of all features, as the file records it."""
    with h5py.File(run / "embeddings.h5") as file:
        return file.attrs["features_sha256"].decode()


@pytest.fixture(scope="session")
def uninterrupted(trained_base: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """features_sha256 of an extraction that nothing stopped."""
    base = tmp_path_factory.mktemp("extracted") / "base"
    shutil.copytree(trained_base, base)
    words = "--embed-batch 5 --embed-precision fp32 --device cpu --threads 1 --workers 0"
    assert extract.main(["--run", str(base / "run"), *words.split()]) == 0
    return features_sha256(base / "run")


def interrupt_after(monkeypatch: pytest.MonkeyPatch, batches: int, signum: int = signal.SIGTERM) -> None:
    """Send this process a signal once `batches` batches are in the scratch."""
    append, count = PartialRows.append, 0

    def counted(self: PartialRows, rows: np.ndarray) -> None:
        nonlocal count
        append(self, rows)
        count += 1
        if count == batches:
            os.kill(os.getpid(), signum)

    monkeypatch.setattr(PartialRows, "append", counted)


@pytest.fixture
def interrupted(trained_run: Path, words: Words) -> Path:
    """A run whose extraction was stopped after three batches."""
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(patch, 3)
        assert extract.main(words("extract", trained_run)) == 143
    return trained_run


def tile(run: Path, row: int) -> Path:
    """Return the file of a row's tile."""
    manifest = read_manifest(run / "manifest.csv")
    return manifest.root / manifest.table["path"][row]


def skipped(run: Path) -> dict[str, str]:
    """Return tile_id -> reason from the record."""
    return dict(records.read_record(run / "embeddings.h5")["details"]["skipped"])


@pytest.mark.fault("another order, batch, number of workers")
@pytest.mark.parametrize("workers", ["0", "2"])
def test_rows_are_the_tiles_whatever_the_workers(
    trained_run: Path, words: Words, uninterrupted: str, workers: str
) -> None:
    assert extract.main(words("extract", trained_run, "--workers", workers)) == 0
    assert features_sha256(trained_run) == uninterrupted
    embeddings = read_embeddings(trained_run / "embeddings.h5")
    table = read_manifest(trained_run / "manifest.csv").table
    assert embeddings.tile_id == list(table["tile_id"])
    assert [embeddings.classes[code] for code in embeddings.label] == list(table["label"])
    assert [("train", "val", "test")[code] for code in embeddings.split] == list(table["split"])
    assert [digest.tobytes().hex() for digest in embeddings.sha256] == list(table["sha256"])
    assert (embeddings.status == OK).all()
    assert embeddings.attrs["model_sha256"] == atomic.sha256_file(trained_run / "model.safetensors")
    assert embeddings.attrs["manifest_sha256"] == atomic.sha256_file(trained_run / "manifest.csv")
    assert sorted(path.name for path in trained_run.glob("embeddings*")) == ["embeddings.h5", "embeddings.h5.json"]


@pytest.mark.parametrize("batch", ["1", "16"])
def test_rows_do_not_depend_on_the_batch_beyond_rounding(trained_run: Path, words: Words, batch: str) -> None:
    files = []
    for size in ("5", batch):
        out = trained_run / f"{size}.h5"
        assert extract.main(words("extract", trained_run, "--embed-batch", size, "--out", str(out))) == 0
        files.append(read_embeddings(out))
    np.testing.assert_allclose(files[0].features, files[1].features, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(files[0].logits, files[1].logits, rtol=1e-3, atol=1e-4)


def test_a_second_run_says_current(trained_run: Path, words: Words, capsys: pytest.CaptureFixture[str]) -> None:
    assert extract.main(words("extract", trained_run)) == 0
    before = (trained_run / "embeddings.h5").read_bytes()
    capsys.readouterr()
    assert extract.main(words("extract", trained_run)) == 0
    assert "extract: current" in capsys.readouterr().err
    assert (trained_run / "embeddings.h5").read_bytes() == before


# -- stops ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batches", [1, 6, 7])
def test_a_stop_continues_to_the_same_rows(
    trained_run: Path,
    words: Words,
    uninterrupted: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    batches: int,
) -> None:
    """P2."""
    with monkeypatch.context() as patch:
        interrupt_after(patch, batches, signal.SIGINT)
        assert extract.main(words("extract", trained_run)) == 130
    assert f"{min(batches * BATCH, N)} of {N} rows are kept" in one_line(capsys.readouterr().err)
    assert not (trained_run / "embeddings.h5").exists()
    assert extract.main(words("extract", trained_run)) == 0
    assert f"continuing after row {min(batches * BATCH, N // BATCH * BATCH)} of {N}" in capsys.readouterr().err
    assert features_sha256(trained_run) == uninterrupted


@pytest.mark.fault("kill -9 of extract, fit_heads and predict at random moments")
@pytest.mark.parametrize("damage", ["mid-row", "garbage", "zeros", "no header"])
def test_a_torn_scratch_recovers(interrupted: Path, words: Words, uninterrupted: str, damage: str) -> None:
    """P2: what a power loss leaves."""
    path = interrupted / "embeddings.h5.partial"
    size = row_type(512, 2).itemsize
    data = bytearray(path.read_bytes())
    assert len(data) == 15 * size
    if damage == "mid-row":
        path.write_bytes(data[: 12 * size + 100])
    elif damage == "garbage":
        data[13 * size :] = os.urandom(2 * size)
        path.write_bytes(data)
    elif damage == "zeros":
        path.write_bytes(data + bytes(3 * size + 7))
    else:
        path.with_name(path.name + ".json").unlink()
    assert extract.main(words("extract", interrupted)) == 0
    assert features_sha256(interrupted) == uninterrupted


def run_process(words: list[str]) -> subprocess.Popen[str]:
    """Start python with some words."""
    return subprocess.Popen(
        [sys.executable, *words],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=Path(__file__).parents[1],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


@pytest.mark.slow
@pytest.mark.fault("kill -9 of extract, fit_heads and predict at random moments")
def test_two_kills_in_the_midst_of_a_row_end_in_the_same_rows(
    trained_run: Path, words: Words, uninterrupted: str, dying_extract: str
) -> None:
    """P2: kill -9, half a batch written."""
    for batches in ("2", "1"):
        process = run_process(["-c", dying_extract, batches, *words("extract", trained_run)])
        _, err = process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL, err
    assert extract.main(words("extract", trained_run)) == 0
    assert features_sha256(trained_run) == uninterrupted


@pytest.mark.fault("kill -9 of a process that decodes tiles")
@pytest.mark.parametrize(
    ("how", "reason"),
    [
        # torch notices the death itself, or its pipe breaks first
        ("killed", "exited unexpectedly|signal: Killed|EOFError|Connection reset"),
        pytest.param("hung", "timed out", marks=pytest.mark.slow),
    ],
)
def test_a_worker_that_dies_or_hangs_is_one_line_and_costs_no_row(
    trained_run: Path,
    words: Words,
    uninterrupted: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    how: str,
    reason: str,
) -> None:
    """P2: the rows before it are kept."""
    from pipeline.network import batches, tile_files

    read = tile_files.TileFiles.__getitem__

    def fail(self: tile_files.TileFiles, row: int) -> tuple[int, np.ndarray, np.ndarray, str]:
        if row == 17 and torch.utils.data.get_worker_info() is not None:
            while (trained_run / "embeddings.h5.partial").stat().st_size < 10 * row_type(512, 2).itemsize:
                time.sleep(0.01)
            if how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)
        return read(self, row)

    with monkeypatch.context() as patch:
        patch.setattr(tile_files.TileFiles, "__getitem__", fail)
        patch.setattr(batches, "STALLED_S", 2)
        assert extract.main(words("extract", trained_run, "--workers", "1")) == 1
    line = one_line(capsys.readouterr().err)
    assert re.search(reason, line)
    assert "--workers 0" in line
    assert not (trained_run / "embeddings.h5").exists()
    for worker in multiprocessing.active_children():
        worker.kill()  # as the end of the process would
        worker.join()
    assert extract.main(words("extract", trained_run, "--workers", "1")) == 0
    assert "continuing after row 1" in capsys.readouterr().err
    assert features_sha256(trained_run) == uninterrupted


@pytest.mark.fault("an input that changed since")
def test_rows_of_another_model_are_refused(interrupted: Path, words: Words, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(words("train", interrupted, "--epochs", "1", "--restart")) == 0
    capsys.readouterr()
    assert extract.main(words("extract", interrupted)) == 1
    assert "rows made with another inputs: pass --restart" in one_line(capsys.readouterr().err)
    assert extract.main(words("extract", interrupted, "--restart")) == 0


# -- engines -------------------------------------------------------------------------------------------------------


@pytest.fixture
def by_openvino(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Let the rule take OpenVINO for few tiles, too."""
    pytest.importorskip("openvino")
    from pipeline.network.engines import select

    monkeypatch.setattr(select, "OPENVINO_TILES", N)
    return monkeypatch


def facts(run: Path) -> dict[str, object]:
    """Return what the record and the file say of the engine; both must agree."""
    details = records.read_record(run / "embeddings.h5")["details"]
    attrs = read_embeddings(run / "embeddings.h5").attrs
    assert (attrs["engine"], attrs["precision"]) == (details["engine"], details["precision"])
    assert ("openvino" in attrs["versions"]) is (details["engine"] == "openvino")
    return {name: details[name] for name in ("engine", "precision", "batch")}


def test_record_and_file_hold_the_engine(trained_run: Path, words: Words, capsys: pytest.CaptureFixture[str]) -> None:
    argv = words("extract", trained_run)
    i = argv.index("--embed-batch")
    assert extract.main([*argv[:i], *argv[i + 2 :], "--engine", "torch"]) == 0
    assert facts(trained_run) == {"engine": "torch", "precision": "fp32", "batch": 16}
    agreement = records.read_record(trained_run / "embeddings.h5")["details"]["agreement"]
    assert agreement["cosine"] > 0.99999
    assert (agreement["changed"], agreement["tiles"]) == (0, N_SAMPLE_SAME)
    assert "extract: torch fp32" in capsys.readouterr().err


def test_eight_views_are_recorded_and_continue_after_a_stop(
    trained_run: Path, words: Words, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2; every split alike, and a row is another than that of one view."""
    one, whole = trained_run / "one.h5", trained_run / "whole.h5"
    assert extract.main(words("extract", trained_run, "--out", str(one))) == 0
    eight = words("extract", trained_run, "--engine", "torch", "--views", "8")
    assert extract.main([*eight, "--out", str(whole)]) == 0
    with monkeypatch.context() as patch:
        interrupt_after(patch, 3)
        assert extract.main(eight) == 143
    capsys.readouterr()
    assert extract.main(words("extract", trained_run, "--engine", "torch")) == 1
    assert "rows made with another views, options" in one_line(capsys.readouterr().err)
    assert extract.main(eight) == 0
    assert "continuing after row" in capsys.readouterr().err
    found, single = read_embeddings(trained_run / "embeddings.h5"), read_embeddings(one)
    assert found.attrs["features_sha256"] == read_embeddings(whole).attrs["features_sha256"]
    assert (found.attrs["views"], single.attrs["views"]) == (8, 1)
    assert records.read_record(trained_run / "embeddings.h5")["details"]["views"] == 8
    assert not np.isclose(found.features, single.features, rtol=1e-3).all(axis=1).any()
    assert extract.main(words("extract", trained_run, "--engine", "torch")) == 1
    assert "was made with views=8, now 1" in one_line(capsys.readouterr().err)


@pytest.mark.slow
def test_an_interrupted_extraction_by_openvino_continues_to_the_same_rows(
    trained_run: Path, words: Words, by_openvino: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """P2: by the rule the same engine continues; another engine is refused."""
    whole = trained_run / "whole.h5"
    assert extract.main(words("extract", trained_run, "--out", str(whole))) == 0
    with by_openvino.context() as patch:
        interrupt_after(patch, 3)
        assert extract.main(words("extract", trained_run)) == 143
    capsys.readouterr()
    with by_openvino.context() as patch:
        patch.setitem(sys.modules, "openvino", None)  # as if it were removed
        assert extract.main(words("extract", trained_run)) == 1
    assert "rows made with another engine" in one_line(capsys.readouterr().err)
    assert extract.main(words("extract", trained_run, "--engine", "torch")) == 1
    assert "rows made with another engine, options" in one_line(capsys.readouterr().err)
    assert extract.main(words("extract", trained_run)) == 0
    assert facts(trained_run) == {"engine": "openvino", "precision": "fp32", "batch": BATCH}
    assert features_sha256(trained_run) == read_embeddings(whole).attrs["features_sha256"]


def test_a_continued_extraction_keeps_its_number_of_threads(
    trained_run: Path, words: Words, uninterrupted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """P2: sums may depend on it."""
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(patch, 3)
        assert extract.main(words("extract", trained_run, "--threads", "2")) == 143
    capsys.readouterr()
    assert extract.main(words("extract", trained_run, "--threads", "1")) == 0
    assert "continuing with 2 threads" in capsys.readouterr().err
    assert records.read_record(trained_run / "embeddings.h5")["details"]["threads"] == 2
    assert features_sha256(trained_run) == uninterrupted


def test_an_engine_that_does_not_agree_needs_force(
    trained_run: Path, words: Words, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipeline.network.engines import check

    monkeypatch.setattr(check, "LEAST_COSINE", 1.1)
    assert extract.main(words("extract", trained_run, "--engine", "torch")) == 1
    assert "fails with cosine 1.00000 to fp32" in one_line(capsys.readouterr().err)
    assert not list(trained_run.glob("embeddings*"))
    assert extract.main(words("extract", trained_run, "--engine", "torch", "--force")) == 0


@pytest.mark.slow
def test_int8_rows_continue_with_the_scales_they_began_with(
    trained_run: Path, words: Words, capsys: pytest.CaptureFixture[str]
) -> None:
    """P2: the scales come from the training tiles; without one of them they would be others."""
    pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    argv = [word if word != "fp32" else "int8" for word in words("extract", trained_run, "--force")]
    argv += ["--max-bad", "0.5"]
    whole = trained_run / "whole.h5"
    assert extract.main([*argv, "--out", str(whole)]) == 0
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(patch, 3)
        assert extract.main(argv) == 143
    table = read_manifest(trained_run / "manifest.csv").table
    lost = tile(trained_run, int(np.flatnonzero(table["split"] == "train")[-1]))
    lost.rename(lost.with_suffix(".away"))
    capsys.readouterr()
    assert extract.main(argv) == 1
    assert "rows made with another calibration" in one_line(capsys.readouterr().err)
    lost.with_suffix(".away").rename(lost)
    assert extract.main(argv) == 0
    assert facts(trained_run) == {"engine": "openvino", "precision": "int8", "batch": BATCH}
    assert features_sha256(trained_run) == read_embeddings(whole).attrs["features_sha256"]


def test_int8_is_for_openvino_alone(trained_run: Path, words: Words, capsys: pytest.CaptureFixture[str]) -> None:
    argv = [word if word != "fp32" else "int8" for word in words("extract", trained_run)]
    assert extract.main([*argv, "--engine", "torch"]) == 2
    assert "only openvino computes in int8" in one_line(capsys.readouterr().err)


@pytest.mark.fault("memory of the GPU full")
def test_a_full_memory_costs_no_row_and_changes_none(
    trained_run: Path, words: Words, uninterrupted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """P2, P6: the batch is never made smaller; the rows before it are kept."""
    from pipeline.network.engines.fold_batchnorm import Embed

    forward, passes = Embed.forward, 0

    def full(self: Embed, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        nonlocal passes
        passes += 1
        if passes > -(-N_SAMPLE_SAME // BATCH) + 2:  # those of the check, and two batches
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(self, pixels)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Embed, "forward", full)
        assert extract.main(words("extract", trained_run)) == 1
    assert "--embed-batch" in one_line(capsys.readouterr().err)
    assert extract.main(words("extract", trained_run)) == 0
    assert "continuing after row 10" in capsys.readouterr().err
    assert features_sha256(trained_run) == uninterrupted


# -- bad tiles -----------------------------------------------------------------------------------------------------


@pytest.mark.fault("truncated, empty or garbage tile")
def test_bad_tiles_are_marked_and_named(trained_run: Path, words: Words, capsys: pytest.CaptureFixture[str]) -> None:
    """P4. The folder's name must not be taken for the reason."""
    tile(trained_run, 3).write_text("no image")
    tile(trained_run, 9).unlink()
    Image.new("RGB", (32, 32)).save(tile(trained_run, 20))
    assert extract.main(words("extract", trained_run, "--max-bad", "0.1")) == 3
    embeddings = read_embeddings(trained_run / "embeddings.h5")
    assert embeddings.status[[3, 9, 20]].tolist() == [UNREADABLE, UNREADABLE, CHANGED]
    assert np.flatnonzero(embeddings.status).tolist() == [3, 9, 20]
    assert not embeddings.features[[3, 9, 20]].any()
    reasons = skipped(trained_run)
    assert list(reasons) == sorted(embeddings.tile_id[row] for row in (3, 9, 20))
    assert "not a readable" in reasons[embeddings.tile_id[3]]
    assert "not there" in reasons[embeddings.tile_id[9]]
    assert "its pixels changed" in reasons[embeddings.tile_id[20]]
    err = capsys.readouterr().err
    assert all(f"skipped {embeddings.tile_id[row]}" in err for row in (3, 9, 20))
    assert extract.main(words("extract", trained_run, "--max-bad", "0.1")) == 3, "current, but not whole"


def test_a_file_called_changed_is_unreadable_all_the_same(tmp_path: Path) -> None:
    from pipeline.network.extraction.resumable_rows import status_of
    from pipeline.network.preprocess import Preprocess
    from pipeline.network.tile_files import TileFiles

    _, _, _, problem = TileFiles(tmp_path, ["changed/unchanged.png"], ["0" * 64], Preprocess(8))[0]
    assert status_of(problem) == UNREADABLE


def test_the_reason_survives_a_stop(interrupted: Path, words: Words) -> None:
    """What was wrong with a tile of an earlier part is looked up again."""
    for row in (2, 30):
        tile(interrupted, row).unlink()
    assert extract.main(words("extract", interrupted, "--restart", "--max-bad", "0.5")) == 3
    whole = skipped(interrupted)
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(patch, 3)
        assert extract.main(words("extract", interrupted, "--restart", "--max-bad", "0.5")) == 143
    (interrupted / "embeddings.h5").unlink()
    assert extract.main(words("extract", interrupted, "--max-bad", "0.5")) == 3
    assert skipped(interrupted) == whole
    assert len(whole) == 2


def test_a_tile_that_can_be_read_again_gets_its_row(trained_run: Path, words: Words, uninterrupted: str) -> None:
    lost = tile(trained_run, 7)
    lost.rename(lost.with_suffix(".away"))
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(patch, 3)
        assert extract.main(words("extract", trained_run, "--max-bad", "0.5")) == 143
    lost.with_suffix(".away").rename(lost)
    assert extract.main(words("extract", trained_run, "--max-bad", "0.5")) == 0
    assert features_sha256(trained_run) == uninterrupted
    assert skipped(trained_run) == {}


def test_too_many_bad_tiles_stop_the_run_and_lose_nothing(
    trained_run: Path, words: Words, capsys: pytest.CaptureFixture[str], uninterrupted: str
) -> None:
    """P4: a disk that is unmounted on the way."""
    away = trained_run.parent / "away"
    away.mkdir()
    lost = [tile(trained_run, row) for row in range(12, N)]
    for path in lost:
        path.rename(away / f"{path.parent.name}-{path.name}")
    assert extract.main(words("extract", trained_run)) == 1
    line = one_line(capsys.readouterr().err)
    assert "above --max-bad 0.01" in line
    assert f"{lost[0]}: not there" in line
    assert not (trained_run / "embeddings.h5").exists()
    assert extract.main(words("extract", trained_run)) == 1
    for path in lost:
        (away / f"{path.parent.name}-{path.name}").rename(path)
    capsys.readouterr()
    assert extract.main(words("extract", trained_run)) == 0
    assert "continuing after row 10 of 32" in capsys.readouterr().err
    assert features_sha256(trained_run) == uninterrupted


# -- other inputs --------------------------------------------------------------------------------------------------


@pytest.mark.fault("an input that changed since")
def test_a_model_of_another_manifest_is_stale(
    trained_run: Path, words: Words, capsys: pytest.CaptureFixture[str]
) -> None:
    then = atomic.sha256_file(trained_run / "manifest.csv")
    tiles = str(trained_run.parent / "tiles")
    argv = ["--run", str(trained_run), "--data", tiles, "--protocol", "random", "--seed", "5", "--restart"]
    assert prepare.main([*argv, "--workers", "1"]) == 0
    now = atomic.sha256_file(trained_run / "manifest.csv")
    capsys.readouterr()
    assert extract.main(words("extract", trained_run)) == 1
    line = one_line(capsys.readouterr().err)
    assert then[:12] in line
    assert now[:12] in line
    assert "--force" in line
    assert extract.main(words("extract", trained_run, "--force")) == 0


@pytest.mark.fault("unknown label, classes in another order")
def test_a_label_that_the_model_does_not_know(
    trained_run: Path, words: Words, capsys: pytest.CaptureFixture[str]
) -> None:
    other = trained_run.parent / "other"
    shutil.copytree(trained_run.parent / "tiles", trained_run.parent / "more")
    (trained_run.parent / "more" / "TUM").rename(trained_run.parent / "more" / "MUC")
    argv = ["--run", str(other), "--data", str(trained_run.parent / "more"), "--protocol", "random", "--workers", "1"]
    assert prepare.main(argv) == 0
    capsys.readouterr()
    assert extract.main(words("extract", trained_run, "--manifest", str(other / "manifest.csv"))) == 1
    assert "label 'MUC' is unknown to" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize("missing", ["run", "manifest.csv", "model.safetensors", "model.json"])
def test_missing_inputs(trained_run: Path, words: Words, capsys: pytest.CaptureFixture[str], missing: str) -> None:
    if missing == "run":
        shutil.rmtree(trained_run)
    else:
        (trained_run / missing).unlink()
    assert extract.main(words("extract", trained_run)) == 1
    assert missing in one_line(capsys.readouterr().err)


@pytest.mark.fault("an embedding that is not finite")
def test_an_embedding_that_is_not_finite_names_the_tile(
    trained_run: Path, words: Words, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipeline.network.model_file import SCHEMA, save_model

    path = trained_run / "model.safetensors"
    model = load_model(path)
    state = model.network.state_dict()
    state["layer4.0.bn2.bias"][0] = float("inf")
    save_model(path, state, model.info)
    records.write_record(
        records.Artifact(path, SCHEMA, "train", inputs=[trained_run / "manifest.csv"]),
        outputs=[trained_run / "model.json"],
    )
    assert extract.main(words("extract", trained_run)) == 1
    assert f"{tile(trained_run, 0)}: its embedding is not finite" in one_line(capsys.readouterr().err)


def test_tiles_of_another_manifest_than_the_models_own_are_refused(
    trained_run: Path, words: Words, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """P7: another split of the same tiles would put tiles that the model was trained on into test."""
    other = tmp_path / "other"
    tiles = str(trained_run.parent / "tiles")
    assert prepare.main(["--run", str(other), "--data", tiles, "--protocol", "random", "--seed", "5"]) == 0
    capsys.readouterr()
    assert extract.main(words("extract", other, "--model", str(trained_run / "model.safetensors"))) == 1
    assert "was trained on another manifest" in one_line(capsys.readouterr().err)
    assert not (other / "embeddings.h5").exists()


def test_other_options_do_not_replace_the_rows_without_a_word(
    trained_run: Path, words: Words, capsys: pytest.CaptureFixture[str]
) -> None:
    assert extract.main(words("extract", trained_run)) == 0
    before = atomic.sha256_file(trained_run / "embeddings.h5")
    capsys.readouterr()
    assert extract.main(words("extract", trained_run, "--dtype", "float16")) == 1
    assert "dtype='float32', now 'float16'" in one_line(capsys.readouterr().err)
    assert atomic.sha256_file(trained_run / "embeddings.h5") == before
    assert extract.main(words("extract", trained_run, "--dtype", "float16", "--restart")) == 0
    assert read_embeddings(trained_run / "embeddings.h5").features.dtype == np.float16
