"""Build torchvision's residual networks, and run their two halves: features() and logits()."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import resnet18, resnet50
from torchvision.models.resnet import BasicBlock, ResNet

from pipeline.errors import UsageError

ARCHITECTURES = ("resnet50", "resnet18", "resnet10")
"""resnet10 (one basic block a stage) is for tests and quick looks; embeddings are 2048, 512, 512 wide."""


def build_network(arch: str, *, n_classes: int, seed: int, zero_init: bool = False) -> ResNet:
    """Return a network with random weights (torchvision's own initialisation) and `n_classes` outputs.

    Parameter names are torchvision's, so `torchvision.models.resnet50(num_classes=K)` loads the weights. With
    `zero_init` the last norm of each block begins at 0 (torchvision's `zero_init_residual`), all else as without.
    """
    torch.manual_seed(seed)
    if arch == "resnet50":
        return resnet50(num_classes=n_classes, zero_init_residual=zero_init)
    if arch == "resnet18":
        return resnet18(num_classes=n_classes, zero_init_residual=zero_init)
    if arch == "resnet10":
        return ResNet(BasicBlock, [1, 1, 1, 1], num_classes=n_classes, zero_init_residual=zero_init)
    raise UsageError(f"--arch {arch}: known are {', '.join(ARCHITECTURES)}")


def features(network: ResNet, batch: torch.Tensor) -> torch.Tensor:
    """Return the penultimate layer after global average pooling, (B, D), of normalised images (B, 3, H, W).

    It is pooled in float32 whatever the layers before compute in: bfloat16 would round the features once more.
    """
    x = network.maxpool(network.relu(network.bn1(network.conv1(batch))))
    x = network.layer4(network.layer3(network.layer2(network.layer1(x))))
    return torch.flatten(network.avgpool(x.float()), 1)


def logits(network: ResNet, embedded: torch.Tensor) -> torch.Tensor:
    """Return the softmax head's scores, (B, K), of features (B, D)."""
    scores: torch.Tensor = network.fc(embedded)
    return scores


def flops_per_tile(network: ResNet, size: int) -> float:
    """Return the floating point operations of one tile's forward pass, two per multiplication with its addition.

    torch's FlopCounterMode counts convolutions and matrix products, on a copy of the network without data.

    Args:
        network: network on any device; it is not run.
        size: side of the tile in px.
    """
    blocks = [len(stage) for stage in (network.layer1, network.layer2, network.layer3, network.layer4)]
    shape_only = type(network)(type(network.layer1[0]), blocks, network.fc.out_features)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        shape_only.to("meta").eval()(torch.empty(1, 3, size, size, device="meta"))
    return float(counter.get_total_flops())


def as_channels_last(network: nn.Module, device: torch.device) -> None:
    """Move a network to its device in the memory layout that convolutions are fastest in."""
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
