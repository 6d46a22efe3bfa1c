"""The scale of a slide: from the file, from --mpp where the file states none, from a table against the file."""

from pathlib import Path

import pytest

from pipeline.errors import BadSlide
from pipeline.slides.scale import GivenMpp, resolve_mpp, stated_mpp

PATH = Path("s.tif")
TAGS, OME = stated_mpp("TIFF tags", 0.25, 0.2501), stated_mpp("OME-XML", 0.5, 0.5)


def test_what_a_file_states_counts_only_if_a_scanner_could_have() -> None:
    assert [one.mpp for one in stated_mpp("file", 0.25, 0.25)] == [0.25]
    for x, y in ((None, None), (0.25, None), (353.0, 353.0), (0.0, 0.0), (float("nan"), 0.25)):
        assert stated_mpp("file", x, y) == []


def test_where_the_scale_comes_from() -> None:
    assert resolve_mpp(PATH, TAGS, None).origin == "TIFF tags"
    assert resolve_mpp(PATH, [], GivenMpp(0.5)).origin == "--mpp"
    assert resolve_mpp(PATH, TAGS, GivenMpp(0.2515)).mpp == pytest.approx(0.25005)  # within 1 %: the file's
    cell = resolve_mpp(PATH, TAGS, GivenMpp(0.5, "slides.csv, line 2", overrules=True))
    assert (cell.mpp, cell.origin) == (0.5, "slides.csv, line 2")
    assert "0.2500" in cell.note or "0.25" in cell.note
    assert resolve_mpp(PATH, TAGS, GivenMpp(0.25, "grid.csv", overrules=True)).note == ""
    assert resolve_mpp(PATH, TAGS + OME, GivenMpp(0.5)).origin == "OME-XML"  # --mpp decides which of two is right


@pytest.mark.parametrize(
    ("stated", "given", "words"),
    [
        ([], None, "give it by --mpp"),
        (TAGS, GivenMpp(0.26), "--mpp 0.26 um/px, but the file states another scale"),
        (TAGS + OME, None, "TIFF tags 0.25, OME-XML 0.5"),
        (TAGS + OME, GivenMpp(1.0), "another scale"),
        (stated_mpp("file", 0.25, 0.5), None, "not square"),
        (stated_mpp("file", 0.25, 0.5), GivenMpp(0.25), "not square"),
    ],
)
def test_what_is_refused(stated, given, words) -> None:
    with pytest.raises(BadSlide, match=words):
        resolve_mpp(PATH, stated, given)
