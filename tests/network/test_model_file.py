"""A model that is not what training wrote is refused, in one line."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.errors import BadArtifact, DiskFull
from pipeline.network.model_file import SCHEMA, load_model, save_model
from pipeline.network.resnet import build_network
from pipeline.storage import records

INFO = {
    "arch": "resnet10",
    "classes": ["ADI", "TUM"],
    "preprocess": {"size": 32, "mean": [0.1, 0.2, 0.3], "std": [1, 1, 1], "interpolation": "bilinear", "mpp": 0.5},
}


def record(path: Path) -> None:
    """Write the record as training does."""
    records.write_record(records.Artifact(path, SCHEMA, "train"), outputs=[path.with_suffix(".json")])


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A model of random weights with its record."""
    path = tmp_path / "model.safetensors"
    save_model(path, build_network("resnet10", n_classes=2, seed=4).state_dict(), INFO)
    record(path)
    return path


def flip_bit(path: Path, position: int) -> None:
    """Change one bit of a file."""
    data = bytearray(path.read_bytes())
    data[position] ^= 4
    path.write_bytes(data)


def refused(path: Path, match: str) -> None:
    """Check that loading is refused in one line."""
    with pytest.raises(BadArtifact, match=match) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


def test_what_was_saved_is_loaded(saved: Path) -> None:
    model = load_model(saved)
    expected = build_network("resnet10", n_classes=2, seed=4).state_dict()
    state = model.network.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert not model.network.training
    assert model.classes == ["ADI", "TUM"]
    assert (model.preprocess.size, model.preprocess.mean, model.preprocess.mpp) == (32, (0.1, 0.2, 0.3), 0.5)


def test_channels_last_weights_are_saved_in_torchvisions_layout(tmp_path: Path) -> None:
    network = build_network("resnet10", n_classes=2, seed=4).to(memory_format=torch.channels_last)
    save_model(tmp_path / "model.safetensors", network.state_dict(), INFO)
    assert torch.equal(
        load_file(tmp_path / "model.safetensors")["layer1.0.conv1.weight"], network.layer1[0].conv1.weight
    )


@pytest.mark.parametrize("position", [3, 100, -5])
def test_a_bit_flip_in_the_weights(saved: Path, position: int) -> None:
    flip_bit(saved, position)
    refused(saved, "model.safetensors: its bytes are not those that were written")


@pytest.mark.parametrize("position", [10, -10])
def test_a_bit_flip_in_the_description(saved: Path, position: int) -> None:
    flip_bit(saved.with_suffix(".json"), position)
    refused(saved, "model.json: missing or changed since training")


def test_no_description(saved: Path) -> None:
    saved.with_suffix(".json").unlink()
    refused(saved, "model.json: missing or changed since training")


def test_a_record_that_does_not_speak_of_the_description(saved: Path) -> None:
    records.write_record(records.Artifact(saved, SCHEMA, "train"))
    refused(saved, "model.json: missing or changed since training")


def test_truncated_weights(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes()[:-100])
    refused(saved, "its bytes are not those")


def test_weights_that_are_truncated_under_their_record(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes()[:-100])
    record(saved)
    refused(saved, "not the weights of resnet10")


def test_a_missing_tensor(saved: Path) -> None:
    state = load_file(saved)
    del state["fc.bias"]
    save_file(state, saved)
    record(saved)
    refused(saved, r"not the weights of resnet10.*fc\.bias")


def test_weights_of_another_architecture(saved: Path) -> None:
    saved.with_suffix(".json").write_text(json.dumps(INFO | {"arch": "resnet18"}))
    record(saved)
    refused(saved, "not the weights of resnet18")


@pytest.mark.parametrize(
    "change",
    [
        {"arch": "vit"},
        {"classes": "ADI"},
        {"classes": []},
        {"classes": ["ADI", "ADI"]},
        {"classes": [1, 2]},
        {"preprocess": {"size": 32}},
        {"preprocess": INFO["preprocess"] | {"size": "x"}},
        {"preprocess": INFO["preprocess"] | {"mean": [0.1]}},
        {"preprocess": INFO["preprocess"] | {"interpolation": []}},
        {"preprocess": None},
    ],
)
def test_a_description_that_cannot_be_used(saved: Path, change: dict) -> None:
    saved.with_suffix(".json").write_text(json.dumps(INFO | change))
    record(saved)
    refused(saved, "model.json")


def test_no_model(tmp_path: Path) -> None:
    refused(tmp_path / "model.safetensors", "not there")


def test_no_record(saved: Path) -> None:
    records.record_path(saved).unlink()
    refused(saved, "record of model.safetensors is missing")


@pytest.mark.fault("full disk, in every writer")
def test_a_full_disk_leaves_the_former_model(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P1. The message is the one that safetensors gives."""
    from safetensors import SafetensorError

    from pipeline.network import model_file

    def full(tensors: object, path: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(model_file, "save_file", full)
    with pytest.raises(DiskFull, match=r"model\.safetensors"):
        save_model(saved, build_network("resnet10", n_classes=2, seed=5).state_dict(), INFO)
    load_model(saved)
    assert sorted(path.name for path in saved.parent.iterdir()) == [
        "model.json",
        "model.safetensors",
        "model.safetensors.json",
    ]
