"""Every rule of the schema: a file that breaks one is refused, in one line that names the rule."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline.errors import BadArtifact
from pipeline.storage.embeddings import reader
from pipeline.storage.embeddings.reader import feature_blocks, read_embeddings
from pipeline.storage.embeddings.writer import write_embeddings
from pipeline.storage.hdf5 import write_attributes

from .test_writer import ATTRS, D, K, N, filled, table


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A valid file."""
    write_embeddings(tmp_path / "embeddings.h5", filled(tmp_path), table(), attrs=ATTRS)
    return tmp_path / "embeddings.h5"


def test_what_was_written_is_read(path: Path) -> None:
    (rows,) = filled(path.parent).blocks()
    got = read_embeddings(path)
    assert np.array_equal(got.features, rows["features"])
    assert np.array_equal(got.logits, rows["logits"])
    assert np.array_equal(got.sha256, rows["sha256"])
    assert got.status.tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0, 0]
    assert got.split.tolist() == [0, 1, 2, 0, 255, 1, 2, 0, 1, 2]
    assert got.label[5] == -1
    assert [got.classes[code] for code in got.label if code >= 0] == list(table()["label"].drop(5))
    assert got.tile_id == list(table()["tile_id"])
    assert got.path == list(table()["path"])
    assert got.group == list(table()["group"])
    assert got.attrs["preprocess"] == {"size": 32}
    assert got.attrs["complete"]


