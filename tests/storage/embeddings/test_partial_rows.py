"""What stands in the scratch survives; what is torn or belongs to another run is never used."""

import errno
import io
import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import DiskFull, StaleInput
from pipeline.storage.embeddings.partial_rows import PartialRows, row_type

ROW = row_type(3, 2)
IDENTITY = {"inputs": {"model": "a"}, "precision": "fp32"}


def rows(start: int, n: int) -> np.ndarray:
    """Return rows `start` to `start + n`, each with its number as features."""
    made = np.zeros(n, ROW)
    made["features"] = np.arange(start, start + n)[:, None]
    return made


def scratch(folder: Path, **identity: object) -> PartialRows:
    """Return a scratch for embeddings.h5 in `folder`, batches of four."""
    return PartialRows(folder / "embeddings.h5", row=ROW, identity=IDENTITY | identity, batch=4)


def numbers(one: PartialRows) -> list[int]:
    """Return the first feature of every row."""
    return [int(row["features"][0]) for block in one.blocks() for row in block]


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A folder with ten rows, of batches of 4, 4 and 2."""
    one = scratch(tmp_path)
    assert one.open(restart=False) == 0
    for start, n in ((0, 4), (4, 4), (8, 2)):
        one.append(rows(start, n))
    assert numbers(one) == list(range(10))
    return tmp_path


def test_it_continues_at_a_whole_batch(filled: Path) -> None:
    one = scratch(filled)
    assert one.open(restart=False) == 8
    assert numbers(one) == list(range(8))
    one.append(rows(8, 4))
    assert numbers(one) == list(range(12))


def test_a_torn_row_is_cut_off(filled: Path) -> None:
    one = scratch(filled)
    os.truncate(one.path, 7 * ROW.itemsize + 5)
    assert one.open(restart=False) == 4
    assert one.path.stat().st_size == 4 * ROW.itemsize


@pytest.mark.parametrize("garbage", [b"\0", b"\xff", b"x"])
def test_garbage_in_a_row_cuts_there(filled: Path, garbage: bytes) -> None:
    one = scratch(filled)
    data = bytearray(one.path.read_bytes())
    data[6 * ROW.itemsize : 7 * ROW.itemsize] = garbage * ROW.itemsize
    one.path.write_bytes(data)
    assert one.open(restart=False) == 4
    assert numbers(one) == list(range(4))


def test_garbage_after_the_rows(filled: Path) -> None:
    one = scratch(filled)
    with one.path.open("ab") as file:
        file.write(bytes(3 * ROW.itemsize + 1))
    assert one.open(restart=False) == 8


@pytest.mark.fault("one flipped bit in any file of a run")
def test_one_flipped_bit_is_seen(filled: Path) -> None:
    one = scratch(filled)
    data = bytearray(one.path.read_bytes())
    data[5 * ROW.itemsize] ^= 1
    one.path.write_bytes(data)
    assert one.open(restart=False) == 4


def test_rows_of_another_model_are_refused(filled: Path) -> None:
    before = (filled / "embeddings.h5.partial").read_bytes()
    with pytest.raises(StaleInput, match="rows made with another inputs: pass --restart") as caught:
        scratch(filled, inputs={"model": "b"}).open(restart=False)
    assert "\n" not in str(caught.value)
    assert (filled / "embeddings.h5.partial").read_bytes() == before


def test_rows_with_more_in_their_identity_are_refused(filled: Path) -> None:
    scratch(filled, later=1).open(restart=True)
    with pytest.raises(StaleInput, match="another later"):
        scratch(filled).open(restart=False)


@pytest.mark.parametrize("header", ["", "{", "[1]", "7", "\x00\xff"])
def test_a_damaged_header_is_refused(filled: Path, header: str) -> None:
    scratch(filled).header.write_bytes(header.encode("latin-1"))
    with pytest.raises(StaleInput, match="--restart"):
        scratch(filled).open(restart=False)


@pytest.mark.fault("one flipped bit in any file of a run")
def test_one_flipped_bit_in_the_header_is_seen(filled: Path) -> None:
    """What was chosen when the rows were started goes into the record of the embeddings (P8)."""
    header = scratch(filled).header
    content = header.read_bytes()
    for place in range(8 * len(content)):
        changed = bytearray(content)
        changed[place // 8] ^= 1 << place % 8
        header.write_bytes(changed)
        assert scratch(filled).stored_identity() in ({}, IDENTITY), place


def test_restart_drops_the_rows(filled: Path) -> None:
    one = scratch(filled, precision="bf16")
    assert one.open(restart=True) == 0
    assert numbers(one) == []
    assert one.stored_identity()["precision"] == "bf16"


def test_rows_without_a_header_are_dropped(filled: Path) -> None:
    scratch(filled).header.unlink()
    one = scratch(filled)
    assert one.open(restart=False) == 0
    assert numbers(one) == []


def test_a_header_without_rows(filled: Path) -> None:
    scratch(filled).path.unlink()
    assert scratch(filled).open(restart=False) == 0


def test_remove_leaves_nothing(filled: Path) -> None:
    one = scratch(filled)
    one.remove()
    one.remove()
    assert list(filled.iterdir()) == []
    assert one.stored_identity() == {}


def test_cut_keeps_whole_batches(filled: Path) -> None:
    one = scratch(filled)
    assert one.cut(7) == 4
    assert numbers(one) == [0, 1, 2, 3]


class Short(io.RawIOBase):
    """A file on a disk that takes ten bytes more."""

    def write(self, data: bytes) -> int:  # type: ignore[override]
        return min(10, len(data))

    def writable(self) -> bool:
        return True


class Full(Short):
    """A file on a full disk."""

    def write(self, data: bytes) -> int:  # type: ignore[override]
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.fault("full disk, in every writer")
@pytest.mark.parametrize("kind", [Short, Full])
def test_a_full_disk(filled: Path, monkeypatch: pytest.MonkeyPatch, kind: type) -> None:
    one = scratch(filled)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda self, *a, **k: kind())
        with pytest.raises(DiskFull, match=r"embeddings\.h5\.partial"):
            one.append(rows(10, 4))
    assert one.open(restart=False) == 8
