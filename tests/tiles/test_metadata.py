"""Damaged metadata and previews do not cost whole pixels; masks in the fourth channel are no opacity."""

import csv
import io
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from pipeline.errors import BadTile
from pipeline.tiles.decoding import Decoded, decode_tile, read_tile
from pipeline.tiles.image_limits import MOST_COPIES
from pipeline.tiles.metadata import without_metadata

NOISE = np.random.default_rng(4).integers(0, 256, (20, 24, 3), dtype=np.uint8)
IMAGE = Image.fromarray(NOISE)
MAKER, ORIENTATION = 0x10F, 0x112
REDUCED = 254


def saved(kind: str, image: Image.Image = IMAGE, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def read(tmp_path: Path, data: bytes, name: str = "a.png") -> Decoded:
    (tmp_path / name).write_bytes(data)
    return read_tile(tmp_path / name)


def exif(**tags: int | str) -> Image.Exif:
    made = Image.Exif()
    made[MAKER] = tags.get("maker", "Maker of microscopes and cameras")
    made[ORIENTATION] = tags.get("orientation", 1)
    return made


def patched(data: bytes, tag: int, kind: int, *, count: int, order: str = ">") -> bytes:
    """Return a file in which the EXIF or TIFF entry of a tag claims another count."""
    at = data.find(struct.pack(f"{order}HH", tag, kind))
    assert at > 0
    return data[: at + 4] + struct.pack(f"{order}I", count) + data[at + 8 :]


def chunk(kind: bytes, data: bytes, *, right: bool = True) -> bytes:
    crc = zlib.crc32(kind + data) if right else 0
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)


def with_chunk(extra: bytes) -> bytes:
    """Return a PNG with a chunk more after its header."""
    whole = saved("PNG")
    return whole[:33] + extra + whole[33:]


DAMAGED_PNG = {
    "text of another checksum": chunk(b"tEXt", b"Software\0tiler", right=False),
    "text that unpacks to 100 MB": chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(100_000_000))),
    "text of an unknown compression": chunk(b"zTXt", b"a\0\7" + b"xyz"),
    "broken colour profile": chunk(b"iCCP", b"profile\0\0" + b"not zlib"),
    "profile of another checksum": chunk(b"iCCP", b"profile\0\0" + zlib.compress(b"profile"), right=False),
    "time that is too short": chunk(b"tIME", b"\x07"),
    "physical size that is too short": chunk(b"pHYs", b"\0"),
    "EXIF of zeros": chunk(b"eXIf", bytes(20)),
    "EXIF of another checksum": chunk(b"eXIf", bytes(20), right=False),
    "gamma that is empty": chunk(b"gAMA", b""),
}


@pytest.mark.parametrize("name", DAMAGED_PNG)
def test_damaged_optional_chunks_of_a_png_are_ignored(tmp_path: Path, name: str) -> None:
    assert np.array_equal(read(tmp_path, with_chunk(DAMAGED_PNG[name])).pixels, NOISE)


