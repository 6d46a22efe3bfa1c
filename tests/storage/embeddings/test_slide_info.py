"""Files of slides: readers written for CLAM and TRIDENT open them, and ours refuses what is no grid of tiles."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

from pipeline.errors import BadArtifact
from pipeline.storage.embeddings.partial_rows import PartialRows, row_type
from pipeline.storage.embeddings.reader import read_embeddings
from pipeline.storage.embeddings.slide_info import SlideInfo
from pipeline.storage.embeddings.writer import write_embeddings
from pipeline.storage.hdf5 import write_attributes

INFO = SlideInfo(
    slide="a é.svs",
    slide_sha256="c" * 64,
    slide_width=1000,
    slide_height=700,
    mpp=0.25,
    tile_px=96,
    tile_mpp=0.5,
    patch_size_level0=192,
    stride_level0=96,
)
XY = np.array([[0, 0], [96, 0], [0, 96], [808, 508]], np.int32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A valid file of four tiles."""
    scratch = PartialRows(tmp_path / "a é.h5", row=row_type(6, 2), identity={}, batch=4)
    scratch.open(restart=True)
    rows = np.zeros(4, scratch.row)
    rows["features"] = np.arange(24).reshape(4, 6)
    scratch.append(rows)
    table = pd.DataFrame({"x": XY[:, 0], "y": XY[:, 1]})
    table["tile_id"] = [f"a é_x{x}_y{y}" for x, y in XY]
    table["path"], table["group"], table["label"], table["split"] = INFO.slide, "a é", "", ""
    attrs = {
        "classes": ["ADI", "TUM"],
        "preprocess": {"size": 96},
        "encoder": "trained",
        "layer": "avgpool",
        "model_sha256": "a" * 64,
        "manifest_sha256": "b" * 64,
        "versions": {},
    }
    write_embeddings(tmp_path / "a é.h5", scratch, table, attrs=attrs, slide=INFO)
    return tmp_path / "a é.h5"


def test_ours_reads_what_was_written(path: Path) -> None:
    found = read_embeddings(path)
    assert found.slide == INFO
    assert found.coords is not None
    assert found.coords.dtype == np.int32
    assert np.array_equal(found.coords, XY)
    assert set(found.label) == {-1}
    assert set(found.split) == {255}
    assert set(found.group) == {"a é"}


def test_both_places_say_the_same(path: Path) -> None:
    """docs/format.md: the root and /coords carry the slide's attributes."""
    with h5py.File(path) as file:
        for name in ("units", *(field.name for field in dataclasses.fields(SlideInfo))):
            assert file.attrs[name] == file["coords"].attrs[name], name
        assert file.attrs["units"] == b"level0_px"


def test_a_reader_written_for_clam_opens_it(path: Path) -> None:
    """As CLAM's dataset_generic and TITAN's example read a slide's features."""
    with h5py.File(path, "r") as hdf5_file:
        features = hdf5_file["features"][:]
        coords = hdf5_file["coords"][:]
        patch_size_lv0 = hdf5_file["coords"].attrs["patch_size_level0"]
    assert features.shape == (4, 6)
    assert features.dtype == np.float32
    assert coords.shape == (4, 2)
    assert patch_size_lv0 == 192


def test_a_reader_written_for_trident_opens_it(path: Path) -> None:
    """As TRIDENT's read_coords and its patcher take the attributes of /coords; the crops must be our tiles."""
    with h5py.File(path, "r") as f:
        attrs, coords = dict(f["coords"].attrs), f["coords"][:]
    patch_size = attrs.get("patch_size")
    level0, target = attrs.get("level0_magnification"), attrs.get("target_magnification")
    assert None not in (patch_size, level0, target)
    assert round(patch_size * (level0 / target)) == 192
    assert (level0, target) == (40, 20)
    assert attrs["overlap"] == 48
    assert (attrs["level0_width"], attrs["level0_height"]) == (1000, 700)
    assert coords.tolist() == XY.tolist()


def set_coords(file: h5py.File, xy: Any) -> None:
    """Replace /coords."""
    attrs = dict(file["coords"].attrs)
    del file["coords"]
    file["coords"] = np.asarray(xy)
    file["coords"].attrs.update(attrs)


BREAKS: dict[str, tuple[Callable[[h5py.File], None], str]] = {
    "out of the slide": (lambda f: set_coords(f, [*XY[:3].tolist(), [809, 508]]), "is int64"),
    "beyond the right edge": (lambda f: set_coords(f, np.int32([*XY[:3], [809, 508]])), "reaches out of the slide"),
    "before the left edge": (lambda f: set_coords(f, np.int32([[-1, 0], *XY[1:]])), "reaches out of the slide"),
    "another order": (lambda f: set_coords(f, XY[[1, 0, 2, 3]]), "not in row order"),
    "twice": (lambda f: set_coords(f, XY[[0, 0, 2, 3]]), "not in row order"),
    "too few": (lambda f: set_coords(f, XY[:3]), "/coords has shape (3, 2)"),
    "no mpp": (lambda f: f.attrs.__delitem__("mpp"), "'mpp' is missing"),
    "mpp of text": (lambda f: write_attributes(f, {"mpp": "0.25"}), "'mpp' is missing or of"),
    "no side": (lambda f: write_attributes(f, {"patch_size_level0": 0}), "'patch_size_level0' is 0"),
    "not finite": (lambda f: write_attributes(f, {"mpp": float("nan")}), "'mpp' is nan"),
    "other units": (lambda f: write_attributes(f, {"units": "um"}), "'units' is um"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_what_is_no_grid_is_refused(path: Path, name: str) -> None:
    breaks, rule = BREAKS[name]
    with h5py.File(path, "r+") as file:
        breaks(file)
    with pytest.raises(BadArtifact) as caught:
        read_embeddings(path)
    assert rule in str(caught.value)
