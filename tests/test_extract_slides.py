"""Rows of a slide are its tiles, whatever the workers, stops and kills; damage is marked; sources are not guessed."""

import dataclasses
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from pipeline import extract, prepare, tile, train, verify
from pipeline.network.batches import normalise
from pipeline.network.engines import select
from pipeline.network.model_file import load_model
from pipeline.network.resnet import features
from pipeline.slides.openslide_reader import open_slide
from pipeline.storage import atomic, records
from pipeline.storage.embeddings.partial_rows import PartialRows
from pipeline.storage.embeddings.reader import OK, UNREADABLE, Embeddings, read_embeddings
from pipeline.storage.lock import locked
from pipeline.tiles.decoding import pixel_hash

Make = Callable[..., Path]
Words = Callable[..., list[str]]

N, BATCH = 64, 5


def one_line(text: str) -> str:
    """Return the one line with which a command ended."""
    lines = [line for line in text.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, text
    assert "Traceback" not in text
    return lines[0]


def result(run: Path, name: str = "slide") -> Path:
    """Return where the embeddings of a slide stand."""
    return run / "slides" / name / f"{name}.h5"


def rows(run: Path, name: str = "slide") -> Embeddings:
    """Return the embeddings of a slide."""
    return read_embeddings(result(run, name))


def details(run: Path, name: str = "slide") -> dict[str, object]:
    """Return what the record says of them."""
    return dict(records.read_record(result(run, name))["details"])


@dataclasses.dataclass
class Ground:
    """A run, its slide, and the command line."""

    run: Path
    slide: Path
    words: Words

    def extract(self, *more: str) -> int:
        """Embed the slide."""
        return extract.main(self.words("extract", self.run, "--slide", str(self.slide), *more))


@pytest.fixture
def ground(trained_run: Path, slide_file: Make, words: Words) -> Ground:
    """A slide of 64 tiles of 32 px with its grid."""
    path = slide_file()
    assert tile.main([str(path), "--run", str(trained_run), "--mpp-target", "0.5"]) == 0
    return Ground(trained_run, path, words)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_rows_are_the_tiles_of_the_grid(ground: Ground, workers: str) -> None:
    assert ground.extract("--workers", workers) == 0
    found, model = rows(ground.run), load_model(ground.run / "model.safetensors")
    assert found.coords is not None
    assert found.coords.tolist() == [[x, y] for y in range(128, 384, 32) for x in range(128, 384, 32)]
    with open_slide(ground.slide) as slide:
        pixels = [slide.read_tile(int(x), int(y), 32, 32) for x, y in found.coords]
    assert [digest.tobytes() for digest in found.sha256] == [pixel_hash(tile) for tile in pixels]
    seen = normalise(
        torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2),
        mean=model.preprocess.mean,
        std=model.preprocess.std,
    )
    with torch.inference_mode():
        expected = features(model.network, seen).numpy()
    np.testing.assert_allclose(found.features, expected, rtol=1e-3, atol=1e-4)
    assert found.tile_id[0] == "slide_x128_y128"
    assert (set(found.group), set(found.path), set(found.label), set(found.split)) == (
        *({"slide"}, {"slide.tif"}),
        *({-1}, {255}),
    )
    assert (found.status == OK).all()
    assert found.attrs["model_sha256"] == atomic.sha256_file(ground.run / "model.safetensors")
    assert found.attrs["manifest_sha256"] == atomic.sha256_file(result(ground.run).with_name("grid.csv"))
    assert found.attrs["preprocess"]["mpp"] == 0.5