def test_features_block_by_block_are_the_same(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, rest = read_embeddings(path), read_embeddings(path, with_features=False)
    assert rest.features.shape == (N, 0)
    assert np.array_equal(rest.logits, whole.logits)
    monkeypatch.setattr(reader, "BLOCK_ROWS", 4)
    blocks = list(feature_blocks(path, rest.status))
    assert [len(block) for block in blocks] == [4, 4, 2]
    assert np.array_equal(np.concatenate(blocks), whole.features)


def test_broken_features_are_refused_block_by_block_too(path: Path) -> None:
    status = read_embeddings(path).status
    for row, value, rule in ((2, np.nan, "not finite"), (4, 1, "is not zero"), (3, 7, "not those that were written")):
        with h5py.File(path, "r+") as file:
            before = file["features"][row, 1]
            file["features"][row, 1] = value
        with pytest.raises(BadArtifact, match=rule):
            list(feature_blocks(path, status))
        with pytest.raises(BadArtifact, match=rule):
            read_embeddings(path)
        read_embeddings(path, with_features=False)
        with h5py.File(path, "r+") as file:
            file["features"][row, 1] = before
    assert len(list(feature_blocks(path, status))) == 1


def replace(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[h5py.File], None]:
    """Return a mutation that writes data set `name` anew."""

    def mutate(file: h5py.File) -> None:
        data = file[name][()]
        del file[name]
        file[name] = change(data)

    return mutate


def put(name: str, index: object, value: object) -> Callable[[h5py.File], None]:
    """Return a mutation that sets elements of data set `name`."""

    def mutate(file: h5py.File) -> None:
        file[name][index] = value

    return mutate


def attribute(name: str, value: object) -> Callable[[h5py.File], None]:
    """Return a mutation that sets a root attribute, or removes it (None)."""

    def mutate(file: h5py.File) -> None:
        del file.attrs[name]
        if value is not None:
            write_attributes(file, {name: value})

    return mutate


def instead(name: str, make: Callable[[h5py.File], object]) -> Callable[[h5py.File], None]:
    """Return a mutation that puts a link or another object where data set `name` was."""

    def mutate(file: h5py.File) -> None:
        file.move(name, "elsewhere")
        made = make(file)
        if made is not None:
            file[name] = made

    return mutate


def virtual(file: h5py.File) -> None:
    """Make /features a virtual data set, whose values may come from any file."""
    layout = h5py.VirtualLayout((N, D), "<f4")
    layout[:] = h5py.VirtualSource("other.h5", "features", (N, D))
    file.create_virtual_dataset("features", layout)


def external(file: h5py.File) -> None:
    """Make /features a data set whose bytes lie in any file of the disk."""
    file.create_dataset("features", (N, D), "<f4", external=[("/etc/hostname", 0, N * D * 4)])


def claim(shape: tuple[int, ...]) -> Callable[[h5py.File], None]:
    """Return a maker of /features with a shape that no bytes stand behind."""

    def make(file: h5py.File) -> None:
        file.create_dataset("features", shape, "<f4", chunks=(1,) * len(shape))

    return make


MUTATIONS = {
    **{f"no {name}": (attribute(name, None), name) for name in ("complete", "classes", "preprocess", "layer")},
    **{f"no {name}": (attribute(name, None), name) for name in ("model_sha256", "manifest_sha256", "features_sha256")},
    "no schema": (attribute("schema", None), "schema None"),
    "another schema": (attribute("schema", "predictions"), "schema predictions"),
    "future schema": (attribute("schema_version", "2.0"), "1.x is needed"),
    "version 10": (attribute("schema_version", "10.0"), "1.x is needed"),
    "schema as array": (attribute("schema", np.arange(3)), "schema None"),
    "not complete": (attribute("complete", False), "complete"),
    "classes no JSON": (attribute("classes", "[ADI"), "not a readable"),
    "classes a number": (attribute("classes", 3), "not text"),
    "classes a string": (attribute("classes", '"ADI"'), "'classes' is not a list of names"),
    "classes of numbers": (attribute("classes", "[1, 2, 3]"), "'classes' is not a list of names"),
    "classes twice": (attribute("classes", '["A", "A", "B"]'), "'classes' is not a list of names"),
    "too few classes": (attribute("classes", '["A", "B"]'), "/logits has shape"),
    "nested JSON": (attribute("classes", "[" * 60000), "not a readable"),
    "preprocess a list": (attribute("preprocess", "[]"), "'preprocess' not an object"),
    **{
        f"no /{name}": (lambda file, name=name: file.move(name, "elsewhere"), f"/{name} is missing")
        for name in ("features", "logits", "tile_id", "path", "group", "label", "split", "status", "sha256")
    },
    "features float64": (replace("features", lambda x: x.astype("f8")), "float64, <f4 or <f2 is needed"),
    "features big-endian": (replace("features", lambda x: x.astype(">f4")), "/features is >f4"),
    "logits float16": (replace("logits", lambda x: x.astype("f2")), "/logits is float16"),
    "label int64": (replace("label", lambda x: x.astype("i8")), "/label is int64"),
    "tile_id of objects": (
        replace("tile_id", lambda x: np.array([t.decode() for t in x], h5py.string_dtype())),
        "fixed-length UTF-8",
    ),
    "features of rank 1": (replace("features", lambda x: x[:, 0]), "/features has shape"),
    "features of rank 3": (replace("features", lambda x: x[None]), "/features has shape"),
    "features scalar": (replace("features", lambda x: x[0, 0]), "/features has shape"),
    "too few rows": (replace("logits", lambda x: x[:-1]), "/logits has shape"),
    "too few names": (replace("group", lambda x: x[:-1]), "/group has shape"),
    "narrow sha256": (replace("sha256", lambda x: x[:, :16]), "/sha256 has shape"),
    "label of rank 2": (replace("label", lambda x: x[:, None]), "/label has shape"),
    "NaN": (put("features", (2, 1), np.nan), "not finite"),
    "infinite logit": (put("logits", (2, 1), np.inf), "not finite"),
    "features of no tile": (put("features", (4, 1), 1), "without a tile"),
    "NaN of no tile": (put("features", (4, 1), np.nan), "without a tile"),
    "label too large": (put("label", 2, K), "/label is unknown"),
    "label too small": (put("label", 2, -2), "/label is unknown"),
    "unknown split": (put("split", 2, 7), "/split is unknown"),
    "unknown status": (put("status", 4, 9), "/status is unknown"),
    "status hides a tile": (put("status", 2, 1), "without a tile"),
    "same tile_id": (put("tile_id", 2, "tile-é0".encode()), "tile_id occurs twice"),
    "not UTF-8": (put("path", 2, b"\xff\xfe"), "not a readable"),
    "permuted": (replace("features", lambda x: x[[1, 0, *range(2, N)]]), "features_sha256"),
    "external link": (instead("features", lambda file: h5py.ExternalLink("other.h5", "features")), "or a link"),
    "soft link": (instead("features", lambda file: h5py.SoftLink("/elsewhere")), "or a link"),
    "virtual": (instead("features", virtual), "not a data set of this file"),
    "external bytes": (instead("features", external), "not a data set of this file"),
    "a group": (instead("features", lambda file: file.create_group("features") and None), "not a data set"),
    "a type": (instead("features", lambda file: np.dtype("f4")), "not a data set"),
    "many rows": (instead("features", claim((2**40, D))), "/features has shape"),
    "wide rows": (instead("features", claim((N, 2**30))), "/features has shape"),
    "large claim": (instead("features", claim((10**9, D))), "far more than the file has"),
}


@pytest.mark.fault("HDF5 that breaks a rule of its schema")
@pytest.mark.fault("an embedding that is not finite")
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_file_that_breaks_a_rule_is_refused(path: Path, name: str) -> None:
    mutate, rule = MUTATIONS[name]
    with h5py.File(path, "r+") as file:
        mutate(file)
    with pytest.raises(BadArtifact) as caught:
        read_embeddings(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert rule in message
    assert "\n" not in message


@pytest.mark.parametrize(("views", "taken_for"), [(None, 1), (1, 1), (8, 8)])
def test_missing_views_are_one(path: Path, views: int | None, taken_for: int) -> None:
    with h5py.File(path, "r+") as file:
        if views is not None:
            file.attrs["views"] = views
    assert read_embeddings(path).attrs["views"] == taken_for


@pytest.mark.parametrize("views", [0, 4, np.bytes_("8"), -1, np.nan])
def test_other_views_are_refused(path: Path, views: object) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["views"] = views
    with pytest.raises(BadArtifact, match="the attribute 'views' is neither 1 nor 8"):
        read_embeddings(path)


@pytest.mark.fault("HDF5 that breaks a rule of its schema")
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file(path: Path, share: float) -> None:
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(BadArtifact, match="not a readable HDF5 file") as caught:
        read_embeddings(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["absent", "text", "folder"])
def test_no_hdf5_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "embeddings.h5"
    if kind == "text":
        path.write_text("hello")
    elif kind == "folder":
        path.mkdir()
    with pytest.raises(BadArtifact, match="not a readable HDF5 file"):
        read_embeddings(path)


def test_bit_flips_in_the_features_are_found(path: Path) -> None:
    with h5py.File(path) as file:
        begin = file["features"].id.get_offset()
    data = path.read_bytes()
    for byte, bit in ((0, 0), (17, 3), (N * D * 4 - 1, 1)):
        flipped = bytearray(data)
        flipped[begin + byte] ^= 1 << bit
        path.write_bytes(flipped)
        with pytest.raises(BadArtifact, match=r"features_sha256|not finite|no tile"):
            read_embeddings(path)
    path.write_bytes(data)
    read_embeddings(path)


@pytest.mark.fault("HDF5 that breaks a rule of its schema")
def test_what_the_schema_does_not_know_is_tolerated(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["later"] = np.zeros((N, 2), np.int32)
        file["link"] = h5py.ExternalLink("other.h5", "x")
        write_attributes(file, {"note": "[draft] not JSON", "schema_version": "1.7"})
        file.attrs["array"] = np.arange(3)
        file.attrs["by h5py"] = "of variable length"
    got = read_embeddings(path)
    assert got.attrs["note"] == "[draft] not JSON"
    assert not {"array", "by h5py"} & set(got.attrs)  # see pipeline.storage.hdf5
    assert json.dumps(got.attrs["classes"]) == '["ADI", "LYM", "TUM"]'
