"""Shards put together are the rows of a single run; what is missing, doubled, foreign or mixed is refused by name."""

import contextlib
import dataclasses
import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from pipeline import extract, fit_heads, merge, prepare, train, verify
from pipeline.storage import atomic, records
from pipeline.storage.embeddings import writer
from pipeline.storage.embeddings.reader import CHANGED, UNREADABLE, read_embeddings
from pipeline.storage.hdf5 import created, write_attributes
from pipeline.storage.lock import locked, locked_file
from pipeline.tiles.manifest import read_manifest

Words = Callable[..., list[str]]

N, K, BAD = 32, 3, (3, 20)
"""Tiles, shards of 10, 10 and 12 rows, and the rows of tiles that cannot be used."""

MOST = ("--max-bad", "0.1")


def one_line(text: str) -> str:
    """Return the one line with which a command ended."""
    lines = [line for line in text.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, text
    assert "Traceback" not in text
    return lines[0]


def shard(run: Path, i: int, k: int = K) -> Path:
    return run / "shards" / f"embeddings-{i}-of-{k}.h5"


def merge_words(run: Path, *more: str, shards: tuple[int, ...] = (3, 1, 2)) -> list[str]:
    """The command line of a merge, its shards in another order than the rows."""
    files = [str(shard(run, i)) for i in shards]
    return [*files, "--manifest", str(run / "manifest.csv"), "--out", str(run / "embeddings.h5"), *MOST, *more]


@pytest.fixture(scope="module")
def sharded_base(trained_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run of which two tiles were lost since; `single/` holds its extraction, `run/shards/` the shards."""
    base = tmp_path_factory.mktemp("sharded") / "base"
    shutil.copytree(trained_base, base)
    run = base / "run"
    manifest = read_manifest(run / "manifest.csv")
    (manifest.root / manifest.table["path"][BAD[0]]).write_text("no image")
    Image.new("RGB", (32, 32)).save(manifest.root / manifest.table["path"][BAD[1]])
    words = "--embed-batch 5 --embed-precision fp32 --engine torch --device cpu --threads 1 --workers 0 --max-bad 0.1"
    assert extract.main(["--run", str(run), *words.split()]) == 3
    (base / "single").mkdir()
    for name in ("embeddings.h5", "embeddings.h5.json"):
        (run / name).rename(base / "single" / name)
    for i, code in ((2, 0), (3, 3), (1, 3)):
        assert extract.main(["--run", str(run), *words.split(), "--shard", f"{i}/{K}"]) == code
    return base


@pytest.fixture
def sharded(sharded_base: Path, tmp_path: Path) -> Path:
    """This test's own run with its shards; the single run lies in `../single`."""
    shutil.copytree(sharded_base, tmp_path / "sharded")
    return tmp_path / "sharded" / "run"


@pytest.fixture
def words(words: Words) -> Words:
    """As in conftest, with the engine of the shards."""
    own = {"extract": ("--engine", "torch")}
    return lambda stage, run, *more: words(stage, run, *own.get(stage, ()), *MOST, *more)


def assert_same_rows(ours: Path, theirs: Path) -> None:
    a, b = read_embeddings(ours), read_embeddings(theirs)
    for field in dataclasses.fields(a):
        if field.name not in ("attrs", "shard"):
            x, y = getattr(a, field.name), getattr(b, field.name)
            assert np.array_equal(x, y) if isinstance(x, np.ndarray) else x == y, field.name
    assert {**a.attrs} == {**b.attrs}


def test_p2_the_rows_are_those_of_a_single_run(sharded: Path, words: Words, capsys: pytest.CaptureFixture[str]) -> None:
    """P8 as well: the record is that of a single run, so that every later command finds the file current."""
    assert merge.main(merge_words(sharded)) == 3
    out, single = sharded / "embeddings.h5", sharded.parent / "single" / "embeddings.h5"
    assert_same_rows(out, single)
    found = read_embeddings(out)
    assert found.status[list(BAD)].tolist() == [UNREADABLE, CHANGED]
    assert np.flatnonzero(found.status).tolist() == list(BAD)
    ours, theirs = (records.read_record(path) for path in (out, single))
    assert ours["options"] == theirs["options"]
    assert ours["inputs"] == theirs["inputs"]
    assert (ours["stage"], ours["seed"], ours["device"]) == (theirs["stage"], theirs["seed"], theirs["device"])
    shards = ours["details"].pop("shards")
    assert all(each["details"].pop("tiles_per_second") > 0 for each in (ours, theirs)), "measured, not the same"
    assert ours["details"] == theirs["details"]
    assert shards == {f"shards/embeddings-{i}-of-3.h5": atomic.sha256_file(shard(sharded, i)) for i in (1, 2, 3)}
    assert ours["outputs"] == {}
    assert out.read_bytes() == single.read_bytes()
    capsys.readouterr()
    assert merge.main(merge_words(sharded)) == 3
    assert "merge: current" in capsys.readouterr().err
    assert extract.main(words("extract", sharded)) == 3
    assert "extract: current" in capsys.readouterr().err
    assert verify.main(["--run", str(sharded)]) == 0
    assert "note:" not in capsys.readouterr().err
    assert fit_heads.main(["--run", str(sharded), "--threads", "1", "--rounds", "4"]) == 3
    assert fit_heads.main(["--run", str(sharded), "--threads", "1", "--rounds", "4"]) == 3
    assert "fit_heads: current" in capsys.readouterr().err


# -- shards --------------------------------------------------------------------------------------------------------


@pytest.mark.fault("missing, doubled or foreign shard")
def test_a_shard_knows_its_rows_and_is_taken_for_nothing_else(
    sharded: Path, words: Words, capsys: pytest.CaptureFixture[str]
) -> None:
    single = read_embeddings(sharded.parent / "single" / "embeddings.h5")
    found = [read_embeddings(shard(sharded, i), shard=True) for i in (1, 2, 3)]
    assert [len(part.status) for part in found] == [10, 10, 12]
    assert [(str(part.shard.shard), part.shard.first, part.shard.all_rows) for part in found if part.shard] == [
        ("1/3", 0, N),
        ("2/3", 10, N),
        ("3/3", 20, N),
    ]
    assert np.array_equal(np.concatenate([part.features for part in found]), single.features)
    capsys.readouterr()
    assert extract.main(words("extract", sharded, "--shard", "2/3")) == 0
    assert "extract: current" in capsys.readouterr().err
    assert extract.main(words("extract", sharded, "--shard", "3/3")) == 3
    capsys.readouterr()
    argv = ["--run", str(sharded), "--embeddings", str(shard(sharded, 2)), "--threads", "1"]
    assert fit_heads.main(argv) == 1
    assert "has only shard 2/3 of the tiles: merge" in (line := one_line(capsys.readouterr().err))
    assert "pipeline.merge" in line


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--shard", "0/3"), "--shard 0/3: i/K is needed, counted from 1"),
        (("--shard", "4/3"), "--shard 4/3: i/K is needed"),
        (("--shard", "3"), "--shard 3: i/K is needed"),
        (("--shard", "1/8"), "32 tiles are 7 batches of 5, and a shard has whole batches: use at most 7"),
        (("--shard", "1/2", "--slide", "x.tif"), "for slides, give each process its own --slide"),
    ],
)
def test_wrong_shards_are_one_line(
    sharded: Path, words: Words, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], message: str
) -> None:
    before = {path for path in sharded.rglob("*") if path.suffix != ".lock"}
    assert extract.main(words("extract", sharded, *more)) == 2
    assert message in one_line(capsys.readouterr().err)
    assert {path for path in sharded.rglob("*") if path.suffix != ".lock" and path.name != ".lock"} <= before