def test_rows_are_means_over_eight_orientations_for_every_slide(ground: Ground, tmp_path: Path) -> None:
    second = Path(shutil.copy(ground.slide, tmp_path / f"second{ground.slide.suffix}"))
    assert tile.main([str(second), "--run", str(ground.run), "--mpp-target", "0.5"]) == 0
    both = ["--slide", str(ground.slide), str(second), "--views", "8", "--embed-precision", "fp32"]
    assert extract.main(ground.words("extract", ground.run, *both)) == 0
    one, other = rows(ground.run), rows(ground.run, "second")
    assert (one.attrs["views"], details(ground.run)["views"], other.attrs["views"]) == (8, 8, 8)
    np.testing.assert_array_equal(one.features, other.features)  # the engine of the first serves the second
    model = load_model(ground.run / "model.safetensors")
    with open_slide(ground.slide) as slide, torch.inference_mode():
        pixels = torch.tensor(slide.read_tile(*one.coords[9].tolist(), one.slide.patch_size_level0, 32))
        seen = [torch.rot90(way, k) for way in (pixels, pixels.flip(0)) for k in range(4)]
        batch = torch.stack(seen).permute(0, 3, 1, 2).contiguous()
        constants = model.preprocess
        each = features(model.network, normalise(batch, mean=constants.mean, std=constants.std))
    np.testing.assert_allclose(one.features[9], each.mean(0).numpy(), rtol=1e-3, atol=1e-4)


def test_the_record_has_what_a_map_needs(ground: Ground, capsys: pytest.CaptureFixture[str]) -> None:
    assert ground.extract() == 0
    said = details(ground.run)
    image = result(ground.run).with_name(str(said["thumbnail"]))
    assert Image.open(image).size == (512, 512)
    assert said["thumbnail_downsample"] == 1
    assert (said["source"], said["saw_source"]) == (None, "unknown")
    assert image.name in records.read_record(result(ground.run))["outputs"]
    capsys.readouterr()
    assert ground.extract() == 0
    assert "extract: current" in capsys.readouterr().err
    assert not list(ground.run.rglob("*.partial*"))
    table = pd.read_csv(ground.run / "slides" / "slides.csv")
    assert table[["slide", "stage", "tiles", "skipped"]].to_numpy().tolist() == [["slide", "extract", N, 0]]


def test_verify_knows_slides(ground: Ground, capsys: pytest.CaptureFixture[str]) -> None:
    assert ground.extract() == 0
    assert verify.main(["--run", str(ground.run)]) == 0
    assert "is in no record" not in capsys.readouterr().err
    with h5py.File(result(ground.run), "r+") as file:
        file.attrs["mpp"] = 0.7
    assert verify.main(["--run", str(ground.run)]) == 1
    assert "slide.h5: its bytes are not those that were written" in capsys.readouterr().err


def test_without_a_grid_it_is_cut_by_the_defaults(ground: Ground, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(ground.run / "slides")
    assert ground.extract() == 1  # this model does not know its scale
    assert "not tiled yet, and the model does not state the scale" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "an HTML page"),
        (b"II*\0\0\0\0\0", "not a readable TIFF"),
    ],
)
def test_without_a_grid_the_slides_own_fault_is_the_reason(
    ground: Ground, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, reason: str
) -> None:
    """Also in slides.csv, and also where `tile` found it out."""
    bad = tmp_path / "bad.svs"
    bad.write_bytes(content)
    command = ground.words("extract", ground.run, "--slide", str(bad))
    assert extract.main(command) == 1
    assert reason in one_line(capsys.readouterr().err)
    table = pd.read_csv(ground.run / "slides" / "slides.csv", keep_default_na=False).set_index("slide")
    assert reason in table.loc["bad", "problem"]
    assert table.loc["slide", "problem"] == ""


def test_a_slide_that_tile_found_without_tissue_stays_one(
    ground: Ground, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (400, 400), (241, 240, 240)).save(tmp_path / "glass.png")
    words = [str(tmp_path / "glass.png"), "--run", str(ground.run), "--mpp-target", "0.5", "--mpp", "0.5"]
    assert tile.main(words) == 1
    capsys.readouterr()
    command = ground.words("extract", ground.run, "--slide", str(tmp_path / "glass.png"), "--mpp", "0.5")
    assert extract.main(command) == 1
    assert "no tissue: none of 144 tiles" in one_line(capsys.readouterr().err)


