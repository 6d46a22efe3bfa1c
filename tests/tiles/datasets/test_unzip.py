"""Good archives unpack whole; hostile and damaged ones leave nothing behind."""

import io
import random
import stat
import struct
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


def patched(data: bytes, *, local: int, central: int, value: bytes) -> bytes:
    """Overwrite one field of the first member in both of its headers."""
    changed = bytearray(data)
    for signature, offset in ((b"PK\x03\x04", local), (b"PK\x01\x02", central)):
        at = changed.index(signature) + offset
        changed[at : at + len(value)] = value
    return bytes(changed)


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

    monkeypatch.setattr(module, "_settle", interrupt)
    archive = tmp_path / "set.zip"
    archive.write_bytes(zip_bytes(("new.tif", NOISE)))
    with pytest.raises(KeyboardInterrupt):
        unpack_zip(archive, tmp_path / "out", max_bytes=10**6, max_files=10)
    assert [path.name for path in tmp_path.iterdir()] == ["set.zip"]


@pytest.mark.fault("an archive handed as data")
@pytest.mark.parametrize(
    "name",
    [
        "../evil.tif",
        "a/../../evil.tif",
        "a/..",
        "/tmp/evil.tif",
        "//host/share/evil.tif",
        "C:/evil.tif",
        "c:evil.tif",
        "..\\evil.tif",
        "a\\evil.tif",
        "a//evil.tif",
        "./evil.tif",
        "a/./evil.tif",
        "evil\n.tif",
        "evil\x7f.tif",
    ],
)
def test_refuses_names_that_leave_the_folder(tmp_path: Path, name: str) -> None:
    refuse(tmp_path, zip_bytes(("good.tif", b"x"), (name, b"x")), repr(name))


@pytest.mark.parametrize("name", ["/tmp/evil.tif", "C:/evil.tif"])
def test_says_that_a_name_is_absolute(tmp_path: Path, name: str) -> None:
    refuse(tmp_path, zip_bytes((name, b"x")), f"{name!r} has an absolute name")


def test_refuses_a_name_cut_by_a_null_byte(tmp_path: Path) -> None:
    data = zip_bytes(("a.tif_..x", b"x")).replace(b"a.tif_..x", b"a.tif\0..x")
    refuse(tmp_path, data, "control characters")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_refuses_links_and_special_files(tmp_path: Path, kind: int) -> None:
    member = zipfile.ZipInfo("link.tif")
    member.external_attr = (kind | 0o777) << 16
    refuse(tmp_path, zip_bytes((member, b"/etc/hostname")), "'link.tif'", "link or a special file")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("a/Tile.tif", "a/tile.tif"),
        ("A/1.tif", "a/2.tif"),
        ("caf\u00e9.tif", "cafe\u0301.tif"),
        ("stra\u00dfe.tif", "STRASSE.tif"),
        ("a.tif", "a.tif. "),
        ("a", "a/b.tif"),
        ("a/b.tif", "a"),
        ("a/", "A"),
    ],
)
def test_refuses_names_that_collide(tmp_path: Path, first: str, second: str) -> None:
    refuse(tmp_path, zip_bytes((first, b""), (second, b"")), repr(second), "collides")


def test_refuses_a_name_that_comes_twice(tmp_path: Path) -> None:
    data = zip_bytes(("1.tif", b"x"), ("2.tif", b"y")).replace(b"2.tif", b"1.tif")
    refuse(tmp_path, data, "'1.tif' collides")


def test_refuses_encrypted_members(tmp_path: Path) -> None:
    data = patched(zip_bytes(("a.tif", NOISE)), local=6, central=8, value=b"\x01\x00")
    refuse(tmp_path, data, "'a.tif' is encrypted")


def test_refuses_other_compressions(tmp_path: Path) -> None:
    data = patched(zip_bytes(("a.tif", NOISE)), local=8, central=10, value=struct.pack("<H", 93))
    refuse(tmp_path, data, "'a.tif' is compressed neither")


@pytest.mark.fault("an archive handed as data")
def test_refuses_a_bomb_by_its_ratio(tmp_path: Path) -> None:
    refuse(tmp_path, zip_bytes(("bomb.tif", bytes(10**6))), "'bomb.tif' passes the limit", max_bytes=10**9)


def test_one_plain_tile_among_others_is_no_bomb(tmp_path: Path) -> None:
    archive = tmp_path / "set.zip"
    archive.write_bytes(zip_bytes(("glass.tif", bytes(200_000)), ("tissue.tif", NOISE)))
    unpack_zip(archive, tmp_path / "out", max_bytes=10**6, max_files=2)
    assert (tmp_path / "out" / "glass.tif").stat().st_size == 200_000


def test_refuses_more_bytes_or_entries_than_allowed(tmp_path: Path) -> None:
    data = zip_bytes(("1.tif", NOISE), ("2.tif", NOISE))
    refuse(tmp_path, data, "'2.tif' passes the limit of 3999", "nothing was unpacked", max_bytes=3999)
    refuse(tmp_path, data, "holds 2 entries, more than the 1", max_files=1)


@pytest.mark.parametrize("declared", [1, 1999, 2001, 900_000])
def test_refuses_headers_that_lie_about_the_size(tmp_path: Path, declared: int) -> None:
    data = patched(zip_bytes(("a.tif", NOISE)), local=22, central=24, value=struct.pack("<I", declared))
    refuse(tmp_path, data)


def test_a_bomb_that_declares_little_writes_little(tmp_path: Path) -> None:
    bomb = zip_bytes(("bomb.tif", bytes(10**6)))
    refuse(tmp_path, patched(bomb, local=22, central=24, value=struct.pack("<I", 10)), max_bytes=100)


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
    monkeypatch.setattr(module, "_settle", lambda: None)
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
        module._remove(out)
        assert [path.name for path in tmp_path.iterdir()] == ["set.zip"]
    assert len(messages) > 200
    assert not any("\n" in message for message in messages)
