"""Head files from a stranger, with records that vouch for them (P3)."""

import functools
import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
import xgboost
from sklearn.ensemble import RandomTreesEmbedding
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC

from pipeline import verify
from pipeline.errors import BadArtifact
from pipeline.heads.base import SCHEMA
from pipeline.heads.svm.classifier import Svm

from .hostile import Evil, in_own_process, needs_proc, refused, repack, vouch

X, Y = np.random.default_rng(0).normal(size=(20, 3)), np.arange(20) % 2


class WithState:
    """A class of this file's, with a method that skops would call."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __setstate__(self, state: dict[str, str]) -> None:
        Path(state["marker"]).mkdir()


FOREIGN: dict[str, Callable[[Path], object]] = {
    "a function of the system": lambda marker: FunctionTransformer(os.mkdir, kw_args={"path": str(marker)}),
    "a call in waiting": lambda marker: functools.partial(os.mkdir, str(marker)),
    "a method": lambda marker: marker.mkdir,
    "a class with a state": WithState,
    "a class that reduces": Evil,
    "a path": lambda marker: marker,
    "eval": lambda _: FunctionTransformer(eval),
}


@pytest.mark.fault("a pickle, or a foreign type in a skops file")
@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("place", ["alone", "in a pipeline"])
def test_foreign_types_in_a_skops_file(tmp_path: Path, name: str, place: str) -> None:
    path, marker = tmp_path / "svm.skops", tmp_path / "marker"
    foreign = FOREIGN[name](marker)
    skops.io.dump(foreign if place == "alone" else make_pipeline("passthrough", foreign), path)
    refused(BadArtifact, "not trusted|Pipeline is needed", Svm.load, vouch(path, SCHEMA))
    assert not marker.exists()


def schema_of(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("schema.json"))


@pytest.mark.parametrize(
    "change",
    [
        {"__class__": "system", "__module__": "os", "__loader__": "FunctionNode"},
        {"__class__": "system", "__module__": "os", "__loader__": "TypeNode"},
        {"__loader__": "NoSuchNode"},
        {"__loader__": 7},
        {"protocol": 10**6},
        {"protocol": -1},
    ],
)
def test_a_forged_schema_in_a_skops_file(tmp_path: Path, change: dict[str, Any]) -> None:
    plain, path = tmp_path / "plain.skops", tmp_path / "svm.skops"
    skops.io.dump(make_pipeline(StandardScaler(), SVC()).fit(X, Y), plain)
    repack(plain, path, {"schema.json": json.dumps(schema_of(plain) | change).encode()})
    refused(BadArtifact, "svm.skops", Svm.load, vouch(path, SCHEMA))


def test_a_nested_schema_in_a_skops_file(tmp_path: Path) -> None:
    plain, path = tmp_path / "plain.skops", tmp_path / "svm.skops"
    skops.io.dump(make_pipeline(StandardScaler(), SVC()).fit(X, Y), plain)
    repack(plain, path, {"schema.json": b'{"a":' * 100_000})
    refused(BadArtifact, "not a readable skops file", Svm.load, vouch(path, SCHEMA))


def npy(shape: tuple[int, ...], data: bytes, *, kind: str = "<f8") -> bytes:
    """Build an array file whose header claims what it likes."""
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": kind, "fortran_order": False, "shape": shape})
    return out.getvalue() + data


@pytest.mark.slow
@needs_proc
def test_arrays_of_a_skops_file_that_claim_much_take_little(tmp_path: Path) -> None:
    plain = tmp_path / "plain.skops"
    skops.io.dump(make_pipeline(StandardScaler(), SVC()).fit(X, Y), plain)
    paths = []
    for i, array in enumerate((npy((10**13,), b""), npy((4_000_000,), bytes(32_000_000)))):
        paths.append(tmp_path / f"{i}.skops")
        repack(plain, paths[-1], {".npy": array})
        vouch(paths[-1], SCHEMA)
        assert paths[-1].stat().st_size < 4_000_000
    # skops looks through scikit-learn when it is imported
    imports = "import skops.io\nfrom pipeline.heads.svm.classifier import Svm"
    for outcome in in_own_process(paths, "Svm.load(path)", imports=imports):
        assert outcome.said.startswith("BadArtifact")
        assert outcome.peak_mb < 100


STRANGE: dict[str, Callable[[], object]] = {
    "trees, whose nodes are followed unseen": lambda: make_pipeline(RandomTreesEmbedding(2), SVC()).fit(X, Y),
    "a reader of files": lambda: make_pipeline(HashingVectorizer(input="filename"), SVC()),
    "no steps": lambda: Pipeline.__new__(Pipeline),
    "not fitted": lambda: make_pipeline(StandardScaler(), SVC()),
    "a text for a step": lambda: Pipeline([("a", "passthrough"), ("b", "passthrough")]),
}


@pytest.mark.fault("a pickle, or a foreign type in a skops file")
@pytest.mark.parametrize("name", STRANGE)
def test_trusted_types_that_make_no_head(tmp_path: Path, name: str) -> None:
    path = tmp_path / "svm.skops"
    skops.io.dump(STRANGE[name](), path)
    refused(BadArtifact, "svm.skops", Svm.load, vouch(path, SCHEMA))


def test_verify_hands_no_head_to_a_parser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What SECURITY.md says of verify: it compares hashes of heads, and reads none."""

    def fail(*_: object, **__: object) -> None:
        pytest.fail("a head was parsed")

    monkeypatch.setattr(xgboost.Booster, "load_model", fail)
    monkeypatch.setattr(skops.io, "loads", fail)
    monkeypatch.setattr(skops.io, "load", fail)
    for name in ("svm.skops", "xgboost.ubj"):
        path = tmp_path / "heads" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"{" * 1000)
        vouch(path, SCHEMA)
    assert verify.main(["--run", str(tmp_path)]) == 0
