"""The tiles of a folder whose names say nothing."""

import os
from pathlib import Path

import pytest
from PIL import Image

from pipeline.errors import BadInput
from pipeline.tiles.datasets.files import files_digest, image_files, list_images


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def test_images_anywhere_below_sorted_without_hidden_ones(tmp_path: Path) -> None:
    touch(tmp_path, "b.png", "a/z.TIF", "a/deep/c.jpg", "notes.txt", ".hidden.png", ".cache/x.png")
    assert image_files(tmp_path) == ["a/deep/c.jpg", "a/z.TIF", "b.png"]


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such folder of tiles"):
        image_files(tmp_path / "none")
    with pytest.raises(BadInput, match="no tiles found"):
        image_files(touch(tmp_path / "e", "notes.txt"))
    with pytest.raises(BadInput, match="a character that no table can hold"):
        image_files(touch(tmp_path / "n", "a\nb.png"))
    (touch(tmp_path / "loop", "a/x.png") / "a" / "up").symlink_to(tmp_path / "loop")
    with pytest.raises(BadInput, match="a link to a folder above it"):
        image_files(tmp_path / "loop")


def test_the_digest_is_of_names_and_bytes(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.png")
    before = files_digest(tmp_path, ["a.png", "b.png"])
    assert files_digest(tmp_path, ["a.png", "b.png"]) == before
    assert files_digest(tmp_path, ["a.png"]) != before
    (tmp_path / "b.png").write_bytes(b"other")
    changed = files_digest(tmp_path, ["a.png", "b.png"])
    (tmp_path / "b.png").unlink()
    assert len({before, changed, files_digest(tmp_path, ["a.png", "b.png"])}) == 3


def test_images_are_known_by_their_first_bytes_too(tmp_path: Path) -> None:
    """Whatever its name: a folder of tiles without suffixes is a folder of tiles."""
    touch(tmp_path, "notes", "a.svg", "b.heic")
    for kind, name in (("PNG", "png"), ("JPEG", "x.dat"), ("TIFF", "tile_1_2"), ("GIF", "g.bak"), ("JPEG2000", "j")):
        Image.new("RGB", (8, 8)).save(tmp_path / name, kind)
    os.mkfifo(tmp_path / "pipe")
    found = list_images(tmp_path)
    assert found.images == ["b.heic", "g.bak", "j", "png", "tile_1_2", "x.dat"]
    assert found.others == ["a.svg", "notes", "pipe"]


SYSTEM = """@eaDir,#recycle,#snapshot,$RECYCLE.BIN,System Volume Information,lost+found,__MACOSX,.Trash-1000,.Trashes,
@Recycle,~snapshot,RECYCLER,FOUND.000,$Recycle.Bin""".replace("\n", "").split(",")


@pytest.mark.parametrize("name", SYSTEM)
def test_system_folders_are_passed_over_wherever_they_are(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "A/a.png", f"A/{name}/a.png/thumb.jpg", f"{name}/deep/b.png")
    found = list_images(tmp_path)
    assert found.images == ["A/a.png"]
    assert found.system == sorted([f"A/{name}/", f"{name}/"])
    assert image_files(tmp_path) == ["A/a.png"]


def test_copies_are_found_among_files_and_folders(tmp_path: Path) -> None:
    touch(
        tmp_path, "A/a.png", "A/a (1).png", "A/b - Copy.png", "A - Copy/a.png", "B/Copy of A/a.png", "Copy of C/a.png"
    )
    assert sorted(list_images(tmp_path).copies) == [("A - Copy/", "A/"), ("A/a (1).png", "A/a.png")]