@pytest.mark.parametrize("part", [b"IHDR", b"IDAT"])
def test_a_damaged_needed_chunk_of_a_png_is_refused(tmp_path: Path, part: bytes) -> None:
    whole = bytearray(saved("PNG"))
    at = whole.find(part) + 8
    whole[at] ^= 0xFF
    with pytest.raises(BadTile):
        read(tmp_path, bytes(whole))


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: patched(data, MAKER, 2, count=3400),
        lambda data: patched(data, MAKER, 2, count=2**31),
        lambda data: data.replace(b"Exif\0\0MM\0*", b"Exif\0\0XX\0*", 1),
        lambda data: data.replace(b"Exif\0\0MM\0*\0\0\0\x08", b"Exif\0\0MM\0*\xff\xff\xff\xf0", 1),
        lambda data: data.replace(b"Exif\0\0MM\0*", b"Exif\0\0" + bytes(4), 1),
        lambda data: data[:2] + b"\xff\xe2" + struct.pack(">H", 40) + b"MPF\0MM\0*" + bytes(30) + data[2:],
        lambda data: data[:2] + b"\xff\xe2" + struct.pack(">H", 30) + b"ICC_PROFILE\0\x09\x01" + bytes(14) + data[2:],
        lambda data: (
            data[:2] + b"\xff\xed" + struct.pack(">H", 30) + b"Photoshop 3.0\x008BIM\x03" + bytes(9) + data[2:]
        ),
        lambda data: (
            data[:2] + b"\xff\xe1" + struct.pack(">H", 40) + b"http://ns.adobe.com/xap/1.0/\0<x:" + bytes(5) + data[2:]
        ),
    ],
    ids=["long tag", "huge tag", "no order", "far directory", "no header", "MPF", "ICC", "Photoshop", "XMP"],
)
def test_damaged_metadata_of_a_jpeg_is_ignored(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    """The first is the EXIF of thousands of files in ImageNet."""
    whole = saved("JPEG", exif=exif(), quality=95)
    expected = read(tmp_path, whole, "whole.jpg").pixels
    found = read(tmp_path, damage(whole), "a.jpg").pixels
    assert np.array_equal(found, expected)


def test_an_orientation_is_applied_although_other_tags_are_damaged(tmp_path: Path) -> None:
    whole = saved("JPEG", exif=exif(orientation=6), quality=95)
    found = read(tmp_path, patched(whole, MAKER, 2, count=3400), "a.jpg")
    assert found.pixels.shape == (24, 20, 3)
    assert found.note == ""


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_an_orientation_that_cannot_be_read_is_noted(tmp_path: Path, kind: str) -> None:
    whole = saved(kind, exif=exif(orientation=6), quality=95)
    assert read(tmp_path, whole).pixels.shape == (24, 20, 3)
    for damaged in (
        whole.replace(b"MM\0*\0\0\0\x08", b"MM\0*\0\0\xff\xf0", 1),
        whole.replace(struct.pack(">HHIH", ORIENTATION, 3, 1, 6), struct.pack(">HHIH", ORIENTATION, 3, 1, 77), 1),
    ):
        assert damaged != whole
        found = read(tmp_path, _mended(damaged))
        assert found.pixels.shape == (20, 24, 3)
        assert "orientation" in found.note


def _mended(data: bytes) -> bytes:
    """Return a PNG with right checksums; other formats have none."""
    if not data.startswith(b"\x89PNG"):
        return data
    kept, at = [data[:8]], 8
    while at < len(data):
        length = int.from_bytes(data[at : at + 4])
        kept.append(chunk(data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return b"".join(kept)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate"])
@pytest.mark.parametrize("tag", [270, 305, 306, 315, 33432])
@pytest.mark.parametrize("damage", ["count", "offset"])
def test_damaged_metadata_of_a_tiff_is_ignored(tmp_path: Path, tag: int, damage: str, compression: str | None) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[tag] = "a description that is longer than four bytes"
    whole = saved("TIFF", tiffinfo=tags, compression=compression)
    at = whole.find(struct.pack("<HH", tag, 2))
    at += 4 if damage == "count" else 8
    damaged = whole[:at] + struct.pack("<I", 0x7FFFFFFF) + whole[at + 4 :]
    assert np.array_equal(read(tmp_path, damaged, "a.tif").pixels, NOISE)


@pytest.mark.parametrize("tag", [258, 273, 279])
def test_damaged_structure_of_a_tiff_is_refused(tmp_path: Path, tag: int) -> None:
    whole = saved("TIFF")
    at = next(whole.find(struct.pack("<HH", tag, kind)) for kind in (3, 4) if struct.pack("<HH", tag, kind) in whole)
    with pytest.raises(BadTile):
        read(tmp_path, whole[: at + 4] + struct.pack("<II", 2**20, 2**31 - 1) + whole[at + 12 :], "a.tif")


def pages(*images: np.ndarray, kinds: dict[int, int], **options: Any) -> bytes:
    """Return a TIFF of some pages; `kinds` maps a page to its value of tag 254."""
    out = io.BytesIO()
    with TiffImagePlugin.AppendingTiffWriter(out, new=True) as writer:
        for page, pixels in enumerate(images):
            tags = TiffImagePlugin.ImageFileDirectory_v2()
            if page in kinds:
                tags[REDUCED] = kinds[page]
            Image.fromarray(pixels).save(writer, "TIFF", tiffinfo=tags, **options)
            writer.newFrame()
    return out.getvalue()


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_reduced_copies_in_a_tiff_are_no_pages(tmp_path: Path, compression: str | None) -> None:
    small = [NOISE[::2, ::2].copy(), NOISE[::4, ::4].copy()]
    found = read(tmp_path, pages(NOISE, *small, kinds={1: 1, 2: 1}, compression=compression), "a.tif")
    assert np.array_equal(found.pixels, NOISE)
    assert found.note == ""
    for kinds in ({}, {1: 1}, {1: 2, 2: 2}):
        with pytest.raises(BadTile, match="several pages"):
            read(tmp_path, pages(NOISE, *small, kinds=kinds, compression=compression), "a.tif")
    many = [NOISE[:1, :1].copy()] * (MOST_COPIES + 1)
    with pytest.raises(BadTile, match="several pages"):
        read(tmp_path, pages(NOISE, *many, kinds=dict.fromkeys(range(1, MOST_COPIES + 2), 1)), "a.tif")


def test_a_link_to_a_second_page_that_is_not_there_is_noted(tmp_path: Path) -> None:
    whole = saved("TIFF")
    (start,) = struct.unpack_from("<I", whole, 4)
    (n,) = struct.unpack_from("<H", whole, start)
    at = start + 2 + 12 * n
    assert whole[at : at + 4] == bytes(4)
    found = read(tmp_path, whole[:at] + struct.pack("<I", 10**9) + whole[at + 4 :], "a.tif")
    assert np.array_equal(found.pixels, NOISE)


def test_the_previews_of_a_multi_picture_jpeg_are_no_frames(tmp_path: Path) -> None:
    preview = Image.fromarray(255 - NOISE[::2, ::2])
    whole = saved("MPO", save_all=True, append_images=[preview], quality=95)
    assert Image.open(io.BytesIO(whole)).n_frames == 2
    first = saved("JPEG", quality=95)
    assert np.array_equal(read(tmp_path, whole, "a.jpg").pixels, read(tmp_path, first, "b.jpg").pixels)


def test_a_file_without_metadata_holds_the_same_pixels() -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[270], tags[ORIENTATION] = "text", 6
    for data in (saved("TIFF", tiffinfo=tags), saved("TIFF", tiffinfo=tags, big_tiff=True)):
        cleaned = without_metadata(data)
        assert cleaned is not None
        with Image.open(io.BytesIO(cleaned)) as image, Image.open(io.BytesIO(data)) as before:
            assert 270 not in image.tag_v2
            assert image.getexif()[ORIENTATION] == 6
            assert np.array_equal(np.asarray(image), np.asarray(before))
    assert without_metadata(saved("JPEG")) is None
    assert without_metadata(b"II*\0") is None


def test_removing_metadata_of_damaged_files_never_fails() -> None:
    rng = random.Random(1)
    for kind in ("PNG", "TIFF"):
        whole = saved(kind)
        for _ in range(300):
            data = bytearray(whole)
            for _ in range(3):
                data[rng.randrange(8, len(data))] = rng.randrange(256)
            cleaned = without_metadata(bytes(data[: rng.randrange(8, len(data))]))
            assert cleaned is None or len(cleaned) <= len(data) + 200


def rgba(alpha: np.ndarray, colours: np.ndarray = NOISE) -> Image.Image:
    return Image.fromarray(np.dstack([colours, alpha.astype(np.uint8)]))


SIDES = NOISE.shape[:2]
MASKS = {
    "nothing": np.zeros(SIDES),
    "0 and 1": np.random.default_rng(0).random(SIDES) < 0.5,
    "seven classes": np.random.default_rng(0).integers(0, 7, SIDES),
    "all 1": np.ones(SIDES),
    "a few visible": np.where(np.arange(SIDES[0] * SIDES[1]).reshape(SIDES) < 20, 255, 0),
}


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_a_mask_in_the_fourth_channel_is_refused(tmp_path: Path, kind: str, name: str) -> None:
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    with pytest.raises(BadTile, match=f"alpha at most {int(MASKS[name].max())}, on average"):
        read(tmp_path, saved(kind, rgba(MASKS[name]), **options))


def test_a_grey_tile_with_a_mask_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadTile, match="transparency"):
        read(tmp_path, saved("PNG", Image.fromarray(np.dstack([NOISE[..., 0], np.ones(SIDES, np.uint8)]), "LA")))


def test_transparency_that_hides_one_colour_is_opacity(tmp_path: Path) -> None:
    """As programs cut out tissue; a tile of empty slide may have nothing visible at all."""
    for alpha in (MASKS["nothing"], MASKS["a few visible"]):
        colours = np.where(alpha[..., None] > 0, NOISE, 0).astype(np.uint8)
        found = read(tmp_path, saved("PNG", rgba(alpha, colours)))
        assert np.array_equal(found.pixels, np.where(alpha[..., None] > 0, NOISE, 255))
        assert found.note == ""


def test_a_picture_that_is_hidden_in_part_is_noted(tmp_path: Path) -> None:
    half = np.where(np.arange(SIDES[1]) < 12, 255, 0) + np.zeros(SIDES)
    found = read(tmp_path, saved("PNG", rgba(half)))
    assert "transparency" in found.note
    assert (found.pixels[:, 12:] == 255).all()
    assert read(tmp_path, saved("PNG", rgba(np.full(SIDES, 255)))).note == ""


def test_libtiff_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Its lines name no file: `tempfile.tif: WEBP compression support is not configured.`"""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    whole = saved("TIFF", compression="tiff_lzw", tiffinfo=tags)
    at = whole.find(struct.pack("<HHIH", 259, 3, 1, 5))
    (tmp_path / "a.tif").write_bytes(whole[: at + 8] + struct.pack("<H", 50001) + whole[at + 10 :])
    with pytest.raises(BadTile, match=r"a\.tif: .*webp"):
        decode_tile(tmp_path / "a.tif")
    packed = saved("TIFF", compression="jpeg").replace(b"\xff\xd8", bytes(2))
    (tmp_path / "b.tif").write_bytes(packed)
    with pytest.raises(BadTile, match=r"b\.tif: "):
        decode_tile(tmp_path / "b.tif")
    assert capfd.readouterr() == ("", "")


PLACEHOLDERS = {
    "git lfs pull": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 177552579\n",
    "git annex get": b"/annex/objects/SHA256E-s123--abc.png\n",
    "empty file": b"",
    "zeros": bytes(4000),
    "HTML page": b"<!DOCTYPE html><html><body>404</body></html>",
    "error message": b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code></Error>',
}


@pytest.mark.parametrize("reason", PLACEHOLDERS)
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jpg"])
def test_a_file_that_stands_for_another_is_named_so(tmp_path: Path, reason: str, name: str) -> None:
    with pytest.raises(BadTile, match=reason):
        read(tmp_path, PLACEHOLDERS[reason], name)


@pytest.mark.parametrize(
    ("kind", "options"), [("PPM", {}), ("JPEG2000", {}), ("JPEG2000", {"no_jp2": True})], ids=["ppm", "jp2", "j2k"]
)
def test_deep_colour_is_refused_in_every_format(tmp_path: Path, kind: str, options: dict[str, Any]) -> None:
    whole = saved(kind, **options)
    if kind == "PPM":
        deep = whole.replace(b"255\n", b"65535\n", 1) + bytes(NOISE.size)
    else:
        at = whole.find(b"\xff\x4f\xff\x51") + 42
        deep = whole[:at] + b"\x0b" + whole[at + 1 :]
    assert np.array_equal(read(tmp_path, whole).pixels, NOISE)
    with pytest.raises(BadTile, match="deeper than 8 bits"):
        read(tmp_path, deep)


# -- a survey of public test images ------------------------------------------------------------------------------------

SURVEY = Path(__file__).parent / "survey_of_images.csv"
"""Names and verdicts (read with its size, or refused) of the pictures in Tests/images of Pillow 13.0.0's source."""

PICTURES = Path(__file__).parents[2] / "../shared/data/pillow_images"
"""A copy of that folder: `pip download --no-deps --no-binary pillow pillow==13.0.0`, and unpack it."""


@pytest.mark.skipif(not PICTURES.is_dir(), reason="../shared/data/pillow_images is not there")
def test_public_test_images_are_read_or_refused_by_name(capfd: pytest.CaptureFixture[str]) -> None:
    with SURVEY.open(newline="") as handle:
        expected = {row["name"]: row["verdict"] for row in csv.DictReader(handle)}
    found, reasons = {}, {}
    for name in expected:
        try:
            height, width, _ = decode_tile(PICTURES / name).shape
            found[name] = f"{width}x{height}"
        except BadTile as error:
            found[name], reasons[name] = "refused", str(error)
    assert found == expected
    assert all(reason.startswith(f"{PICTURES / name}: ") for name, reason in reasons.items())
    assert capfd.readouterr() == ("", "")


def test_the_survey_has_both_verdicts() -> None:
    with SURVEY.open(newline="") as handle:
        verdicts = [row["verdict"] == "refused" for row in csv.DictReader(handle)]
    assert len(verdicts) > 600
    assert 0.3 < sum(verdicts) / len(verdicts) < 0.6


def test_pillow_logs_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Its logger prints `More samples per pixel than can be decoded` where no handler is set."""
    whole = saved("TIFF")
    at = whole.find(struct.pack("<HHIH", 277, 3, 1, 3))
    with pytest.raises(BadTile):
        read(tmp_path, whole[: at + 8] + struct.pack("<H", 60000) + whole[at + 10 :], "a.tif")
    assert capfd.readouterr() == ("", "")