def test_slides_of_one_run_are_embedded_side_by_side(
    ground: Ground, slide_file: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    """Commands on other slides share the run; one on a slide in use ends with its name."""
    other = slide_file("other.tif")
    assert tile.main([str(other), "--run", str(ground.run), "--mpp-target", "0.5"]) == 0
    with locked(ground.run, shared=True), locked(ground.run / "slides" / "other"):  # as a command on it does
        assert ground.extract() == 0
        assert tile.main([str(ground.slide), "--run", str(ground.run), "--mpp-target", "0.5"]) == 0
        capsys.readouterr()
        assert extract.main(ground.words("extract", ground.run, "--slide", str(other))) == 1
        assert "slides/other is in use by" in one_line(capsys.readouterr().err)
    assert extract.main(ground.words("extract", ground.run, "--slide", str(other))) == 0
    table = pd.read_csv(ground.run / "slides" / "slides.csv")
    assert table[["slide", "stage", "tiles"]].to_numpy().tolist() == [["other", "extract", N], ["slide", "extract", N]]


# -- stops ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def uninterrupted(ground: Ground) -> str:
    """features_sha256 of an extraction that nothing stopped; its files are removed."""
    assert ground.extract() == 0
    found = str(rows(ground.run).attrs["features_sha256"])
    for path in (result(ground.run), records.record_path(result(ground.run))):
        path.unlink()
    return found


def stop_after(patch: pytest.MonkeyPatch, batches: int) -> None:
    """Send SIGTERM to this process after some batches."""
    append, count = PartialRows.append, 0

    def counted(self: PartialRows, block: np.ndarray) -> None:
        nonlocal count
        append(self, block)
        count += 1
        if count == batches:
            os.kill(os.getpid(), signal.SIGTERM)

    patch.setattr(PartialRows, "append", counted)


def test_a_stop_continues_to_the_same_rows(
    ground: Ground, uninterrupted: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """P2."""
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        assert ground.extract() == 143
    assert not result(ground.run).exists()
    capsys.readouterr()
    assert ground.extract() == 0
    assert f"continuing after row {4 * BATCH} of {N}" in capsys.readouterr().err
    assert rows(ground.run).attrs["features_sha256"] == uninterrupted


@pytest.mark.slow
def test_a_kill_in_the_midst_of_a_row_ends_in_the_same_rows(
    ground: Ground, uninterrupted: str, dying_extract: str
) -> None:
    """P2: kill -9, half a batch written."""
    argv = ground.words("extract", ground.run, "--slide", str(ground.slide), "--workers", "1")
    done = subprocess.run(
        [sys.executable, "-c", dying_extract, "2", *argv],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert result(ground.run).with_name("slide.h5.partial").stat().st_size
    assert ground.extract() == 0
    assert rows(ground.run).attrs["features_sha256"] == uninterrupted


@pytest.mark.fault("kill -9 of extract, fit_heads and predict at random moments")
@pytest.mark.slow
def test_kills_at_any_moment_end_in_the_same_rows(ground: Ground, uninterrupted: str) -> None:
    """P1, P2: kill -9 from the start of the process to its end, with workers."""
    moments = random.Random(0)
    argv = ground.words("extract", ground.run, "--slide", str(ground.slide), "--workers", "1")
    for _ in range(8):
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.extract", *argv],
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd=Path(__file__).parents[1],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        time.sleep(moments.uniform(1.5, 6))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if result(ground.run).exists():
            rows(ground.run)
            if moments.random() < 0.5:
                result(ground.run).unlink()
    assert ground.extract("--workers", "1") == 0
    assert rows(ground.run).attrs["features_sha256"] == uninterrupted
    assert not list(ground.run.rglob(".*.tmp"))


# -- damage --------------------------------------------------------------------------------------------------------


@pytest.mark.fault("seen in slide readers: what cannot be read becomes white")
def test_what_cannot_be_decoded_is_marked_and_never_white(
    ground: Ground, spoil: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    """P4: the block of 256 px at the upper right."""
    assert ground.extract() == 0
    whole = rows(ground.run)
    spoil(ground.slide, 300, 200)
    assert tile.main([str(ground.slide), "--run", str(ground.run), "--mpp-target", "0.5", "--restart"]) == 0
    capsys.readouterr()
    assert ground.extract("--restart") == 1
    assert "above --max-bad 0.01" in one_line(capsys.readouterr().err)
    assert ground.extract("--max-bad", "0.9", "--restart") == 3
    found = rows(ground.run)
    assert found.coords is not None
    assert whole.coords is not None
    bad = (found.coords[:, 0] >= 256) & (found.coords[:, 1] < 256)
    assert np.array_equal(found.status == UNREADABLE, bad)
    assert bad.sum() == 64  # the whole block: nobody knows whether there is tissue in it
    assert not found.features[bad].any()
    assert not found.sha256[bad].any()
    kept = {tile_id: row for row, tile_id in enumerate(found.tile_id)}
    same = [(row, kept[tile_id]) for row, tile_id in enumerate(whole.tile_id) if not bad[kept[tile_id]]]
    assert len(same) == 48
    np.testing.assert_allclose(
        found.features[[b for _, b in same]], whole.features[[a for a, _ in same]], rtol=1e-3, atol=1e-4
    )
    skipped = details(ground.run)["skipped"]
    assert isinstance(skipped, dict)
    assert len(skipped) == 64
    assert "the region at 256, 0 cannot be read" in skipped["slide_x256_y0"]
    assert pd.read_csv(ground.run / "slides" / "slides.csv")["skipped"].tolist() == [64]


@pytest.mark.fault("damaged or odd slide")
def test_one_bad_slide_does_not_stop_the_rest(
    ground: Ground,
    slide_file: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """P4: a folder and a list; the table says what became of each."""
    for name in ("in/a.tif", "in/c.tif", "in/=d.tif"):
        slide_file(name)
    whole = (tmp_path / "in" / "a.tif").read_bytes()
    (tmp_path / "in" / "b.tif").write_bytes(whole[: len(whole) // 2])
    tile.main([str(tmp_path / "in"), "--run", str(ground.run), "--mpp-target", "0.5"])
    (tmp_path / "list.csv").write_text("slide\nin/a.tif\nin/b.tif\nin/none.tif\nin/c.tif\nin/=d.tif\n")
    capsys.readouterr()
    words = ground.words("extract", ground.run, "--slide", str(tmp_path / "list.csv"))
    built: list[str] = []
    build = select.build_engine
    monkeypatch.setattr(select, "build_engine", lambda name, *a, **k: (built.append(name), build(name, *a, **k))[1])
    assert extract.main(words) == 3
    assert built == ["torch"]  # once for all slides
    said = capsys.readouterr().err
    assert "extract: slide 2 of 5, b" in said
    assert "2 of 5 slides could not be used" in said
    table = pd.read_csv(ground.run / "slides" / "slides.csv", keep_default_na=False)
    assert list(table["slide"]) == ["'=d", "a", "b", "c", "none", "slide"]
    assert list(table["tiles"]) == [N, N, 0, N, 0, N]
    assert [bool(problem) for problem in table["problem"]] == [False, False, True, False, True, False]
    assert rows(ground.run, "a").attrs["features_sha256"] == rows(ground.run, "c").attrs["features_sha256"]
    out = tmp_path / "elsewhere"
    assert extract.main([*words, "--out", str(out)]) == 3
    assert sorted(path.name for path in out.glob("*.png")) == ["=d-thumbnail.png", "a-thumbnail.png", "c-thumbnail.png"]
    assert extract.main([*words, "--out", str(out / "one.h5")]) == 2
    assert "one file for 5 slides: give a folder" in one_line(capsys.readouterr().err)


def test_another_slide_under_the_name_is_refused(
    ground: Ground, slide_file: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """P8."""
    slide_file(tissue=(0, 0, 256, 256))
    assert ground.extract() == 1
    assert "changed since" in one_line(capsys.readouterr().err)
    words = [str(ground.slide), "--run", str(ground.run), "--mpp-target", "0.5"]
    assert tile.main(words) == 1
    capsys.readouterr()
    assert tile.main([*words, "--restart"]) == 0
    assert ground.extract() == 0
    before = result(ground.run).read_bytes()
    slide_file(tissue=(0, 0, 128, 256))
    assert tile.main([*words, "--restart"]) == 0
    capsys.readouterr()
    assert ground.extract() == 1
    assert "slide.h5 was made from it" in one_line(capsys.readouterr().err)
    assert result(ground.run).read_bytes() == before
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        assert ground.extract("--restart") == 143
    assert result(ground.run).read_bytes() == before
    assert ground.extract() == 0  # continues what --restart began
    assert result(ground.run).read_bytes() != before
    moved = ground.slide.parent / "moved"
    moved.mkdir()
    ground.slide = ground.slide.rename(moved / ground.slide.name)
    capsys.readouterr()
    assert ground.extract() == 0
    assert "extract: current" in capsys.readouterr().err
    assert ground.extract("--mpp", "0.3") == 1
    assert "was made with 0.5 um/px, not 0.3" in one_line(capsys.readouterr().err)


def test_another_model_makes_other_rows(ground: Ground) -> None:
    assert ground.extract() == 0
    before = rows(ground.run).attrs
    assert train.main(ground.words("train", ground.run, "--epochs", "1", "--restart")) == 0
    assert ground.extract() == 0
    after = rows(ground.run).attrs
    assert before["model_sha256"] != after["model_sha256"]
    assert before["features_sha256"] != after["features_sha256"]


def test_a_model_that_is_older_than_its_tiles_is_refused(ground: Ground, capsys: pytest.CaptureFixture[str]) -> None:
    """P8."""
    words = ["--run", str(ground.run), "--data", str(ground.run.parent / "tiles"), "--protocol", "random"]
    assert prepare.main([*words, "--workers", "1", "--seed", "1", "--restart"]) == 0
    capsys.readouterr()
    assert ground.extract() == 1
    assert "model.safetensors was made from manifest.csv" in one_line(capsys.readouterr().err)
    assert ground.extract("--force") == 0


def test_a_model_by_its_path(ground: Ground, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without its manifest int8 has nothing to calibrate on, and sources are unknown."""
    for name in ("model.safetensors", "model.safetensors.json", "model.json"):
        (tmp_path / "other").mkdir(exist_ok=True)
        shutil.copy(ground.run / name, tmp_path / "other" / name)
    model = str(tmp_path / "other" / "model.safetensors")
    assert ground.extract("--model", model, "--slide-group", "S1") == 0
    assert details(ground.run)["source"] == "S1"
    assert details(ground.run)["saw_source"] == "unknown"
    words = [word if word != "fp32" else "int8" for word in ground.words("extract", ground.run)]
    assert extract.main([*words, "--slide", str(ground.slide), "--model", model, "--restart"]) == 2
    assert "give the --run of the model" in one_line(capsys.readouterr().err)


def test_a_network_sees_another_size_only_by_force(ground: Ground, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(ground.slide), "--run", str(ground.run), "--mpp-target", "0.5", "--tile-px", "64"]
    assert tile.main([*words, "--force"]) == 0
    assert ground.extract() == 2
    assert "trained on tiles of 32 px and would get 64" in one_line(capsys.readouterr().err)
    assert ground.extract("--force") == 0
    assert rows(ground.run).attrs["preprocess"]["size"] == 64
