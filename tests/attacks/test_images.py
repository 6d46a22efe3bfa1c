"""Tiles from a stranger: what they would cost is looked at first, and only eight decoders are ever used.

Truncated and damaged files, deep and animated ones: tests/tiles/test_decoding.py.
"""

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import BadTile
from pipeline.tiles.decoding import decode_tile
from pipeline.tiles.image_limits import JPEG_SCAN, MAX_SIDE, MOST_BYTES, MOST_SCANS

from .hostile import in_own_process, needs_proc, refused

NOISE = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
GREY_TIFF = [(258, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1)]
"""Tags of 8-bit grey pixels."""


def tiff(tags: list[tuple[int, int, int, int]], data: bytes, *, data_tag: int, size_tag: int, more: int = 0) -> bytes:
    """Build a TIFF by hand: one directory, its data, and `more` copies of the directory as further pages."""
    n = len(tags) + 2
    length = 2 + 12 * n + 4
    at = 8 + length * (1 + more)
    tags = sorted([*tags, (data_tag, 4, 1, at), (size_tag, 4, 1, len(data))])
    entries = struct.pack("<H", n) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    pages = [entries + struct.pack("<I", 8 + length * (i + 1) if i < more else 0) for i in range(more + 1)]
    return b"II*\0" + struct.pack("<I", 8) + b"".join(pages) + data


def huge_blocks() -> bytes:
    """A TIFF of 64 x 64 px in one block of 20000 x 20000, packed a thousandfold."""
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(bytes(20_000_000)) for _ in range(20)) + packer.flush()
    tags = [(256, 3, 1, 64), (257, 3, 1, 64), (259, 3, 1, 8), (322, 4, 1, 20_000), (323, 4, 1, 20_000)]
    return tiff([*GREY_TIFF, *tags], data, data_tag=324, size_tag=325)


def many_pages() -> bytes:
    """A TIFF of 20000 pages; counting them takes time by the square of their number."""
    tags = [(256, 3, 1, 8), (257, 3, 1, 8), (259, 3, 1, 1), (278, 3, 1, 8)]
    return tiff([*GREY_TIFF, *tags], bytes(64), data_tag=273, size_tag=279, more=20_000)


