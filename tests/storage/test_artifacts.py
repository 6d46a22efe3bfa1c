"""The only writer: whole files or the old ones (P1), and records that any change betrays (P8)."""

import errno
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import BadArtifact, DiskFull, PipelineError, StaleInput
from pipeline.storage.artifacts import (
    atomic,
    check_artifact,
    check_fresh,
    damaged_outputs,
    disk_errors,
    is_current,
    read_record,
    read_record_alone,
    record_path,
    refuse_other_options,
    remove_temporaries,
    require_space,
    to_json,
    write_record,
    write_text,
)

OPTIONS: dict[str, Any] = {"epochs": 3, "rate": 0.1, "name": "Zöllner", "sizes": (1, 2)}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def make(path: Path, text: str = "content\n", *, stage: str = "prepare", **more: Any) -> Path:
    write_text(path, text)
    write_record(path, **{"schema": "thing/1.2", "stage": stage, "options": OPTIONS, "seed": 5, **more})
    return path


@pytest.fixture
def chain(tmp_path: Path) -> list[Path]:
    """Tiles -> model -> rows -> figures, each made from the one before."""
    first = make(tmp_path / "manifest.csv")
    second = make(tmp_path / "model.bin", stage="train", inputs=[first])
    third = make(tmp_path / "rows.h5", stage="extract", inputs=[second])
    return [first, second, third, make(tmp_path / "out.csv", stage="report", inputs=[third])]


