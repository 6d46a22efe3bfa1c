"""ImageNet's weights come out of torch's cache or from their address, and are what their name says."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torchvision.models import get_weight

from pipeline.errors import BadArtifact, BadInput
from pipeline.network.distributed import Ranks
from pipeline.network.pretrained import WEIGHTS, imagenet_file
from pipeline.network.resnet import ARCHITECTURES, build_network
from pipeline.network.start_weights import load_start_weights

Publish = Callable[[dict], Path]


@pytest.fixture
def published(publish_weights: Publish) -> Path:
    """The published weights of resnet18; torch's cache is empty."""
    return publish_weights(build_network("resnet18", n_classes=1000, seed=3).state_dict())


def cached(published: Path) -> Path:
    """Return where the cache has the file."""
    return published.parent / "torch" / "hub" / "checkpoints" / published.name


def test_it_is_downloaded_once_into_torchs_cache(published: Path) -> None:
    path = imagenet_file("resnet18", Ranks())
    assert path == cached(published)
    assert path.read_bytes() == published.read_bytes()
    published.unlink()
    assert imagenet_file("resnet18", Ranks()) == path
    network = build_network("resnet18", n_classes=2, seed=0)
    last = network.fc.weight.clone()
    assert load_start_weights(network, path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    expected = build_network("resnet18", n_classes=1000, seed=3)
    assert torch.equal(network.layer4[1].conv2.weight, expected.layer4[1].conv2.weight)
    assert torch.equal(network.fc.weight, last), "the last layer stays as it is"


@pytest.mark.fault("no network")
def test_another_file_in_the_cache_is_refused(published: Path) -> None:
    cached(published).parent.mkdir(parents=True)
    data = bytearray(published.read_bytes())
    data[1000] ^= 1
    cached(published).write_bytes(data)
    with pytest.raises(BadArtifact, match=r"is not the published file.*remove it"):
        imagenet_file("resnet18", Ranks())


def test_another_file_at_the_address_is_refused_and_not_kept(published: Path) -> None:
    published.write_bytes(b"something else")
    with pytest.raises(BadInput, match=r"could not be downloaded .*invalid hash"):
        imagenet_file("resnet18", Ranks())
    assert list(cached(published).parent.iterdir()) == []


@pytest.mark.fault("no network")
def test_without_a_network_it_is_one_line_that_says_what_belongs_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with pytest.raises(BadInput) as caught:
        imagenet_file("resnet50", Ranks())
    message = str(caught.value)
    assert "\n" not in message
    assert f"{tmp_path}/torch/hub/checkpoints/resnet50-0676ba61.pth is not there" in message
    assert "https://download.pytorch.org/models/resnet50-0676ba61.pth could not be downloaded" in message
    assert "--init FILE" in message


def test_a_pickle_that_has_the_right_name_runs_no_code(tmp_path: Path, publish_weights: Publish) -> None:
    """P3: torchvision's own way would run it."""
    marker = tmp_path / "marker"

    class Malicious:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(marker),)

    publish_weights({"conv1.weight": Malicious()})
    with pytest.raises(BadArtifact, match="never loaded"):
        load_start_weights(build_network("resnet18", n_classes=2, seed=0), imagenet_file("resnet18", Ranks()))
    assert not marker.exists()


def test_every_address_ends_in_the_hash_of_an_architecture_of_ours() -> None:
    for arch, weights in WEIGHTS.items():
        assert arch in ARCHITECTURES
        assert weights.url == get_weight(weights.name).url
        name, _, digest = Path(weights.url).stem.rpartition("-")
        assert name == arch
        assert len(bytes.fromhex(digest)) >= 4
