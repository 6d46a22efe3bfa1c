"""Slides from a stranger: what they claim is looked at first."""

import struct
import zlib
from pathlib import Path

import pytest

from pipeline.errors import BadSlide
from pipeline.slides.openslide_reader import open_slide

from .hostile import in_own_process, needs_proc


def tiled(width: int, height: int, block: int, data: bytes) -> bytes:
    """Build a tiled grey TIFF whose blocks are all the same bytes, packed by deflate."""
    n = -(-width // block) * -(-height // block)
    tags = [
        *((256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1)),
        *((322, 4, 1, block), (323, 4, 1, block)),
    ]
    at = 8 + 2 + 12 * (len(tags) + 2) + 4
    lists = at + len(data)
    inline = n == 1
    tags += [(324, 4, n, at if inline else lists), (325, 4, n, len(data) if inline else lists + 4 * n)]
    entries = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags)) + bytes(4)
    tail = b"" if inline else struct.pack(f"<{n}I", *[at] * n) + struct.pack(f"<{n}I", *[len(data)] * n)
    return b"II*\0" + struct.pack("<I", 8) + entries + data + tail


def packed(n_bytes: int) -> bytes:
    """Return zeros, packed a thousandfold."""
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(min(10_000_000, n_bytes))) for _ in range(-(-n_bytes // 10_000_000))) + (
        packer.flush()
    )


@pytest.mark.fault("damaged or odd slide")
@needs_proc
def test_a_slide_in_one_huge_block_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    """400 MB of grey, 1.6 GB as OpenSlide keeps it, in half a megabyte."""
    pytest.importorskip("openslide")
    path = tmp_path / "bomb.tif"
    path.write_bytes(tiled(20_000, 20_000, 20_000, packed(400_000_000)))
    imports = "from pipeline.slides.openslide_reader import open_slide"
    (outcome,) = in_own_process([path], "open_slide(path, 0.5)", imports=imports)
    assert "blocks of more than" in outcome.said
    assert outcome.peak_mb < 100


@pytest.mark.fault("damaged or odd slide")
def test_a_slide_that_claims_to_be_larger_than_any_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("openslide")
    path = tmp_path / "wide.tif"
    path.write_bytes(tiled(2_100_000, 16, 4096, packed(4096 * 4096)))
    with pytest.raises(BadSlide, match="claims 2100000x16 px"):
        open_slide(path, 0.5)


def test_devices_and_links_to_them_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "a.svs").symlink_to("/dev/zero")
    for path in (Path("/dev/zero"), tmp_path / "a.svs"):
        with pytest.raises(BadSlide, match="not a file"):
            open_slide(path, 0.5)
