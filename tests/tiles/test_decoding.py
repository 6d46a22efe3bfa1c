"""One rule from file to pixels, or BadTile with one clear line."""

import hashlib
import io
import random
import struct
import threading
import time
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import BadTile
from pipeline.tiles import decoding
from pipeline.tiles.decoding import decode_tile, pixel_hash, resize

NOISE = np.random.default_rng(1).integers(0, 256, (20, 24, 3), dtype=np.uint8)


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    """`file(image or bytes, name, **save options)` -> path."""

    def write(content: Image.Image | bytes, name: str = "a.png", **options: Any) -> Path:
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            content.save(path, **options)
        return path

    return write


def png(*, depth: int, colour: int, row: bytes, size: int = 4, first: bytes = b"") -> bytes:
    """Build a PNG by hand: Pillow writes no 16-bit colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", size, size, depth, colour, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress((b"\0" + row) * size))
    return b"\x89PNG\r\n\x1a\n" + first + header + pixels + chunk(b"IEND", b"")


def tiff_rgb16() -> bytes:
    """Build an uncompressed 2x2 RGB TIFF of 16 bits a channel."""
    bits_at, strip_at = 8 + 2 + 10 * 12 + 4, 8 + 2 + 10 * 12 + 4 + 6
    tags = [
        (256, 3, 1, 2),
        (257, 3, 1, 2),
        (258, 3, 3, bits_at),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, strip_at),
        (277, 3, 1, 3),
        (278, 3, 1, 2),
        (279, 4, 1, 24),
        (284, 3, 1, 1),
    ]
    body = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8) + body + struct.pack("<HHH", 16, 16, 16) + bytes(range(24))


def refused(path: Path, pattern: str) -> str:
    with pytest.raises(BadTile, match=pattern) as caught:
        decode_tile(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert len(message) > len(f"{path}: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.png", {}),
        ("a.tif", {}),
        ("a.tif", {"compression": "tiff_lzw"}),
        ("a.tiff", {"compression": "tiff_deflate"}),
        ("a.webp", {"lossless": True}),
        ("another.jpg", {"format": "PNG"}),
        ("a.bmp", {}),
        ("a.ppm", {}),
        ("a.jp2", {}),
        ("a.j2k", {"no_jp2": True}),
    ],
)
def test_rgb_comes_as_it_is_in_every_lossless_format(
    file: Callable[..., Path], name: str, options: dict[str, Any]
) -> None:
    pixels = decode_tile(file(Image.fromarray(NOISE), name, **options))
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, NOISE)
    assert pixel_hash(pixels) == pixel_hash(NOISE)


def test_jpeg_is_decoded(file: Callable[..., Path]) -> None:
    flat = np.full((16, 16, 3), (200, 100, 150), np.uint8)
    assert np.abs(decode_tile(file(Image.fromarray(flat), "a.jpg", quality=95)).astype(int) - flat).max() <= 3


@pytest.mark.fault("odd colour modes, depths and orientations")
def test_grey_and_1_bit_become_rgb(file: Callable[..., Path]) -> None:
    grey = Image.fromarray(NOISE[..., 0])
    assert np.array_equal(decode_tile(file(grey)), np.repeat(NOISE[..., :1], 3, axis=2))
    bits = decode_tile(file(grey.point(lambda v: 255 * (v > 127), "1")))
    assert np.array_equal(bits[..., 0], 255 * (NOISE[..., 0] > 127))
    assert set(np.unique(bits)) == {0, 255}


@pytest.mark.fault("odd colour modes, depths and orientations")
def test_palette_with_and_without_transparency(file: Callable[..., Path]) -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([200, 10, 30, 5, 6, 7])
    palette.putpixel((1, 0), 1)
    assert decode_tile(file(palette)).tolist() == [[[200, 10, 30], [5, 6, 7]]]
    assert decode_tile(file(palette, transparency=1)).tolist() == [[[200, 10, 30], [255, 255, 255]]]


@pytest.mark.fault("odd colour modes, depths and orientations")
def test_transparency_is_laid_on_white(file: Callable[..., Path]) -> None:
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 128]]], np.uint8)
    seen = decode_tile(file(Image.fromarray(rgba)))[0]
    assert seen[0].tolist() == [10, 20, 30]
    assert seen[1].tolist() == [255, 255, 255]
    assert abs(int(seen[2, 0]) - 127) <= 1
    grey_alpha = Image.fromarray(np.array([[[40, 255], [40, 0]]], np.uint8), mode="LA")
    assert decode_tile(file(grey_alpha)).tolist() == [[[40] * 3, [255] * 3]]
    key = Image.fromarray(np.array([[[1, 2, 3], [9, 9, 9]]], np.uint8))
    assert decode_tile(file(key, transparency=(9, 9, 9))).tolist() == [[[1, 2, 3], [255] * 3]]
    assert decode_tile(file(Image.fromarray(rgba), "a.webp", lossless=True, exact=True)).shape == (1, 3, 3)


@pytest.mark.fault("odd colour modes, depths and orientations")
def test_cmyk_is_converted(file: Callable[..., Path]) -> None:
    for name in ("a.tif", "a.jpg"):
        cyan = decode_tile(file(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), name))
        assert (cyan[..., 0] < 10).all()
        assert (cyan[..., 1:] > 245).all()


@pytest.mark.fault("odd colour modes, depths and orientations")
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp"])
def test_exif_orientation_is_applied(file: Callable[..., Path], name: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    picture = Image.new("RGB", (16, 8), "red")
    picture.paste("blue", (8, 0, 16, 8))
    upright = decode_tile(file(picture, name, exif=exif))
    assert upright.shape == (16, 8, 3)
    assert upright[2, 4, 0] > 200  # the left half, red, is above now
    assert upright[13, 4, 2] > 200


@pytest.mark.fault("odd colour modes, depths and orientations")
@pytest.mark.parametrize(
    ("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)], ids=["grey", "rgb", "grey-alpha", "rgba"]
)
def test_16_bit_png_is_refused(file: Callable[..., Path], colour: int, channels: int) -> None:
    """Pillow would reduce colour to 8 bits without a word."""
    data = png(depth=16, colour=colour, row=b"\x12\x34" * channels * 4)
    Image.open(io.BytesIO(data)).load()  # it is a good file
    refused(file(data), "deeper than 8 bits")
    assert decode_tile(file(png(depth=8, colour=colour, row=b"\xff" * channels * 4))).tolist() == [[[255] * 3] * 4] * 4


@pytest.mark.fault("odd colour modes, depths and orientations")
def test_deep_tiff_is_refused(file: Callable[..., Path]) -> None:
    refused(file(Image.fromarray(np.full((4, 4), 1000, np.uint16)), "a.tif"), "deeper than 8 bits")
    refused(file(Image.fromarray(np.full((4, 4), 0.5, np.float32)), "a.tif"), "deeper than 8 bits")
    refused(file(Image.fromarray(np.full((4, 4), 70_000, np.int32)), "a.tif"), "deeper than 8 bits")
    Image.open(io.BytesIO(tiff_rgb16())).load()
    refused(file(tiff_rgb16(), "a.tif"), "deeper than 8 bits")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.tif", "TIFF"), ("a.png", "WEBP"), ("a.png", "PNG"), ("a.gif", "GIF")],
    ids=["pages", "webp", "apng", "gif"],
)
def test_several_pages_or_frames_are_refused(file: Callable[..., Path], name: str, kind: str) -> None:
    frames = [Image.fromarray(NOISE), Image.fromarray(255 - NOISE)]
    refused(file(frames[0], name, format=kind, save_all=True, append_images=frames[1:]), "several pages or frames")


@pytest.mark.fault("truncated, empty or garbage tile")
@pytest.mark.parametrize(
    "content",
    [b"x", b"this is text\n" * 50, b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"II*\0"],
    ids=["one byte", "text", "png signature", "jpeg signature", "tiff signature"],
)
def test_what_is_no_image_is_refused(file: Callable[..., Path], content: bytes) -> None:
    refused(file(content, "a.png"), "not a readable PNG, JPEG")
    refused(file(content, "identify me.png"), "not a readable PNG, JPEG")


@pytest.mark.fault("truncated, empty or garbage tile")
@pytest.mark.parametrize(("name", "options"), [("a.jpg", {}), ("a.png", {}), ("a.tif", {}), ("a.webp", {})])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_truncated_files_are_refused(
    file: Callable[..., Path], name: str, options: dict[str, Any], kept: float
) -> None:
    """`Image.verify()` would pass half a JPEG."""
    big = np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = file(Image.fromarray(big), name, **options)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    refused(path, ".")


@pytest.mark.fault("decompression bomb")
def test_too_large_images_and_bombs_are_refused(file: Callable[..., Path]) -> None:
    assert decode_tile(file(Image.new("1", (4096, 1)))).shape == (1, 4096, 3)
    refused(file(Image.new("1", (4097, 1))), "4097x1 px is more than 4096")
    refused(file(png(depth=8, colour=2, row=b"", size=12_000)), "12000x12000 px is more than 4096")
    refused(file(png(depth=8, colour=2, row=b"", size=60_000)), "bomb")  # Pillow raises
    path = file(png(depth=8, colour=2, row=b"", size=12_000))
    with pytest.raises(BadTile, match="bomb"):  # a flat slide may be larger than a tile, but not than Pillow's limit
        decode_tile(path, max_side=20_000)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none.png", "not there")
    refused(tmp_path, "not a file")
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    refused(tmp_path / "link.png", "not there")


def test_an_error_without_a_text_is_still_named(file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A problem of no words would count as no problem."""

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.Image, "convert", fail)
    refused(file(Image.fromarray(NOISE)), "MemoryError")


