"""Start weights are found in wrappers and below prefixes; they never run code."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pipeline.errors import BadArtifact
from pipeline.network.resnet import build_network
from pipeline.network.start_weights import StartWeights, load_start_weights
from pipeline.storage.atomic import sha256_file

State = dict[str, torch.Tensor]


def below(prefix: str, state: State) -> State:
    """Return a state dict whose names begin with a prefix."""
    return {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_start_weights_replace_all_but_the_last_layer(tmp_path: Path, suffix: str) -> None:
    source = build_network("resnet10", n_classes=1000, seed=5)
    path = tmp_path / f"start{suffix}"
    if suffix == ".pth":
        torch.save(source.state_dict(), path)
    else:
        save_file(source.state_dict(), path)
    network = build_network("resnet10", n_classes=2, seed=1)
    head = network.fc.weight.clone()
    assert load_start_weights(network, path) == StartWeights(sha256_file(path), "")
    assert torch.equal(network.layer4[0].conv2.weight, source.layer4[0].conv2.weight)
    assert torch.equal(network.fc.weight, head)


class Malicious:
    """Unpickled, it makes the marker file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.marker),)


def test_start_weights_with_code_are_refused_and_not_run(tmp_path: Path) -> None:
    """P3."""
    path, marker = tmp_path / "start.pth", tmp_path / "marker"
    torch.save({"conv1.weight": Malicious(marker)}, path)
    with pytest.raises(BadArtifact, match="objects other than tensors, which are never loaded") as caught:
        load_start_weights(build_network("resnet10", n_classes=2, seed=0), path)
    assert not marker.exists()
    assert "\n" not in str(caught.value)
    torch.load(path, weights_only=False)
    assert marker.exists(), "the file of this test is harmless: it proves nothing"


def test_start_weights_of_another_architecture(tmp_path: Path) -> None:
    path = tmp_path / "start.safetensors"
    save_file(build_network("resnet18", n_classes=2, seed=0).state_dict(), path)
    with pytest.raises(BadArtifact, match="another architecture") as caught:
        load_start_weights(build_network("resnet10", n_classes=2, seed=0), path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["text.pth", "text.safetensors", "empty.pth", "absent.pth", "folder.pth"])
def test_start_weights_that_are_none(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.startswith("text"):
        path.write_text("hello")
    elif name.startswith("empty"):
        path.touch()
    elif name.startswith("folder"):
        path.mkdir()
    with pytest.raises(BadArtifact, match=name) as caught:
        load_start_weights(build_network("resnet10", n_classes=2, seed=0), path)
    assert "\n" not in str(caught.value)


def test_start_weights_that_are_a_single_tensor(tmp_path: Path) -> None:
    path = tmp_path / "tensor.pth"
    torch.save(torch.zeros(3), path)
    with pytest.raises(BadArtifact, match="not a state dict"):
        load_start_weights(build_network("resnet10", n_classes=2, seed=0), path)


@pytest.mark.parametrize(
    ("wrap", "removed"),
    [
        (lambda state: {"state_dict": below("module.", state), "epoch": 3}, ("state_dict", "module.")),
        (lambda state: {"model": state}, ("model",)),
        (
            lambda state: {"state_dict": below("model.resnet.", state), "hyper_parameters": {"lr": 0.1}},
            ("state_dict", "model.resnet."),
        ),
        (lambda state: {"student": {}, "teacher": below("backbone.", state)}, ("teacher", "backbone.")),
        (lambda state: {"net": state}, ("net",)),
        (lambda state: {"state_dict": {"model": state}}, ("state_dict.model",)),
        (lambda state: {"epoch": 3, "model_state_dict": state, "optimizer": {"state": {0: {}}}}, ("model_state_dict",)),
        (lambda state: state | {"ema": below("module.", state)}, ()),
        (lambda state: below("encoder.", state), ("encoder.",)),
    ],
)
def test_wrappers_and_prefixes_are_removed_and_named(
    tmp_path: Path, wrap: Callable[[State], dict[str, Any]], removed: tuple[str, ...]
) -> None:
    source = build_network("resnet10", n_classes=7, seed=5)
    path = tmp_path / "wrapped.ckpt"
    torch.save(wrap(source.state_dict()), path)
    network = build_network("resnet10", n_classes=2, seed=1)
    found = load_start_weights(network, path)
    assert torch.equal(network.layer4[0].conv2.weight, source.layer4[0].conv2.weight)
    assert torch.equal(network.bn1.running_mean, source.bn1.running_mean)
    assert [word for word in found.removed.split("'") if word in removed] == list(removed)


@pytest.mark.parametrize(
    ("wrap", "named"),
    [
        (lambda state: {**below("query.", state), **below("key.", state)}, "query."),
        (lambda state: {**below("backbone.", state), "queue": torch.zeros(2)}, "queue"),
        (lambda state: {"optimizer": {}, "epoch": 3}, "'optimizer', 'epoch'"),
        (lambda state: {"state_dict": {"blocks.0.weight": torch.zeros(2)}}, "blocks.0.weight"),
        (lambda state: {name: value for name, value in state.items() if name != "bn1.bias"}, "bn1.bias"),
        (lambda state: below("module.", state | {"layer1.1.conv1.weight": torch.zeros(1)}), "layer1.1.conv1.weight"),
        (lambda state: state | {"conv1.weight": torch.zeros(1)}, "conv1.weight"),
    ],
)
def test_other_content_is_described_in_one_line(
    tmp_path: Path, wrap: Callable[[State], dict[str, Any]], named: str
) -> None:
    path = tmp_path / "other.pth"
    torch.save(wrap(build_network("resnet10", n_classes=7, seed=5).state_dict()), path)
    with pytest.raises(BadArtifact) as caught:
        load_start_weights(build_network("resnet10", n_classes=2, seed=1), path)
    assert str(caught.value).startswith(f"--init {path}: ")
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_git_lfs_pointer_is_called_one(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 46830571\n")
    with pytest.raises(BadArtifact, match="Git LFS pointer"):
        load_start_weights(build_network("resnet10", n_classes=2, seed=0), path)
