"""An input is hashed once, and whatever happens to it afterwards is found."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import BadArtifact, StaleInput
from pipeline.storage import freshness, records
from pipeline.storage.atomic import write_text
from pipeline.storage.freshness import check_input, is_current
from pipeline.storage.records import write_record

SCHEMA = "thing/1.0"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An artefact with its record."""
    write_text(tmp_path / "rows.h5", "content\n")
    write_record(tmp_path / "rows.h5", schema=SCHEMA, stage="extract", options={})
    return tmp_path / "rows.h5"


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were hashed."""
    seen: list[Path] = []
    for module in (freshness, records):
        whole = module.sha256_file
        monkeypatch.setattr(module, "sha256_file", lambda path, whole=whole: (seen.append(path), whole(path))[1])
    return seen


def test_its_hash_is_handed_on(path: Path, tmp_path: Path, hashed: list[Path]) -> None:
    source, out = check_input(path, schema=SCHEMA), tmp_path / "out.csv"
    write_text(out, "made of it\n")
    same = {"schema": SCHEMA, "options": {}, "inputs": [path], "seed": 0, "known": source.known}
    write_record(out, stage="report", **same)
    assert is_current(out, **same)
    source.check_unchanged()
    assert hashed.count(path) == 1
    assert is_current(out, **{**same, "known": None})
    assert hashed.count(path) == 2


def test_a_damaged_input_is_refused(path: Path, tmp_path: Path) -> None:
    path.write_text("contend\n")
    with pytest.raises(BadArtifact, match="its bytes are not those that were written"):
        check_input(path, schema=SCHEMA)
    with pytest.raises(BadArtifact, match="not there"):
        check_input(tmp_path / "none.h5", schema=SCHEMA)


def replaced(path: Path) -> None:
    write_text(path, "contend\n")


def written_to_with_its_old_time(path: Path) -> None:
    before = path.stat()
    path.write_text("contend\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("change", [replaced, written_to_with_its_old_time, Path.unlink])
def test_an_input_that_changed_while_it_was_in_use_is_refused(path: Path, change: Callable[[Path], None]) -> None:
    """P8."""
    source = check_input(path, schema=SCHEMA)
    change(path)
    now = records.sha256_file(path)[:12] if path.exists() else "none"
    told = f"was {source.record['sha256'][:12]} when it was taken as input and is {now} now"
    with pytest.raises(StaleInput, match=rf"rows\.h5: {told}"):
        source.check_unchanged()


def test_an_input_that_is_replaced_while_it_is_hashed_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = records.sha256_file

    def hashed_then_replaced(asked: Path) -> str:
        found = whole(asked)
        replaced(asked)
        return found

    monkeypatch.setattr(records, "sha256_file", hashed_then_replaced)
    source = check_input(path, schema=SCHEMA)
    with pytest.raises(StaleInput, match="when it was taken as input"):
        source.check_unchanged()


def test_a_touched_input_is_hashed_again_and_taken(path: Path, hashed: list[Path]) -> None:
    source = check_input(path, schema=SCHEMA)
    os.utime(path)
    source.check_unchanged()
    assert hashed == [path, path]
