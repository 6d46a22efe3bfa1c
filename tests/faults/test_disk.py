"""Disks that are full or may not be written to: one line, nothing torn, and the same command goes on with room (P1)."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .commands import Commands
from .conftest import MADE, WORDS, Finished, temporaries

pytestmark = pytest.mark.slow

NO_ROOM = ("no space left", "No space left", "MB needed", "File too large")

ROOMS = (0, 600, 4_096, 30_000, 68_000, 300_000, 3_000_000, 30_000_000)
"""Bytes that are free, or that a file may have at most. 68,000 hold the scratch of an extraction, not its HDF5 file;
the largest file of these runs has 79 MB."""

LARGEST = {"train": 8, "extract": 6, "baselines": 6}
"""How many of them are tried; other stages write files of less than 30 kB."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 MB of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(words, check=False, capture_output=True).returncode:
        pytest.skip("no right to mount a small file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def fill(disk: Path, *, room: int) -> None:
    """Leave so many bytes free on a disk."""
    free = shutil.disk_usage(disk).free
    with (disk / "filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free - room))


def judge(finished: Finished, commands: Commands, run: Path, stage: str, before: dict[str, bytes], ended: Any) -> str:
    """Return what was wrong with how a stage ended without room, "" if nothing was."""
    if ended.code == 0:
        return "" if not finished.wrong(run, stage) else f"code 0, but {finished.wrong(run, stage)}"
    if ended.code != 1 or not any(words in ended.error for words in NO_ROOM):
        return f"code {ended.code}: {ended.said}"
    if torn := finished.torn(run):
        return f"{torn} torn"
    if changed := [name for name, content in before.items() if (run / name).read_bytes() != content]:
        return f"{changed} changed"
    if left := [path.name for path in temporaries(run) if path.name.endswith(".tmp")]:
        return f"{left} left"
    return ""


@pytest.mark.fault("full disk, in every writer")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("way", ["limit", "disk"])
@pytest.mark.parametrize("stage", list(WORDS))
def test_p1_a_full_disk_is_one_line_and_leaves_no_torso(
    commands: Commands,
    finished: Finished,
    tmp_path: Path,
    record_property: Any,
    request: pytest.FixtureRequest,
    stage: str,
    way: str,
) -> None:
    """By the size that a file may have, and by a real file system that is full."""
    place = tmp_path / "limited" if way == "limit" else request.getfixturevalue("small_disk")
    faults: list[str] = []
    tries = survived = failed = 0
    for room in ROOMS[way == "limit" : LARGEST.get(stage, 4)]:  # what the command says is a file as well
        for former in place.glob("*"):
            shutil.rmtree(former) if former.is_dir() else former.unlink()
        run = copied(finished, place, stage)
        before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
        if way == "disk":
            fill(place, room=room)
        limits = {"FSIZE": room} if way == "limit" else {}
        # HDF5 has been seen to crash when Python ends after a disk was full
        ended = commands.run(stage, WORDS[stage](run), limits=limits, to_the_end=stage in ("extract", "baselines"))
        failed += ended.code != 0
        found = [wrong] if (wrong := judge(finished, commands, run, stage, before, ended)) else []
        (place / "filler").unlink(missing_ok=True)
        again = commands.run(stage, WORDS[stage](run))
        found += [again.said] * (again.code != 0)
        found += [f"{name} is another" for name in finished.wrong(run, stage)]
        found += [f"{path.name} is left" for path in temporaries(run)]
        faults += [f"room for {room} bytes: {fault}" for fault in found]
        tries, survived = tries + 1, survived + (not found)
    for name, value in (("tries", tries), ("survived", survived)):
        record_property(name, value)
    assert not faults, "\n".join(faults)
    assert failed, "there was always room"


def copied(finished: Finished, place: Path, stage: str) -> Path:
    """Return a copy of a run as it stood before a stage, none of its files a link to others of another file system."""
    if stage == "prepare":
        shutil.copytree(finished.base / "tiles", place / "tiles")
        (place / "run").mkdir()
        return place / "run"
    stages = list(WORDS)
    shutil.copytree(finished.base / "tiles", place / "tiles")
    return Path(shutil.copytree(finished.base / stages[stages.index(stage) - 1], place / "run"))


@pytest.mark.fault("run folder that may not be written to, or is none")
@pytest.mark.parametrize("stage", list(WORDS))
def test_p1_a_folder_that_may_not_be_written_to_is_one_line(
    commands: Commands, finished: Finished, small_disk: Path, stage: str
) -> None:
    """A mounted archive: refused before anything is computed; verify needs no right to write."""
    run = copied(finished, small_disk, stage)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    ended = commands.run(stage, WORDS[stage](run))
    assert ended.code == 1
    assert "Read-only file system" in ended.error
    assert ended.said.count("\n") == 1
    if stage != "prepare":
        checked = commands.run("verify", ["--run", str(run)])
        assert checked.code == 0, checked.said


@pytest.mark.fault("run folder that may not be written to, or is none")
def test_a_run_folder_without_the_right_to_write(commands: Commands, finished: Finished, tmp_path: Path) -> None:
    """As another user than root, whom no mode of a folder hinders."""
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    run = finished.copy(tmp_path, before="extract")
    run.chmod(0o555)
    try:
        ended = commands.run("extract", WORDS["extract"](run))
    finally:
        run.chmod(0o755)
    assert ended.code == 1
    assert "Permission denied" in ended.error
    assert not [name for name in MADE["extract"] if (run / name).exists()]
