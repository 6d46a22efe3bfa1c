"""Every rule of the schema: a file that breaks one is refused, in one line that names the rule."""

import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline.errors import BadArtifact, StaleInput
from pipeline.storage.baseline_features import FEATURES, read_baselines, row_type, write_baselines
from pipeline.storage.hdf5 import write_attributes

N = 7
ROW = row_type(colour_histogram=4, handcrafted=3, untrained=5)
NAMES = ("a", "b", "c")
IDS = [f"tile-é{i}" for i in range(N)]


def rows() -> np.ndarray:
    """Return N rows; row 4 without a tile."""
    rng = np.random.default_rng(0)
    made = np.zeros(N, ROW)
    for name in FEATURES:
        made[name] = rng.normal(size=made[name].shape)
        made[name][4] = 0
    made["sha256"] = rng.integers(0, 256, (N, 32))
    made["sha256"][4] = 0
    made["status"][4] = 1
    return made


def write(path: Path, blocks: list[np.ndarray]) -> None:
    write_baselines(path, IDS, iter(blocks), row=ROW, names=NAMES, px=32, seed=3, arch="resnet50")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A valid file, written in blocks of 3."""
    made = rows()
    write(tmp_path / "baselines.h5", [made[:3], made[3:6], made[6:]])
    return tmp_path / "baselines.h5"


def test_what_was_written_is_read(path: Path) -> None:
    got, made = read_baselines(path), rows()
    assert got.tile_id == IDS
    assert (got.names, got.px, got.seed, got.arch) == (list(NAMES), 32, 3, "resnet50")
    assert list(got.features()) == list(FEATURES)
    for name, found in got.features().items():
        np.testing.assert_array_equal(found, made[name])
    np.testing.assert_array_equal(got.sha256, made["sha256"])
    assert got.status.tolist() == [0, 0, 0, 0, 1, 0, 0]


def test_rows_of_tiles_in_another_order(path: Path) -> None:
    baselines, made = read_baselines(path), rows()
    asked = [5, 0, 3]
    found = baselines.rows_of([IDS[i] for i in asked], made["sha256"][asked], path=path)
    assert found.tolist() == asked


@pytest.mark.parametrize("fault", ["absent", "unreadable", "other pixels"])
def test_tiles_that_are_not_those_of_the_file_are_refused(path: Path, fault: str) -> None:
    baselines, made = read_baselines(path), rows()
    ids, sha256 = IDS[:3].copy(), made["sha256"][:3].copy()
    if fault == "absent":
        ids[1] = "another"
    elif fault == "unreadable":
        ids[1], sha256[1] = IDS[4], made["sha256"][4]
    else:
        sha256[1] += 1
    with pytest.raises(StaleInput, match=r"1 tile\(s\) are missing in it or had other pixels, such as") as caught:
        baselines.rows_of(ids, sha256, path=path)
    assert ids[1] in str(caught.value)


@pytest.mark.parametrize("fault", ["too few", "too many", "not finite", "stopped"])
def test_what_goes_wrong_while_writing_leaves_the_former_file(path: Path, fault: str) -> None:
    """P1."""
    before, made = path.read_bytes(), rows()
    if fault == "not finite":
        made["handcrafted"][6, 1] = np.nan

    def blocks():
        yield made[:5]
        if fault == "stopped":
            raise KeyboardInterrupt
        yield made[5:] if fault == "not finite" else made[:1] if fault == "too few" else made

    with pytest.raises((ValueError, KeyboardInterrupt)):
        write(path, blocks())  # type: ignore[arg-type]
    assert path.read_bytes() == before
    assert sorted(file.name for file in path.parent.iterdir()) == ["baselines.h5"]


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


def linked(file: h5py.File) -> None:
    """Put a link to another file where /handcrafted was."""
    file.move("handcrafted", "elsewhere")
    file["handcrafted"] = h5py.ExternalLink("other.h5", "handcrafted")


def external(file: h5py.File) -> None:
    """Make /handcrafted a data set whose bytes lie in any file of the disk."""
    del file["handcrafted"]
    file.create_dataset("handcrafted", (N, 3), "<f4", external=[("/etc/hostname", 0, N * 12)])


def claims(file: h5py.File) -> None:
    """Make /untrained far larger than the file."""
    del file["untrained"]
    file.create_dataset("untrained", (10**6, 2048), "<f4", chunks=(1, 2048))


MUTATIONS = {
    "no complete": (attribute("complete", None), "complete"),
    "not complete": (attribute("complete", False), "complete"),
    "another schema": (attribute("schema", "embeddings"), "baselines 1.x is needed"),
    "future schema": (attribute("schema_version", "2.0"), "baselines 1.x is needed"),
    "no names": (attribute("names", None), "'names' is not a list"),
    "names no JSON": (attribute("names", "["), "not a readable"),
    "names of numbers": (attribute("names", "[1, 2, 3]"), "'names' is not a list"),
    "too few names": (attribute("names", '["a"]'), "/handcrafted has shape"),
    "px a text": (attribute("px", "32"), "not a whole number"),
    "no seed": (attribute("seed", None), "not a whole number"),
    "no arch": (attribute("arch", None), "'arch'"),
    **{
        f"no /{name}": (lambda file, name=name: file.move(name, "elsewhere"), f"/{name} is missing")
        for name in ("tile_id", "sha256", "status", *FEATURES)
    },
    "float64": (replace("handcrafted", lambda x: x.astype("f8")), "/handcrafted is float64"),
    "rank 1": (replace("untrained", lambda x: x[:, 0]), "/untrained has shape"),
    "too few rows": (replace("colour_histogram", lambda x: x[:-1]), "/colour_histogram has shape"),
    "narrow sha256": (replace("sha256", lambda x: x[:, :16]), "/sha256 has shape"),
    "names as objects": (
        replace("tile_id", lambda x: np.array([t.decode() for t in x], h5py.string_dtype())),
        "fixed-length UTF-8",
    ),
    "NaN": (put("untrained", (2, 1), np.nan), "/untrained is not finite"),
    "features of no tile": (put("handcrafted", (4, 1), 1), "without a tile"),
    "status hides a tile": (put("status", 2, 2), "without a tile"),
    "unknown status": (put("status", 4, 9), "/status is unknown"),
    "same tile_id": (put("tile_id", 2, IDS[0].encode()), "occurs twice"),
    "a link": (linked, "missing or a link"),
    "external bytes": (external, "not a data set of this file"),
    "a large claim": (claims, "far more than the file has"),
}


@pytest.mark.fault("HDF5 that breaks a rule of its schema")
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_file_that_breaks_a_rule_is_refused(path: Path, name: str) -> None:
    mutate, rule = MUTATIONS[name]
    with h5py.File(path, "r+") as file:
        mutate(file)
    with pytest.raises(BadArtifact) as caught:
        read_baselines(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert rule in message
    assert "\n" not in message


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_file(path: Path, share: float) -> None:
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(BadArtifact, match="not a readable HDF5 file"):
        read_baselines(path)