@pytest.mark.fault(
    "shards at the same time on one run, one of them killed; runs of an ablation at the same time on one plan"
)
def test_shards_share_the_run_but_not_their_file(
    sharded: Path, words: Words, capsys: pytest.CaptureFixture[str]
) -> None:
    """And none removes what another one is about to write."""
    others = sharded / "shards" / ".embeddings-1-of-3.h5.abcdefgh.tmp"
    own = [shard(sharded, 2).with_name(f".embeddings-2-of-3.h5{end}.abcdefgh.tmp") for end in ("", ".json")]
    for left in (others, *own):
        left.write_text("half")
    with locked(sharded, shared=True), locked_file(shard(sharded, 1)):
        assert extract.main(words("extract", sharded, "--shard", "2/3", "--restart")) == 0
        assert others.exists()
        assert not any(left.exists() for left in own)
        capsys.readouterr()
        assert extract.main(words("extract", sharded, "--shard", "1/3", "--restart")) == 1
        assert f'{shard(sharded, 1)} is in use by {{"pid": {os.getpid()}' in one_line(capsys.readouterr().err)
        assert extract.main(words("extract", sharded)) == 1
        assert "is in use by another process, or several that share it (shards," in one_line(capsys.readouterr().err)
        assert merge.main(merge_words(sharded)) == 1
        assert "is in use by" in one_line(capsys.readouterr().err)
    with locked(sharded):
        assert extract.main(words("extract", sharded, "--shard", "2/3")) == 1
        assert f'"pid": {os.getpid()}' in one_line(capsys.readouterr().err)
    assert merge.main(merge_words(sharded)) == 3
    assert not others.exists() or extract.main(words("extract", sharded)) == 3
    assert not others.exists(), "the run's holder alone may remove it"


