"""Shards put together are the rows of a single run; what is missing, doubled, foreign or mixed is refused by name."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import extract, fit_heads, merge, verify
from pipeline.storage import artifacts, records
from pipeline.storage.embeddings import CHANGED, UNREADABLE, read_embeddings
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
    """As in conftest, by the engine of the shards."""
    return lambda stage, run, *more: words(stage, run, "--engine", "torch", *MOST, *more)


def assert_same_rows(ours: Path, theirs: Path) -> None:
    a, b = read_embeddings(ours), read_embeddings(theirs)
    for field in dataclasses.fields(a):
        if field.name not in ("attrs", "shard"):
            x, y = getattr(a, field.name), getattr(b, field.name)
            assert np.array_equal(x, y) if isinstance(x, np.ndarray) else x == y, field.name
    assert {**a.attrs} == {**b.attrs} | ({"virtual": a.attrs["virtual"]} if "virtual" in a.attrs else {})


@pytest.mark.parametrize("virtual", [False, True])
def test_p2_the_rows_are_those_of_a_single_run(
    sharded: Path, words: Words, capsys: pytest.CaptureFixture[str], virtual: bool
) -> None:
    """P8 as well: the record is that of a single run, so that every later command finds the file current."""
    more = ["--virtual"] if virtual else []
    assert merge.main(merge_words(sharded, *more)) == 3
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
    assert ours["details"] == theirs["details"]
    assert shards == {f"shards/embeddings-{i}-of-3.h5": artifacts.sha256_file(shard(sharded, i)) for i in (1, 2, 3)}
    assert ours["outputs"] == (shards if virtual else {})
    if not virtual:
        assert out.read_bytes() == single.read_bytes()
    capsys.readouterr()
    assert merge.main(merge_words(sharded, *more)) == 3
    assert "merge: current" in capsys.readouterr().err
    assert extract.main(words("extract", sharded)) == 3
    assert "extract: current" in capsys.readouterr().err
    assert verify.main(["--run", str(sharded)]) == 0
    assert "note:" not in capsys.readouterr().err
    assert fit_heads.main(["--run", str(sharded), "--threads", "1", "--rounds", "4"]) == 3
    assert fit_heads.main(["--run", str(sharded), "--threads", "1", "--rounds", "4"]) == 3
    assert "fit_heads: current" in capsys.readouterr().err
