"""Good archives unpack whole; hostile and damaged ones leave nothing behind."""

import io
import random
import shutil
import stat
import zipfile
from pathlib import Path

import pytest

import pipeline.tiles.datasets.unzip as module
from pipeline.errors import BadInput
from pipeline.tiles.datasets.unzip import unpack_zip

NOISE = random.Random(0).randbytes(2000)


def zip_bytes(*members: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in members:
            opened.writestr(name, content)
    return buffer.getvalue()


def refuse(tmp_path: Path, data: bytes, *parts: str, max_bytes: int = 10**6, max_files: int = 10) -> None:
    """The archive is refused in one line with all `parts`, and nothing but the archive stays."""
    archive = tmp_path / "set.zip"
    archive.write_bytes(data)
    with pytest.raises(BadInput) as error:
        unpack_zip(archive, tmp_path / "out", max_bytes=max_bytes, max_files=max_files)
    text = str(error.value)
    assert "\n" not in text
    for part in ("set.zip", *parts):
        assert part in text
    assert [path.name for path in tmp_path.iterdir()] == ["set.zip"]


def test_unpacks_files_and_folders(tmp_path: Path) -> None:
    archive = tmp_path / "set.zip"
    archive.write_bytes(zip_bytes(("root/", b""), ("root/a/", b""), ("root/a/1.tif", NOISE), ("root/b/Ä 2.tif", b"")))
    out = tmp_path / "deep" / "out"
    unpack_zip(archive, out, max_bytes=2000, max_files=4)
    found = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    assert {name: path.read_bytes() for name, path in found.items()} == {
        "root/a/1.tif": NOISE,
        "root/b/Ä 2.tif": b"",
    }
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_modes_of_the_archive_are_not_taken_over(tmp_path: Path) -> None:
    member = zipfile.ZipInfo("tool")
    member.external_attr = (stat.S_IFREG | stat.S_ISUID | 0o777) << 16
    archive = tmp_path / "set.zip"
    archive.write_bytes(zip_bytes((member, b"#!/bin/sh")))
    unpack_zip(archive, tmp_path / "out", max_bytes=100, max_files=1)
    assert not (tmp_path / "out" / "tool").stat().st_mode & (stat.S_ISUID | 0o111)


def test_what_a_dead_run_left_is_removed(tmp_path: Path) -> None:
    archive = tmp_path / "set.zip"
    archive.write_bytes(zip_bytes(("new.tif", NOISE)))
    (tmp_path / "out.partial" / "old").mkdir(parents=True)
    (tmp_path / "out.partial" / "old" / "half.tif").write_bytes(b"half")
    unpack_zip(archive, tmp_path / "out", max_bytes=10**6, max_files=10)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["new.tif"]
    assert not (tmp_path / "out.partial").exists()


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    archive = tmp_path / "set.zip"
    archive.write_bytes(zip_bytes(("new.tif", NOISE)))
    (tmp_path / "out").mkdir()
    with pytest.raises(BadInput, match="exists already"):
        unpack_zip(archive, tmp_path / "out", max_bytes=10**6, max_files=10)
    assert list((tmp_path / "out").iterdir()) == []


def test_an_interruption_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module.os, "sync", interrupt)
    archive = tmp_path / "set.zip"
    archive.write_bytes(zip_bytes(("new.tif", NOISE)))
    with pytest.raises(KeyboardInterrupt):
        unpack_zip(archive, tmp_path / "out", max_bytes=10**6, max_files=10)
    assert [path.name for path in tmp_path.iterdir()] == ["set.zip"]


@pytest.mark.fault("an archive handed as data")
def test_names_that_climb_and_links_stay_inside(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link.tif")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    names = ["../evil.tif", "a/../../evil2.tif", "/tmp/evil3.tif"]
    (tmp_path / "in").mkdir()
    archive = tmp_path / "in" / "set.zip"
    archive.write_bytes(zip_bytes(*((name, b"x") for name in names), (link, b"/etc/hostname")))
    unpack_zip(archive, tmp_path / "in" / "out", max_bytes=100, max_files=10)
    found = sorted(path.relative_to(tmp_path / "in").as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert found == ["out/a/evil2.tif", "out/evil.tif", "out/link.tif", "out/tmp/evil3.tif", "set.zip"]
    assert not (tmp_path / "in" / "out" / "link.tif").is_symlink()


@pytest.mark.fault("an archive handed as data")
def test_a_bomb_that_declares_little_writes_little(tmp_path: Path) -> None:
    """Whatever the member unpacks to, its declared size is the most that is written."""
    bomb = bytearray(zip_bytes(("bomb.tif", bytes(10**6))))
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = bomb.index(signature) + offset
        bomb[at : at + 4] = (10).to_bytes(4, "little")
    refuse(tmp_path, bytes(bomb), max_bytes=100)


def test_refuses_more_bytes_or_entries_than_allowed(tmp_path: Path) -> None:
    data = zip_bytes(("1.tif", NOISE), ("2.tif", NOISE))
    refuse(tmp_path, data, "2 entries of 4000 bytes", max_bytes=3999)
    refuse(tmp_path, data, "more than the 1 entries", max_files=1)


def test_refuses_what_is_no_whole_zip(tmp_path: Path) -> None:
    data = zip_bytes(("a.tif", NOISE), ("b.tif", NOISE))
    for wrong in (b"", b"<html>login</html>", data[: len(data) // 2], data[:-30]):
        refuse(tmp_path, wrong, "no zip file or is damaged")
    at = data.index(NOISE[100:120])  # noise does not shrink: it stands there as it is
    refuse(tmp_path, data[:at] + b"\0" + data[at + 1 :], "no zip file or is damaged")


def test_a_missing_archive_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"absent\.zip"):
        unpack_zip(tmp_path / "absent.zip", tmp_path / "out", max_bytes=1, max_files=1)


def test_damage_anywhere_is_refused_or_harmless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.os, "sync", lambda: None)
    data = zip_bytes(*((f"c{n}/{n}.tif", NOISE[:300] + bytes(300)) for n in range(3)))
    generator = random.Random(0)
    archive, out = tmp_path / "set.zip", tmp_path / "out"
    messages = []
    for _ in range(300):
        changed = bytearray(data)
        for _ in range(3):
            changed[generator.randrange(len(data))] = generator.randrange(256)
        archive.write_bytes(changed)
        try:
            unpack_zip(archive, out, max_bytes=10**5, max_files=10)
        except BadInput as error:
            messages.append(str(error))
        contents = [path.read_bytes() for path in out.rglob("*") if path.is_file()]
        assert contents in ([], [NOISE[:300] + bytes(300)] * 3)
        shutil.rmtree(out, ignore_errors=True)
        assert [path.name for path in tmp_path.iterdir()] == ["set.zip"]
    assert len(messages) > 200
    assert not any("\n" in message for message in messages)
