"""An input is hashed once, and whatever happens to it afterwards is found."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import BadArtifact, StaleInput
from pipeline.storage import freshness, records
from pipeline.storage.atomic import write_text
from pipeline.storage.freshness import (
    check_input,
    check_replaceable,
    current_record,
    damaged_outputs,
    reusable_record,
)
from pipeline.storage.records import Artifact, read_record, record_path, write_record

from .making import OPTIONS, make

SCHEMA = "thing/1.0"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An artefact with its record."""
    write_text(tmp_path / "rows.h5", "content\n")
    write_record(Artifact(tmp_path / "rows.h5", SCHEMA, "extract"))
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
    artifact = Artifact(out, SCHEMA, "report", {}, [path], 0, known=source.known)
    write_record(artifact)
    assert current_record(artifact) is not None
    source.check_unchanged()
    assert hashed.count(path) == 1
    assert current_record(dataclasses.replace(artifact, known={})) is not None
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


@pytest.mark.fault("an input that changed since")
@pytest.mark.parametrize("change", [replaced, written_to_with_its_old_time, Path.unlink])
def test_an_input_that_changed_while_it_was_in_use_is_refused(path: Path, change: Callable[[Path], None]) -> None:
    """P8."""
    source = check_input(path, schema=SCHEMA)
    change(path)
    now = records.sha256_file(path)[:12] if path.exists() else "none"
    told = f"was {source.record['sha256'][:12]} when it was taken as input and is {now} now"
    with pytest.raises(StaleInput, match=rf"rows\.h5: {told}"):
        source.check_unchanged()


@pytest.mark.fault("an input that changed since")
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


@pytest.fixture
def made(tmp_path: Path) -> Artifact:
    """An artefact made from in.csv, with a figure."""
    given, figure = make(tmp_path / "in.csv"), tmp_path / "a.png"
    figure.write_bytes(b"png")
    path = make(tmp_path / "a.csv", inputs=(given,), outputs=[figure])
    return Artifact(path, "thing/1.2", "prepare", OPTIONS, [given], 5)


def test_an_artefact_is_current_until_anything_changes(made: Artifact, tmp_path: Path) -> None:
    given, other, figure = made.inputs[0], make(tmp_path / "other.csv"), tmp_path / "a.png"

    def is_current(**change: Any) -> bool:
        return current_record(dataclasses.replace(made, **change)) is not None

    assert current_record(made) == read_record(made.path)
    assert not is_current(options=OPTIONS | {"epochs": 4})
    assert not is_current(options=OPTIONS | {"new": None})
    assert not is_current(options={"epochs": 3})
    assert not is_current(seed=6)
    assert not is_current(seed=None)
    assert not is_current(inputs=[])
    assert not is_current(inputs=[given, other])
    assert not is_current(inputs=[other])
    assert not is_current(schema="thing/2.0")
    for file in (made.path, figure, given, record_path(made.path)):
        whole = file.read_bytes()
        file.write_bytes(whole + b" ")
        assert not is_current(), file
        file.write_bytes(whole)
        assert is_current()
    figure.unlink()
    assert damaged_outputs(made.path, read_record(made.path)) == ["a.png"]
    assert not is_current()
    made.path.unlink()
    assert not is_current()


def test_an_input_without_a_record_may_be_moved(tmp_path: Path) -> None:
    """A slide in another folder is the same slide; the artefacts of another run are others."""
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
    slide, table = tmp_path / "a" / "s.svs", make(tmp_path / "a" / "t.csv")
    slide.write_bytes(b"pixels")
    out = make(tmp_path / "grid.csv", inputs=(slide, table))
    artifact = Artifact(out, "thing/1.2", "prepare", OPTIONS, [slide, table], 5)
    moved = dataclasses.replace(artifact, inputs=[slide.rename(tmp_path / "b" / "s.svs"), table])
    assert current_record(moved) is not None
    assert sorted(read_record(out)["inputs"]) == ["a/t.csv", "b/s.svs"]
    slide.write_bytes(b"other pixels")
    assert current_record(dataclasses.replace(moved, inputs=[slide, table])) is None
    other_name = moved.inputs[0].rename(tmp_path / "b" / "t.svs")
    assert current_record(dataclasses.replace(moved, inputs=[other_name, table])) is None
    other_name.rename(tmp_path / "b" / "s.svs")
    copied = make(tmp_path / "b" / "t.csv")
    assert copied.read_bytes() == table.read_bytes()
    assert current_record(dataclasses.replace(moved, inputs=[tmp_path / "b" / "s.svs", copied])) is None


