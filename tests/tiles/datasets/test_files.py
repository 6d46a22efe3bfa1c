"""The tiles of a folder whose names say nothing."""

from pathlib import Path

import pytest

from pipeline.errors import BadInput
from pipeline.tiles.datasets.files import files_digest, image_files


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