def test_p1_an_error_leaves_the_old_content_and_no_temporary(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    write_text(path, "old")

    def fail() -> None:
        with atomic(path) as temporary:
            temporary.write_text("half")
            raise KeyError("bug")

    with pytest.raises(KeyError):
        fail()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.csv"]


def test_the_new_content_is_not_there_before_the_end(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "a.csv"
    with atomic(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.parent == path.parent  # a rename across file systems would not be atomic
    assert path.read_text() == "new"
    assert names(path.parent) == ["a.csv"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_no_space_is_disk_full_and_leaves_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    path = tmp_path / "a.csv"
    write_text(path, "old")

    def full(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFull, match=r"a\.csv: no space left") as caught:
        write_text(path, "new")
    assert "\n" not in str(caught.value)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.csv"]


def test_what_h5py_says_of_a_full_disk_is_disk_full(tmp_path: Path) -> None:
    message = "Can't write data (file write failed: errno = 28, error message = 'No space left on device')"
    with pytest.raises(DiskFull), disk_errors(tmp_path / "x.h5"):
        raise RuntimeError(message)
    with pytest.raises(PermissionError), disk_errors(tmp_path / "x.h5"):
        raise PermissionError(errno.EACCES, "no")


def test_a_file_that_cannot_fit_is_refused_before_it_is_begun(tmp_path: Path) -> None:
    require_space(tmp_path / "run", 1)
    with pytest.raises(DiskFull, match="MB needed"):
        require_space(tmp_path / "run", 10**18)


@pytest.mark.fault
def test_p1_a_real_limit_on_file_size_leaves_the_old(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_text(path, "old")
    code = f"""
import resource, sys
from pathlib import Path
from pipeline.errors import DiskFull
from pipeline.storage.artifacts import write_bytes
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_bytes(Path({str(path)!r}), bytes(100_000))
except DiskFull as error:
    sys.exit(7)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 7
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.fault
def test_p1_a_kill_while_writing_leaves_the_old_and_its_rubbish_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_text(path, "old")
    code = f"""
import os, signal
from pathlib import Path
from pipeline.storage.artifacts import atomic
with atomic(Path({str(path)!r})) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    assert path.read_text() == "old"
    assert len(names(tmp_path)) == 2
    remove_temporaries(tmp_path)
    assert names(tmp_path) == ["a.bin"]


def test_only_temporaries_of_the_run_are_removed(tmp_path: Path) -> None:
    """`--run` may be any folder, even one that holds other programs' work."""
    for name in ("figures", "heads", "other"):
        (tmp_path / name).mkdir()
    ours = [tmp_path / ".a.csv.ab_c12x9.tmp", tmp_path / "figures" / ".f.png.abcdefgh.tmp"]
    theirs = [tmp_path / ".mine.tmp", tmp_path / "a.abcdefgh.tmp", tmp_path / "other" / ".a.csv.abcdefgh.tmp"]
    for path in ours + theirs:
        path.write_text("x")
    remove_temporaries(tmp_path)
    assert not any(path.exists() for path in ours)
    assert all(path.exists() for path in theirs)


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permissions_follow_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_text(tmp_path / "a", "x")
        assert os.umask(umask) == umask  # it was put back
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~umask


def test_text_is_the_same_bytes_everywhere(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "Zöllner\n1\n")
    assert (tmp_path / "a").read_bytes() == "Zöllner\n1\n".encode()


def test_nan_is_no_json() -> None:
    with pytest.raises(ValueError, match="JSON"):
        to_json({"a": float("nan")})


def test_record_round_trip(tmp_path: Path) -> None:
    given = make(tmp_path / "tiles.csv")
    (tmp_path / "figures").mkdir()
    figure = tmp_path / "figures" / "a.png"
    figure.write_bytes(b"png")
    path = make(tmp_path / "a.csv", inputs=[given], outputs=[figure], details={10: "x", 9: "y"}, device="cpu")
    record = check_artifact(path, schema="thing/1.0")
    assert record["options"] == {"epochs": 3, "rate": 0.1, "name": "Zöllner", "sizes": [1, 2]}
    assert record["details"] == {"10": "x", "9": "y"}
    assert set(record["inputs"]) == {"tiles.csv"}
    assert set(record["outputs"]) == {"figures/a.png"}
    assert (record["seed"], record["device"], record["stage"], record["bytes"]) == (5, "cpu", "prepare", 8)
    assert {"torch", "numpy", "python", "histoheads"} <= set(record["versions"])
    assert record == read_record(path) == read_record_alone(path)
    path.unlink()
    assert read_record_alone(path) == record  # left behind in a clone
    with pytest.raises(BadArtifact, match="not there"):
        read_record(path)


@pytest.mark.parametrize("which", ["artefact", "record"])
def test_p8_any_changed_byte_is_found(tmp_path: Path, which: str) -> None:
    path = make(tmp_path / "a.csv", "".join(f"{i},tile {i}\n" for i in range(100)), details={"classes": ["A", "B"]})
    target = path if which == "artefact" else record_path(path)
    whole = target.read_bytes()
    rng = random.Random(3)
    for position in [0, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(50))]:
        changed = bytearray(whole)
        changed[position] ^= 1 << rng.randrange(8)
        target.write_bytes(changed)
        with pytest.raises(BadArtifact, match=r"a\.csv") as caught:
            check_artifact(path, schema="thing/1.2")
        assert "\n" not in str(caught.value)
    for damaged in (whole[:-1], whole + b"\n", b"", b"[]", b"3", b"null", b"[" * 100_000):
        target.write_bytes(damaged)
        with pytest.raises(BadArtifact, match=r"a\.csv"):
            check_artifact(path, schema="thing/1.2")
    target.write_bytes(whole)
    check_artifact(path, schema="thing/1.2")


def test_a_missing_record_is_named(tmp_path: Path) -> None:
    path = make(tmp_path / "a.csv")
    record_path(path).unlink()
    with pytest.raises(BadArtifact, match=r"a\.csv\.json: the record of a\.csv is missing"):
        check_artifact(path, schema="thing/1.2")


@pytest.mark.parametrize(("schema", "fits"), [("thing/1.0", True), ("thing/1.9", True), ("thing/2.0", False)])
def test_another_minor_version_fits_a_major_one_does_not(tmp_path: Path, schema: str, fits: bool) -> None:
    path = make(tmp_path / "a.csv")
    if fits:
        check_artifact(path, schema=schema)
    else:
        with pytest.raises(BadArtifact, match=r"thing/1\.2, but thing/2\.0 is needed"):
            check_artifact(path, schema=schema)
    with pytest.raises(BadArtifact, match=r"schema thing/1\.2"):
        check_artifact(path, schema="other/1.2")


def test_p8_a_fresh_chain_passes(chain: list[Path]) -> None:
    for path in chain:
        check_fresh(path, read_record(path))


@pytest.mark.parametrize("changed", [0, 1, 2])
def test_p8_a_stale_input_is_found_through_every_link(chain: list[Path], changed: int) -> None:
    """The first, second or third file is made anew; the last one knows, though its own input may be as it was."""
    inputs = chain[changed - 1 : changed] if changed else []
    make(chain[changed], "made anew\n", inputs=inputs)
    with pytest.raises(StaleInput) as caught:
        check_fresh(chain[3], read_record(chain[3]))
    made, cause = chain[changed + 1].name, chain[changed].name
    assert f"{made} was made from {cause}" in str(caught.value)
    stage = ("train", "extract", "report")[changed]
    assert f"python -m pipeline.{stage}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_p8_a_stale_input_is_found_past_a_file_that_was_left_behind(chain: list[Path]) -> None:
    """In a clone the heavy files are missing, their records are not."""
    chain[1].unlink()
    chain[2].unlink()
    check_fresh(chain[3], read_record(chain[3]))
    make(chain[0], "made anew\n")
    with pytest.raises(StaleInput, match=r"manifest\.csv"):
        check_fresh(chain[3], read_record(chain[3]))


def test_an_input_without_a_trace_cannot_be_compared(chain: list[Path]) -> None:
    chain[0].unlink()
    record_path(chain[0]).unlink()
    check_fresh(chain[3], read_record(chain[3]))


def test_a_run_moved_as_a_whole_stays_fresh(chain: list[Path], tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "deep" / "er"
    shutil.copytree(chain[0].parent, elsewhere)
    check_fresh(elsewhere / "out.csv", read_record(elsewhere / "out.csv"))


def test_inputs_of_a_linked_run_folder_are_found_again(tmp_path: Path) -> None:
    """Reports on a big disk behind a link: `..` leads elsewhere there."""
    (tmp_path / "disk" / "far" / "run").mkdir(parents=True)
    (tmp_path / "run").symlink_to(tmp_path / "disk" / "far" / "run")
    given = make(tmp_path / "given.csv")
    path = make(tmp_path / "run" / "a.csv", inputs=[given])
    assert is_current(path, schema="thing/1.2", options=OPTIONS, inputs=[given], seed=5)
    make(given, "changed\n")
    with pytest.raises(StaleInput, match=r"given\.csv"):
        check_fresh(path, read_record(path))


def test_is_current_until_anything_changes(tmp_path: Path) -> None:
    given, other = make(tmp_path / "in.csv"), make(tmp_path / "other.csv")
    figure = tmp_path / "a.png"
    figure.write_bytes(b"png")
    path = make(tmp_path / "a.csv", inputs=[given], outputs=[figure])

    def current(**change: Any) -> bool:
        asked = {"schema": "thing/1.2", "options": OPTIONS, "inputs": [given], "seed": 5}
        return is_current(path, **{**asked, **change})

    assert current()
    assert not current(options=OPTIONS | {"epochs": 4})
    assert not current(options=OPTIONS | {"new": None})
    assert not current(options={"epochs": 3})
    assert not current(seed=6)
    assert not current(seed=None)
    assert not current(inputs=[])
    assert not current(inputs=[given, other])
    assert not current(inputs=[other])
    assert not current(schema="thing/2.0")
    for file in (path, figure, given, record_path(path)):
        whole = file.read_bytes()
        file.write_bytes(whole + b" ")
        assert not current(), file
        file.write_bytes(whole)
        assert current()
    figure.unlink()
    assert damaged_outputs(path, read_record(path)) == ["a.png"]
    assert not current()
    path.unlink()
    assert not current()


def test_other_options_are_refused_and_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    refuse_other_options(path, options=OPTIONS, seed=5)  # nothing there
    make(path)
    refuse_other_options(path, options=OPTIONS, seed=5)
    with pytest.raises(StaleInput, match=r"epochs=3, now 4.*--restart"):
        refuse_other_options(path, options=OPTIONS | {"epochs": 4}, seed=5)
    with pytest.raises(StaleInput, match="seed=5, now 6"):
        refuse_other_options(path, options=OPTIONS, seed=6)
    record_path(path).write_text("{}")
    with pytest.raises(BadArtifact, match="--restart"):  # else the user would be told to do what is refused
        refuse_other_options(path, options=OPTIONS, seed=5)
    record_path(path).unlink()
    refuse_other_options(path, options=OPTIONS, seed=6)  # without a record it counts as not there


def test_errors_of_this_room_are_the_users() -> None:
    assert all(issubclass(kind, PipelineError) and kind.exit_code == 1 for kind in (BadArtifact, DiskFull, StaleInput))