@pytest.mark.slow
@pytest.mark.fault(
    "shards at the same time on one run, one of them killed; runs of an ablation at the same time on one plan"
)
def test_p2_a_shard_that_was_stopped_continues(
    sharded: Path, words: Words, dying_extract: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """kill -9 in the midst of a row."""
    before = shard(sharded, 3).read_bytes()
    argv = words("extract", sharded, "--shard", "3/3")
    done = subprocess.run(
        [sys.executable, "-c", dying_extract, "1", *argv, "--restart"], check=False, capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    shard(sharded, 3).unlink()
    assert extract.main(argv) == 3
    assert "continuing after row 5 of 12" in capsys.readouterr().err
    assert shard(sharded, 3).read_bytes() == before


def test_bad_tiles_of_a_shard_count_as_a_share_of_all_tiles(
    sharded: Path, words: Words, capsys: pytest.CaptureFixture[str]
) -> None:
    """P4: one of 10 rows is above 0.05, one of 32 is not; two are, and so the merge is refused as a single run is."""
    less = ("--max-bad", "0.05")
    assert extract.main(words("extract", sharded, "--shard", "1/3", "--restart", *less)) == 3
    capsys.readouterr()
    assert merge.main(merge_words(sharded, *less)) == 1
    assert "2 of 32 tiles could not be used, above --max-bad 0.05" in one_line(capsys.readouterr().err)
    assert not (sharded / "embeddings.h5").exists()


# -- what is refused -----------------------------------------------------------------------------------------------


def refused(capsys: pytest.CaptureFixture[str], argv: list[str], code: int = 1) -> str:
    """Merge, which must fail, write nothing and leave nothing behind; return its line."""
    out = Path(argv[argv.index("--out") + 1])
    before = {path: path.read_bytes() for path in out.parent.rglob("*") if path.is_file() and path.name != ".lock"}
    capsys.readouterr()
    assert merge.main(argv) == code
    after = {path: path.read_bytes() for path in out.parent.rglob("*") if path.is_file() and path.name != ".lock"}
    assert after == before
    return one_line(capsys.readouterr().err)


@pytest.mark.fault("missing, doubled or foreign shard")
def test_missing_and_doubled_shards_are_named(sharded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, merge_words(sharded, shards=(3, 1)))
    assert "1 of 3 shards missing: 2/3" in line
    assert "--shard 2/3" in line
    line = refused(capsys, merge_words(sharded, shards=(3, 1, 2, 1)))
    assert f"shard 1/3 is there twice, {shard(sharded, 1)} and {shard(sharded, 1)}" in line
    copy = sharded / "copy.h5"
    shutil.copyfile(shard(sharded, 1), copy)
    shutil.copyfile(records.record_path(shard(sharded, 1)), records.record_path(copy))
    assert f"shard 1/3 is there twice, {copy} and" in refused(capsys, [str(copy), *merge_words(sharded)])
    shard(sharded, 2).unlink()
    assert f"{shard(sharded, 2)}: no such file" in refused(capsys, merge_words(sharded))


@pytest.mark.fault("missing, doubled or foreign shard")
def test_shards_of_another_division_or_another_manifest(
    sharded: Path, words: Words, capsys: pytest.CaptureFixture[str]
) -> None:
    assert extract.main(words("extract", sharded, "--shard", "2/4")) == 0
    line = refused(capsys, [str(shard(sharded, 2, 4)), *merge_words(sharded, shards=(1, 3))])
    assert f"{shard(sharded, 2, 4)}: one of 4 shards" in line
    other = sharded.parent / "other"
    tiles = str(sharded.parent / "tiles")
    argv = ["--run", str(other), "--data", tiles, "--protocol", "random", "--seed", "5", "--workers", "1", *MOST]
    assert prepare.main(argv) == 3
    argv = merge_words(sharded)
    argv[argv.index("--manifest") + 1] = str(other / "manifest.csv")
    assert "a shard of another manifest" in refused(capsys, argv)
    argv = merge_words(sharded)
    argv[0] = str(sharded.parent / "single" / "embeddings.h5")
    assert "is not a shard" in refused(capsys, argv)


def rewritten(path: Path, *, details: dict[str, Any] | None = None, **attrs: object) -> None:
    """Change attributes of a file and facts of its record, as if it had been made so."""
    record = records.read_record(path)
    with h5py.File(path, "r+") as file:
        for name, value in attrs.items():
            del file.attrs[name]
            write_attributes(file, {name: value})
    known = {path.parent / name: digest for name, digest in record["inputs"].items()}
    same = [record[name] for name in ("schema", "stage", "options")]
    artifact = records.Artifact(path, *same, list(known), record["seed"], known)
    records.write_record(artifact, details=record["details"] | (details or {}), device=record["device"])


@pytest.mark.fault("shards of several models, engines or settings")
def test_mixed_engines_are_refused_and_recorded_by_force(
    sharded: Path, words: Words, capsys: pytest.CaptureFixture[str]
) -> None:
    auto = [word if word != "fp32" else "bf16" for word in words("extract", sharded)]
    assert extract.main([*auto, "--shard", "2/3", "--restart", "--force"]) == 0
    line = refused(capsys, merge_words(sharded))
    assert "several engines, whose features differ slightly: torch fp32 in 1/3, 3/3; torch bf16 in 2/3" in line
    assert "--restart --engine torch --embed-precision fp32" in line
    assert merge.main(merge_words(sharded, "--force")) == 3
    record = records.read_record(sharded / "embeddings.h5")
    assert record["details"]["mixed"] == {"engines": {"torch fp32": [1, 3], "torch bf16": [2]}}
    assert (record["details"]["engine"], record["details"]["precision"]) == ("torch", "fp32")
    assert record["options"]["embed_precision"] == "fp32"
    assert verify.main(["--run", str(sharded)]) == 0


@pytest.mark.fault("shards of several models, engines or settings")
@pytest.mark.parametrize(
    ("attrs", "details", "message"),
    [
        ({"model_sha256": "0" * 64}, {}, "several models: "),
        ({"classes": ["TUM", "ADI"]}, {}, "several lists of classes"),
        ({"views": 8}, {}, "several numbers of views (--views): 1 in 1/3, 3/3; 8 in 2/3"),
        ({}, {"batch": 10}, "several batches (--embed-batch): 5 in 1/3, 3/3; 10 in 2/3"),
        ({"versions": {"torch": "0.4.1"}}, {}, "several versions of libraries"),
        ({"shard": {"index": 2, "count": 3, "first_row": 5, "all_rows": N}}, {}, "shard 2/3 of 32 tiles has 10 from"),
    ],
)
def test_shards_that_were_made_otherwise(
    sharded: Path,
    capsys: pytest.CaptureFixture[str],
    attrs: dict[str, object],
    details: dict[str, object],
    message: str,
) -> None:
    rewritten(shard(sharded, 2), details=details, **attrs)
    assert message in refused(capsys, merge_words(sharded))


@pytest.mark.fault("missing, doubled or foreign shard")
def test_rows_that_are_not_the_manifests(sharded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The header fits, a row does not: found while it is copied."""
    for name, value in (("sha256", 7), ("label", 0), ("split", 255), ("tile_id", b"other")):
        shutil.copytree(sharded, sharded.parent / name)
        path = shard(sharded.parent / name, 2)
        with h5py.File(path, "r+") as file:
            row = int(np.flatnonzero(file[name][()] != value)[0]) if name != "sha256" else 4
            file[name][row] = value
        rewritten(path)
        argv = merge_words(sharded.parent / name)
        assert f"the {name} of its row {row}" in refused(capsys, argv)


@pytest.mark.fault("missing, doubled or foreign shard")
def test_a_changed_byte_and_a_stale_model(
    sharded: Path, trained_base: Path, words: Words, capsys: pytest.CaptureFixture[str]
) -> None:
    path = shard(sharded, 2)
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    assert f"{path}: its bytes are not those that were written" in refused(capsys, merge_words(sharded))
    content[-100] ^= 1
    path.write_bytes(content)
    records.record_path(path).rename(path.with_name("away"))
    assert f"{records.record_path(path)}: the record" in refused(capsys, merge_words(sharded))
    path.with_name("away").rename(records.record_path(path))
    shutil.copytree(trained_base / "tiles", sharded.parent / "tiles", dirs_exist_ok=True)  # none of them lost
    assert train.main(words("train", sharded, "--epochs", "1", "--restart")) == 0
    assert "was made from model.safetensors" in refused(capsys, merge_words(sharded))
    assert merge.main(merge_words(sharded, "--force")) == 3


def test_usage(sharded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no shard given" in refused(capsys, ["--out", str(sharded / "embeddings.h5")], 2)
    assert "--manifest: the manifest.csv" in refused(
        capsys, [str(shard(sharded, 1)), "--out", str(sharded / "embeddings.h5")], 2
    )
    argv = merge_words(sharded)
    argv[argv.index("--out") + 1] = str(shard(sharded, 1))
    assert "is one of the inputs" in refused(capsys, argv, 2)
    argv[argv.index("--out") + 1] = str(sharded / "model.safetensors")
    assert "(model/1.0) and would be replaced" in refused(capsys, argv, 2)


def test_a_file_of_other_options_is_not_replaced_without_a_word(
    sharded: Path, words: Words, capsys: pytest.CaptureFixture[str]
) -> None:
    assert extract.main(words("extract", sharded, "--dtype", "float16")) == 3
    assert "dtype='float16', now 'float32'" in refused(capsys, merge_words(sharded))
    assert merge.main(merge_words(sharded, "--restart")) == 3
    assert_same_rows(sharded / "embeddings.h5", sharded.parent / "single" / "embeddings.h5")


@pytest.mark.fault("full disk or kill -9 of merge")
def test_p1_a_full_disk_leaves_no_torso(
    sharded: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked at before; and while it is written."""
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
        assert "MB needed" in refused(capsys, merge_words(sharded))
    with monkeypatch.context() as patch:
        patch.setattr(writer, "created", full_disk)
        assert "no space left" in refused(capsys, merge_words(sharded))
    assert merge.main(merge_words(sharded)) == 3


@contextlib.contextmanager
def full_disk(path: Path) -> Iterator[h5py.File]:
    """Write a file whose disk is full at its end."""
    with created(path) as file:
        yield file
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


DYING_MERGE = """
import os, signal, sys
from pipeline import merge
from pipeline.storage.embeddings import merge as merging
when = int(sys.argv.pop(1))
blocks = merging.MergedRows.blocks
def dying(self):
    for i, rows in enumerate(blocks(self)):
        if i == when:
            os.kill(os.getpid(), signal.SIGKILL)
        yield rows
merging.MergedRows.blocks = dying
raise SystemExit(merge.main(sys.argv[1:]))
"""


@pytest.mark.fault("full disk or kill -9 of merge")
def test_p2_a_merge_that_was_killed_is_made_again(sharded: Path) -> None:
    words = [sys.executable, "-c", DYING_MERGE, "2", *merge_words(sharded)]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (sharded / "embeddings.h5").exists()
    assert list(sharded.glob(".embeddings.h5.*.tmp"))
    assert merge.main(merge_words(sharded)) == 3
    assert not list(sharded.glob(".embeddings.h5.*.tmp"))
    assert_same_rows(sharded / "embeddings.h5", sharded.parent / "single" / "embeddings.h5")