def test_a_current_artefact_is_reused_and_logged_unless_it_is_made_again(
    made: Artifact, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="pipeline")
    assert reusable_record(made) == read_record(made.path)
    assert caplog.messages == [f"prepare: current, {made.path}"]
    assert reusable_record(made, restart=True) is None
    other = dataclasses.replace(made, seed=6)
    assert reusable_record(other) is None
    protected = dataclasses.replace(other, protects="options")
    assert reusable_record(protected, restart=True) is None
    with pytest.raises(StaleInput, match="seed=5, now 6"):
        reusable_record(protected)


CHANGES: dict[str, Callable[[Path], object]] = {
    "input": lambda folder: make(folder / "in.csv", "changed\n"),
    "file": lambda folder: (folder / "a.csv").write_text("changed\n"),
    "companion": lambda folder: (folder / "a.png").unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    ("protects", "refused"),
    [("nothing", ()), ("options", ()), ("file", ("file",)), ("everything", ("input", "file", "companion"))],
)
def test_what_is_protected_is_not_replaced(
    made: Artifact, tmp_path: Path, change: str, protects: Any, refused: tuple[str, ...]
) -> None:
    protected = dataclasses.replace(made, protects=protects)
    check_replaceable(protected)
    CHANGES[change](tmp_path)
    if change not in refused:
        assert reusable_record(protected) is None
        return
    with pytest.raises((StaleInput, BadArtifact), match="--restart"):
        reusable_record(protected)


def test_another_file_of_the_same_name_is_no_input_of_what_is_protected(made: Artifact, tmp_path: Path) -> None:
    """`vit/model.safetensors` and `uni/model.safetensors`: the same options, another place and other content."""
    elsewhere = tmp_path / "b" / "in.csv"
    elsewhere.parent.mkdir()
    elsewhere.write_text("other\n")
    for inputs in ([elsewhere], [*made.inputs, elsewhere], []):
        with pytest.raises(StaleInput, match=r"another in\.csv .*--restart"):
            reusable_record(dataclasses.replace(made, inputs=inputs, protects="everything"))
    assert reusable_record(dataclasses.replace(made, protects="everything")) is not None


def test_an_option_of_a_newer_version_is_another_option(made: Artifact) -> None:
    with pytest.raises(StaleInput, match="new=not set, now None"):
        reusable_record(dataclasses.replace(made, options=OPTIONS | {"new": None}, protects="options"))


def test_other_options_are_refused_and_named(tmp_path: Path) -> None:
    artifact = Artifact(tmp_path / "a.csv", "thing/1.2", "prepare", OPTIONS, seed=5, protects="options")
    other = dataclasses.replace(artifact, options=OPTIONS | {"epochs": 4}, seed=6)
    check_replaceable(other)  # nothing there
    make(artifact.path)
    check_replaceable(artifact)
    check_replaceable(dataclasses.replace(other, protects="nothing"))
    with pytest.raises(StaleInput, match=r"epochs=3, now 4, seed=5, now 6.*--restart"):
        check_replaceable(other)
    record_path(artifact.path).write_text("{}")
    with pytest.raises(BadArtifact, match="--restart"):  # else the message would advise what is refused
        check_replaceable(artifact)
    record_path(artifact.path).unlink()
    check_replaceable(other)  # without a record it counts as missing