def jpeg_of_scans(n_scans: int, *, side: int = MAX_SIDE) -> bytes:
    """A progressive JPEG that refines all coefficients n times, in 36 bytes each (libjpeg-turbo's maxscans)."""
    blocks = (side // 8) ** 2

    def segment(marker: int, content: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content

    def scan(spectrum: tuple[int, int], bits: int, data: bytes) -> bytes:
        return segment(0xDA, bytes([1, 1, 0, *spectrum, bits])) + data

    runs, rest = "", blocks  # runs of empty blocks, 16384 + 14 bits each
    while rest >= 16_384:
        run = min(rest, 32_767)
        runs, rest = runs + "00" + format(run - 16_384, "014b"), rest - run
    runs += "01" * rest
    runs += "1" * (-len(runs) % 8)
    data = int(runs, 2).to_bytes(len(runs) // 8, "big").replace(b"\xff", b"\xff\0")
    head = segment(0xDB, bytes([0, *[1] * 64])) + segment(0xC2, struct.pack(">BHHBBBB", 8, side, side, 1, 1, 0x11, 0))
    tables = segment(0xC4, bytes([0x00, 1, *[0] * 15, 0])) + segment(0xC4, bytes([0x10, 0, 2, *[0] * 14, 0xE0, 0]))
    first = scan((0, 0), 0, bytes(-(-blocks // 8))) + scan((1, 63), 1, data)
    return b"\xff\xd8" + head + tables + first + scan((1, 63), 0x10, data) * (n_scans - 2) + b"\xff\xd9"


def huge_png(side: int) -> bytes:
    """A PNG of side x side black pixels, 1 bit each, as small as deflate makes it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes((side // 8 + 1) * side), 9))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")


def saved(image: Image.Image, kind: str, **more: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **more)
    return out.getvalue()


def canvas(side: int) -> bytes:
    """A WebP of one small picture on a canvas of side x side, in 100 bytes."""
    picture = saved(Image.new("RGB", (16, 16)), "WEBP", lossless=True)[12:]
    sides = struct.pack("<I", side - 1)[:3] * 2
    frame = bytes(6) + struct.pack("<I", 15)[:3] * 2 + bytes(4) + picture
    chunks = [(b"VP8X", b"\x02\0\0\0" + sides), (b"ANIM", bytes(6)), (b"ANMF", frame)]
    body = b"WEBP" + b"".join(name + struct.pack("<I", len(data)) + data for name, data in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def bmp(side: int) -> bytes:
    """A BMP that claims side x side px of 1 bit and holds none."""
    head = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 1, 0, 0, 0, 0, 2, 0) + bytes(8)
    return b"BM" + struct.pack("<IHHI", 14 + len(head), 0, 0, 14 + len(head)) + head + bytes(100)


def gif(side: int) -> bytes:
    """A GIF of one pixel on a canvas of side x side."""
    whole = bytearray(saved(Image.new("P", (1, 1)), "GIF"))
    whole[6:10] = struct.pack("<HH", side, side)
    return bytes(whole)


def j2k(side: int) -> bytes:
    """A JPEG 2000 codestream whose header claims side x side px."""
    whole = bytearray(saved(Image.new("RGB", (16, 16)), "JPEG2000", no_jp2=True))
    whole[8:16] = struct.pack(">II", side, side)
    return bytes(whole)


def jpeg_of_side(side: int) -> bytes:
    """A baseline JPEG whose frame header claims side x side px."""
    whole = bytearray(saved(Image.new("RGB", (16, 16)), "JPEG"))
    at = whole.find(b"\xff\xc0") + 5
    whole[at : at + 4] = struct.pack(">HH", side, side)
    return bytes(whole)


BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "a PNG of 10000 x 10000": (lambda: huge_png(10_000), "10000x10000 px is more than 4096"),
    "a PNG of 60000 x 60000": (lambda: huge_png(60_000), "bomb"),
    "a TIFF of 9000 x 9000": (lambda: saved(Image.new("1", (9000, 9000)), "TIFF", compression="group4"), "4096"),
    "a TIFF in huge blocks": (huge_blocks, "stored in blocks of more than 4096 px"),
    "a TIFF of many pages": (many_pages, "several pages"),
    "a JPEG of many scans": (lambda: jpeg_of_scans(2000), "a JPEG of more than 100 scans"),
    "a WebP on a canvas of 9000": (lambda: canvas(9000), "9000x9000 px is more than 4096"),
    "a WebP on a canvas of 16383": (lambda: canvas(16_383), "bomb"),
    "a BMP of 30000 x 30000": (lambda: bmp(30_000), "bomb"),
    "a GIF of 65000 x 65000": (lambda: gif(65_000), "bomb"),
    "a JPEG 2000 of 50000 x 50000": (lambda: j2k(50_000), "bomb"),
    "a PPM of 50000 x 50000": (lambda: b"P6 50000 50000 255\n" + bytes(300), "bomb"),
    "a JPEG of 60000 x 60000": (lambda: jpeg_of_side(60_000), "60000x60000 px is more than 4096"),
}


@pytest.mark.fault("decompression bomb")
@needs_proc
def test_a_bomb_is_refused_at_once_and_in_little_memory(tmp_path: Path) -> None:
    """All in one process with a time limit that decoding any of them in full would break, or the memory's."""
    paths = []
    for i, (make, _) in enumerate(BOMBS.values()):
        paths.append(tmp_path / f"{i}.png")
        paths[-1].write_bytes(make())
        assert paths[-1].stat().st_size < 4_000_000
    outcomes = in_own_process(
        paths, "decode_tile(path)", imports="from pipeline.tiles.decoding import decode_tile", timeout_s=30
    )
    for (name, (_, rule)), outcome in zip(BOMBS.items(), outcomes, strict=True):
        assert outcome.said.startswith("BadTile"), name
        assert rule in outcome.said, name
        assert outcome.peak_mb < 60, name


def test_a_jpeg_of_as_many_scans_as_encoders_write_is_decoded(tmp_path: Path) -> None:
    assert jpeg_of_scans(MOST_SCANS).count(JPEG_SCAN) == MOST_SCANS
    (tmp_path / "a.jpg").write_bytes(jpeg_of_scans(MOST_SCANS, side=64))
    assert decode_tile(tmp_path / "a.jpg").shape == (64, 64, 3)
    (tmp_path / "b.jpg").write_bytes(saved(Image.fromarray(NOISE), "JPEG", progressive=True))
    assert decode_tile(tmp_path / "b.jpg").shape == (16, 16, 3)


def test_scans_are_counted_in_a_tiff_too(tmp_path: Path) -> None:
    """By libtiff itself."""
    tags = [(256, 3, 1, 64), (257, 3, 1, 64), (259, 3, 1, 7), (278, 3, 1, 64)]
    path = tmp_path / "a.tif"
    path.write_bytes(tiff([*GREY_TIFF, *tags], jpeg_of_scans(10, side=64), data_tag=273, size_tag=279))
    assert decode_tile(path).shape == (64, 64, 3)
    path.write_bytes(tiff([*GREY_TIFF, *tags], jpeg_of_scans(MOST_SCANS + 10, side=64), data_tag=273, size_tag=279))
    refused(BadTile, "decoder error", decode_tile, path)


def test_a_file_larger_than_any_tile_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse.png"
    path.write_bytes(saved(Image.fromarray(NOISE), "PNG"))
    os.truncate(path, MOST_BYTES + 1)  # takes no room on the disk
    refused(BadTile, "more than 256 MB", decode_tile, path)


FOREIGN: dict[str, Callable[[Path], bytes]] = {
    "TGA": lambda _: saved(Image.fromarray(NOISE), "TGA"),
    "PDF": lambda _: saved(Image.fromarray(NOISE), "PDF"),
    "ICO": lambda _: saved(Image.fromarray(NOISE), "ICO"),
    "PCX": lambda _: saved(Image.fromarray(NOISE), "PCX"),
    "AVIF": lambda _: saved(Image.fromarray(NOISE), "AVIF"),
    "EPS that runs a command": lambda marker: (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n(%pipe%mkdir "
        + str(marker).encode()
        + b") (r) file closefile\nshowpage\n"
    ),
    "SVG": lambda _: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "HTML": lambda _: b"<!doctype html><script>alert(1)</script>",
    "MVG of ImageMagick": lambda _: b"push graphic-context\nfill 'url(https://e.example/\"|mkdir marker\")'\n",
    "script": lambda marker: f"#!/bin/sh\nmkdir {marker}\n".encode(),
}


@pytest.mark.fault("another format under a tile's name")
@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_another_format_under_a_tiles_name(tmp_path: Path, name: str, suffix: str) -> None:
    path, marker = tmp_path / f"a{suffix}", tmp_path / "marker"
    path.write_bytes(FOREIGN[name](marker))
    refused(BadTile, "not a readable PNG, JPEG|an HTML page", decode_tile, path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "tail", [b"<script>alert(1)</script>", b"%PDF-1.7\n", b"PK\x05\x06" + bytes(18), b"#!/bin/sh\n"]
)
def test_a_picture_that_is_also_something_else_is_its_pixels(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(saved(Image.fromarray(NOISE), "PNG") + tail)
    assert np.array_equal(decode_tile(path), NOISE)


@pytest.mark.parametrize("target", ["/dev/zero", "/dev/stdin", "pipe", "."])
def test_what_is_no_plain_file_is_not_opened(tmp_path: Path, target: str) -> None:
    """A device never ends, a pipe never begins."""
    if target == "pipe":
        os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a.png").symlink_to(target)
    refused(BadTile, "not a file", decode_tile, tmp_path / "a.png")
