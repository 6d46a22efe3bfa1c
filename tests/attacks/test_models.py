"""Weights and their description from a stranger, with a record that vouches for them."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.errors import BadArtifact
from pipeline.network.model_file import MOST_CLASSES, SCHEMA, description_path, load_model
from pipeline.network.resnet import build_network
from pipeline.network.start_weights import load_start_weights

from .hostile import in_own_process, needs_proc, refused, repack, vouch

GOOD = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def safetensors(header: Any, data: bytes = bytes(16), *, length: int | None = None) -> bytes:
    """Build a file by hand; `length` is what it claims of its header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


FILES = {
    "empty": b"",
    "header longer than the file": safetensors({}, length=10_000),
    "header of 2^63 bytes": safetensors({}, length=2**63),
    "header of 99 MB": safetensors({}, length=99_000_000),
    "header no JSON": safetensors(b"{" * 50),
    "header a list": safetensors([]),
    "header nested": safetensors(b'{"a":' * 50_000),
    "header not UTF-8": safetensors(b'{"\xff": 1}'),
    "overlapping tensors": safetensors({"a": GOOD, "b": GOOD}, bytes(8)),
    "partly overlapping": safetensors({"a": GOOD, "b": GOOD | {"data_offsets": [4, 12]}}, bytes(12)),
    "a hole": safetensors({"a": GOOD, "b": GOOD | {"data_offsets": [12, 20]}}, bytes(20)),
    "offsets turned": safetensors({"a": GOOD | {"data_offsets": [8, 0]}}, bytes(8)),
    "offsets beyond the file": safetensors({"a": GOOD | {"shape": [2**40], "data_offsets": [0, 2**42]}}, bytes(8)),
    "shape that overflows": safetensors({"a": GOOD | {"shape": [2**32, 2**32]}}, bytes(8)),
    "negative shape": safetensors({"a": GOOD | {"shape": [-2]}}, bytes(8)),
    "unknown type": safetensors({"a": GOOD | {"dtype": "PY"}}, bytes(8)),
    "bytes behind the tensors": safetensors({"a": GOOD}, bytes(100)),
    "tensors of no network": safetensors({"a": GOOD}, bytes(8)),
}


def start(path: Path) -> object:
    return load_start_weights(build_network("resnet10", n_classes=2, seed=0), path).sha256


@pytest.mark.fault("malformed safetensors")
@pytest.mark.parametrize("name", FILES)
def test_a_malformed_safetensors_file(model_file: Path, name: str) -> None:
    model_file.write_bytes(FILES[name])
    vouch(model_file, SCHEMA, stage="train", outputs=[description_path(model_file)])
    refused(BadArtifact, "not the weights of resnet10", load_model, model_file)
    refused(BadArtifact, "--init", start, model_file)


def as_double(state: dict[str, torch.Tensor]) -> None:
    state["conv1.weight"] = state["conv1.weight"].double()


CHANGES: dict[str, tuple[Callable[[dict[str, torch.Tensor]], object], str]] = {
    "an extra tensor": (lambda state: state.update(extra=torch.zeros(1)), "extra"),
    "a wrong shape": (lambda state: state.update({"conv1.weight": torch.zeros(1)}), "size mismatch"),
    "a wrong type": (as_double, "conv1.weight is torch.float64, torch.float32 is needed"),
    "complex numbers": (lambda state: state.update({"bn1.bias": torch.zeros(64, dtype=torch.complex64)}), "complex64"),
    "whole numbers": (lambda state: state.update({"bn1.bias": torch.zeros(64, dtype=torch.int32)}), "int32"),
}


@pytest.mark.fault("malformed safetensors")
@pytest.mark.parametrize("name", CHANGES)
def test_tensors_of_another_network(model_file: Path, name: str) -> None:
    change, rule = CHANGES[name]
    state = load_file(model_file)
    change(state)
    save_file(state, model_file)
    vouch(model_file, SCHEMA, stage="train", outputs=[description_path(model_file)])
    refused(BadArtifact, f"not the weights of resnet10.*{rule}", load_model, model_file)


