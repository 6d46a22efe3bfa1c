"""TIFF headers: what OpenSlide and Pillow pass over is found, and refused by one rule whoever would read the file."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from pipeline.errors import BadSlide
from pipeline.slides.openslide_reader import open_slide
from pipeline.slides.tiff_header import is_cut, ome_mpp, read_tiff_header

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(100, 200, (320, 512, 3), dtype=np.uint8)


def write(path: Path, pixels: np.ndarray = PIXELS, **options: Any) -> Path:
    """Write a TIFF of 0.5 um/px."""
    scale: dict[str, Any] = {"resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER", "metadata": None}
    tifffile.imwrite(path, pixels, photometric="rgb", **(scale | options))
    return path


STORED: dict[str, dict[str, Any]] = {
    "tiled": {"tile": (256, 256)},
    "tiled jpeg": {"tile": (256, 256), "compression": "jpeg"},
    "strips": {},
    "lzw": {"compression": "lzw"},
    "jpeg strips": {"compression": "jpeg", "rowsperstrip": 64},
    "big": {"tile": (256, 256), "bigtiff": True},
}


@pytest.mark.parametrize("how", STORED)
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_turned_tiff_is_refused_however_it_is_stored(tmp_path: Path, how: str, orientation: int) -> None:
    pytest.importorskip("openslide")
    pytest.importorskip("imagecodecs")
    path = write(tmp_path / "s.tif", extratags=[(274, "H", 1, orientation, True)], **STORED[how])
    if orientation == 1:
        assert open_slide(path).dimensions == (512, 320)
        return
    with pytest.raises(BadSlide, match=rf"orientation {orientation}\): rewrite it: vips autorot IN OUT\.tif"):
        open_slide(path)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_a_turned_picture_is_refused_too(tmp_path: Path, suffix: str) -> None:
    """QuPath and OpenSlide do not apply EXIF, Pillow does: coordinates would differ."""
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(PIXELS).save(tmp_path / f"s{suffix}", exif=exif)
    with pytest.raises(BadSlide, match="orientation 6"):
        open_slide(tmp_path / f"s{suffix}", 0.5)


@pytest.mark.parametrize("how", ["tiled", "strips", "lzw"])
@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (PIXELS.astype(np.uint16) * 257, "16 bits a channel"),
        (PIXELS.astype(np.uint16) * 16, "16 bits a channel"),
        (PIXELS.astype(np.float32) / 255, "32-bit float"),
        (PIXELS.astype(np.float16), "16-bit float"),
        (PIXELS.astype(np.int8), "8 bits a channel, signed"),
    ],
)
def test_deep_slides_are_refused(tmp_path: Path, how: str, pixels: np.ndarray, words: str) -> None:
    pytest.importorskip("imagecodecs")
    path = write(tmp_path / "s.tif", pixels, **STORED[how])
    with pytest.raises(BadSlide, match=f"{words}: convert it to 8 bits a channel"):
        open_slide(path)


@pytest.mark.parametrize(
    ("kind", "alpha", "hidden"),
    [("unspecified", 1, True), ("unspecified", 128, True), ("unspecified", 255, False), ("unassalpha", 128, False)],
)
def test_a_fourth_channel_of_unknown_meaning_hides_nothing_in_silence(
    tmp_path: Path, kind: str, alpha: int, hidden: bool
) -> None:
    """OpenSlide takes it for opacity (libtiff) and changes the colours of all pixels below 255."""
    pytest.importorskip("openslide")
    stacked = np.dstack([PIXELS, np.full(PIXELS.shape[:2], alpha, np.uint8)])
    path = write(tmp_path / "s.tif", stacked, tile=(256, 256), extrasamples=[kind])
    header = read_tiff_header(path)
    assert header is not None
    assert (header.has_alpha, header.is_opacity) == (True, kind == "unassalpha")
    with open_slide(path) as slide:
        if hidden:
            with pytest.raises(BadSlide, match="fourth channel, which is not declared as alpha"):
                slide.thumbnail(256)
        else:
            assert slide.thumbnail(256).pixels.std() > 0
            assert slide.hidden_share() == 0


def test_the_scale_is_that_of_the_image_that_is_the_slide() -> None:
    """Scanners store the label and the macro image as further images of one OME-XML."""

    def image(side: int, mpp: str) -> str:
        return f'<Image><Pixels SizeX="{side}" SizeY="{side}" PhysicalSizeX="{mpp}" PhysicalSizeY="{mpp}"/></Image>'

    text = f"<OME>{image(100, '8')}{image(4000, '0.25')}{image(50, '16')}</OME>"
    assert ome_mpp(text, (4000, 4000)) == ((0.25, 0.25),)
    assert ome_mpp(text, (4001, 4000)) == ((8.0, 8.0), (0.25, 0.25), (16.0, 16.0))
    twice = f"<OME>{image(9, '0.5')}{image(9, '0.25')}{image(9, '0.5')}</OME>"
    assert ome_mpp(twice, (9, 9)) == ((0.5, 0.5), (0.25, 0.25))


@pytest.mark.parametrize("how", ["tiled", "strips"])
def test_a_label_before_the_slide_is_not_the_slide(tmp_path: Path, how: str) -> None:
    pytest.importorskip("openslide")
    options: dict[str, Any] = {"photometric": "rgb", "resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}
    for order in (1, -1):
        with tifffile.TiffWriter(tmp_path / "s.tif") as writer:
            for page in (PIXELS, PIXELS[:160, :300].copy())[::order]:
                writer.write(page, metadata=None, **options, **STORED[how])
        if order == 1:
            assert open_slide(tmp_path / "s.tif").dimensions == (512, 320)
        else:
            with pytest.raises(BadSlide, match=r"first image \(300x160 px\) is read, .* \(512x320 px\)"):
                open_slide(tmp_path / "s.tif")


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_cut_tiff_is_called_cut(tmp_path: Path, capfd: pytest.CaptureFixture[str], big: bool, order: str) -> None:
    """Scanners write the directory of an image behind its pixels."""
    path = tmp_path / "s.tif"
    with tifffile.TiffWriter(path, bigtiff=big, byteorder=order) as writer:
        for _ in range(3):
            writer.write(PIXELS, photometric="rgb", tile=(256, 256), metadata=None)
    assert not is_cut(path)
    whole = path.read_bytes()
    for share in (0.3, 0.6):
        path.write_bytes(whole[: int(share * len(whole))])
        assert is_cut(path)
        read_tiff_header(path)
    behind = bytearray(whole)  # the first directory is behind the pixels, and was not copied
    struct.pack_into(order + ("Q" if big else "I"), behind, 8 if big else 4, len(whole) + 1000)
    path.write_bytes(behind)
    with pytest.raises(BadSlide, match="truncated"):
        open_slide(path, 0.5)
    assert capfd.readouterr().err == ""
    assert not is_cut(Path(__file__))


def pixels_tag(**attributes: str) -> str:
    """Return OME-XML with these attributes of Pixels."""
    listed = " ".join(f'{name}="{value}"' for name, value in attributes.items())
    return f'<?xml version="1.0"?><OME xmlns="x"><Image><Pixels {listed} Type="uint8"/></Image></OME>'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (pixels_tag(PhysicalSizeX="0.5", PhysicalSizeY="0.51"), (0.5, 0.51)),
        (
            pixels_tag(PhysicalSizeX="500", PhysicalSizeXUnit="nm", PhysicalSizeY="0.0005", PhysicalSizeYUnit="mm"),
            (0.5, 0.5),
        ),
        (
            pixels_tag(
                PhysicalSizeX="0.5",
                PhysicalSizeXUnit="\N{MICRO SIGN}m",
                PhysicalSizeY="0.5",
                PhysicalSizeYUnit="&#956;m",
            ),
            (0.5, 0.5),
        ),
        (pixels_tag(PhysicalSizeX="1", PhysicalSizeXUnit="pixel", PhysicalSizeY="x"), (None, None)),
        ("<OME:OME><OME:Pixels PhysicalSizeX='0.25' PhysicalSizeY='0.25'/></OME:OME>", (0.25, 0.25)),
    ],
)
def test_the_scale_in_ome_xml(text: str, expected: tuple[float | None, float | None]) -> None:
    ((x, y),) = ome_mpp(text, (512, 320))
    assert (x, y) == (pytest.approx(expected[0]), pytest.approx(expected[1]))


@pytest.mark.parametrize("text", ["<OME><BinaryOnly/></OME>", "Aperio Image Library"])
def test_other_texts_state_no_scale(text: str) -> None:
    assert ome_mpp(text, (512, 320)) == ()


def write_ome(path: Path, *, resolution: Any = None, subifds: int = 2, unit: str = "\N{MICRO SIGN}m") -> Path:
    """Write an OME-TIFF of 0.5 um/px with its smaller levels in SubIFDs."""
    how: dict[str, Any] = {"photometric": "rgb", "tile": (256, 256), "compression": "deflate"}
    metadata = {
        "axes": "YXS",
        "PhysicalSizeX": 0.5,
        "PhysicalSizeXUnit": unit,
        "PhysicalSizeY": 0.5,
        "PhysicalSizeYUnit": unit,
    }
    scale = {"resolution": resolution, "resolutionunit": "CENTIMETER"} if resolution else {}
    with tifffile.TiffWriter(path, bigtiff=True, ome=True) as writer:
        writer.write(PIXELS, subifds=subifds, metadata=metadata, **scale, **how)
        for level in range(subifds):
            writer.write(PIXELS[:: 2 << level, :: 2 << level].copy(), subfiletype=1, **how)
    return path


def test_an_ome_tiff_states_its_scale_and_its_levels(tmp_path: Path) -> None:
    pytest.importorskip("openslide")
    pytest.importorskip("imagecodecs")
    with open_slide(write_ome(tmp_path / "s.tif")) as slide:
        assert (slide.mpp, slide.scale.origin, slide.n_subifds) == (0.5, "OME-XML", 2)
    with open_slide(write_ome(tmp_path / "s.ome.tif", resolution=(2e4, 2e4))) as slide:
        assert slide.mpp == pytest.approx(0.5)
    other = write_ome(tmp_path / "other.ome.tif", resolution=(4e4, 4e4))
    with pytest.raises(BadSlide, match=r"states two scales \(OpenSlide 0.25, OME-XML 0.5 um/px\)"):
        open_slide(other)
    assert open_slide(other, 0.5).mpp == 0.5


def test_files_that_are_no_tiff_have_no_header(tmp_path: Path) -> None:
    for name, data in {"a.svs": b"", "b.svs": b"II*\0\xff\xff\xff\xff", "c.svs": b"text", "d.svs": b"II"}.items():
        (tmp_path / name).write_bytes(data)
        assert read_tiff_header(tmp_path / name) is None