def test_damaged_files_end_in_pixels_or_in_bad_tile(tmp_path: Path) -> None:
    """Pillow's parsers raise TypeError, struct.error and others on damaged headers."""
    rng = random.Random(5)
    sources = []
    for options in ({"format": "PNG"}, {"format": "JPEG"}, {"format": "TIFF"}, {"format": "WEBP"}):
        buffer = io.BytesIO()
        Image.fromarray(NOISE).save(buffer, **options)
        sources.append(buffer.getvalue())
    path = tmp_path / "a.png"
    outcomes, lines = set(), set()
    for i in range(400):
        data = bytearray(sources[i % len(sources)])
        for _ in range(rng.choice((1, 4))):
            data[rng.randrange(min(len(data), 250))] = rng.randrange(256)
        path.write_bytes(data)
        try:
            pixels = decode_tile(path)
        except BadTile as error:
            lines.add(str(error).count("\n"))
            outcomes.add("bad")
        else:
            assert pixels.dtype == np.uint8
            assert pixels.shape[2] == 3
            outcomes.add("pixels")
    assert outcomes == {"bad", "pixels"}
    assert lines == {0}


@pytest.mark.fault("a decoder that raises anything")
def test_any_exception_of_the_parser_is_bad_tile(file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = file(Image.fromarray(NOISE))

    def fail(*_: object, **__: object) -> None:
        raise TypeError("Missing\ndimensions")

    monkeypatch.setattr(decoding.Image, "open", fail)
    refused(path, "Missing dimensions")


def test_a_guess_of_pillow_is_refused(file: Callable[..., Path]) -> None:
    """It warns where it guesses; here the TIFF's directory ends early."""
    path = file(tiff_rgb16().replace(struct.pack("<H", 10), struct.pack("<H", 30), 1)[:200], "a.tif")
    refused(path, ".")


def test_threads_leave_the_processs_warning_filters_alone(
    file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Filters belong to the process: changed by several threads at once they would stay changed for later stages."""
    path = file(Image.fromarray(NOISE))
    before = list(warnings.filters)
    turn = threading.Barrier(4)
    really_open = Image.open

    def open_slowly(*words: Any, **more: Any) -> Image.Image:
        time.sleep(0.001)  # lets another thread run here
        return really_open(*words, **more)

    def work(_: int) -> None:
        turn.wait()
        for _ in range(10):
            decode_tile(path)

    monkeypatch.setattr(decoding.Image, "open", open_slowly)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert warnings.filters == before


def test_hash_is_of_size_and_pixels() -> None:
    assert pixel_hash(NOISE) == hashlib.sha256(b"24x20:" + NOISE.tobytes()).digest()
    turned = np.asfortranarray(NOISE)
    assert pixel_hash(turned) == pixel_hash(NOISE)
    assert pixel_hash(NOISE.reshape(24, 20, 3)) != pixel_hash(NOISE)
    other = NOISE.copy()
    other[3, 4, 1] ^= 1
    assert pixel_hash(other) != pixel_hash(NOISE)


def test_resize_leaves_a_fitting_tile_alone() -> None:
    square = NOISE[:16, :16]
    assert resize(square, 16) is square
    assert resize(NOISE, 8).shape == (8, 8, 3)
    assert resize(np.full((30, 30, 3), 77, np.uint8), 16).tolist() == [[[77] * 3] * 16] * 16