DESCRIPTIONS: dict[str, bytes] = {
    "no JSON": b"{arch: resnet10}",
    "not UTF-8": b'{"arch": "\xff"}',
    "nested": b'{"a":' * 100_000,
    "a list": b"[]",
    "a huge number": b'{"arch": ' + b"9" * 10_000 + b"}",
}

STAINS = {"white": [240, 240, 240], "vectors": [[0.6, 0.7, 0.3], [0.2, 0.9, 0.4]], "strengths": [1.5, 1.2]}

VALUES: dict[str, dict[str, Any]] = {
    "a huge input": {"preprocess": {"size": 10**6}},
    "no input": {"preprocess": {"size": 0}},
    "a negative input": {"preprocess": {"size": -32}},
    "a mean of texts": {"preprocess": {"mean": ["a", "b", "c"]}},
    "a deep mean": {"preprocess": {"mean": [[0.5], [0.5], [0.5]]}},
    "stains of texts": {"preprocess": {"stains": STAINS | {"white": ["a", "b", "c"]}}},
    "stains without strengths": {"preprocess": {"stains": {"white": STAINS["white"], "vectors": STAINS["vectors"]}}},
    "ragged stains": {"preprocess": {"stains": STAINS | {"vectors": [[1, 0, 0], [1, 0]]}}},
    "no strength": {"preprocess": {"stains": STAINS | {"strengths": [1, 0]}}},
    "a huge stain": {"preprocess": {"stains": STAINS | {"vectors": [[1e30, 0, 0], [0, 1, 0]]}}},
    "stains that are a list": {"preprocess": {"stains": [1, 2, 3]}},
    "more classes than codes": {"classes": [str(i) for i in range(MOST_CLASSES + 1)]},
}


@pytest.mark.parametrize("name", [*DESCRIPTIONS, *VALUES])
def test_a_description_that_would_cost_or_break(model_file: Path, name: str) -> None:
    path = description_path(model_file)
    if name in DESCRIPTIONS:
        path.write_bytes(DESCRIPTIONS[name])
    else:
        info = json.loads(path.read_text())
        change = VALUES[name]
        change = {"preprocess": info["preprocess"] | change["preprocess"]} if "preprocess" in change else change
        path.write_text(json.dumps(info | change))
    vouch(model_file, SCHEMA, stage="train", outputs=[path])
    refused(BadArtifact, r"model\.json", load_model, model_file)


@pytest.mark.slow
@pytest.mark.fault("malformed safetensors")
@needs_proc
def test_weights_that_claim_much_take_little(model_file: Path, tmp_path: Path) -> None:
    """A storage of the old form names its size before its bytes; a new one may be packed."""
    old = tmp_path / "claims.pth"
    torch.save({"conv1.weight": torch.zeros(7)}, old, _use_new_zipfile_serialization=False)
    data = old.read_bytes()
    at = data.rindex(struct.pack("<q", 7))  # the number of elements stands before the elements
    old.write_bytes(data[:at] + struct.pack("<q", 2**34) + data[at + 8 :])
    expanded = tmp_path / "expanded.pth"  # many elements that share one number
    torch.save({"conv1.weight": torch.zeros(1).expand(10**10)}, expanded)
    plain, packed = tmp_path / "plain.pth", tmp_path / "packed.pth"
    torch.save({"conv1.weight": torch.zeros(1000)}, plain)
    repack(plain, packed, {"data/0": bytes(300_000_000)})
    files = [tmp_path / f"{i}.safetensors" for i in range(2)]
    for path, name in zip(files, ("header of 99 MB", "offsets beyond the file"), strict=True):
        path.write_bytes(FILES[name])
    outcomes = in_own_process(
        [old, expanded, packed, *files],
        "load_start_weights(network, path)",
        imports="from pipeline.network.resnet import build_network\n"
        "from pipeline.network.start_weights import load_start_weights",
        begin='network = build_network("resnet10", n_classes=2, seed=0)',
    )
    for outcome in outcomes:
        assert outcome.code == 0
        assert outcome.said.startswith("BadArtifact")
        assert outcome.peak_mb < 200
