"""Build residual networks with torchvision's names and weights, and run their two halves: features() and logits().

The classes are our own: importing torchvision takes 2 s, most of it for torch's compiler.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import nn

from pipeline.errors import UsageError

ARCHITECTURES = ("resnet50", "resnet18", "resnet10")
"""resnet10 (one basic block a stage) is for tests and quick looks; embeddings are 2048, 512, 512 wide."""

WIDTHS = (64, 128, 256, 512)
"""Channels of the four stages."""


def _conv(n_in: int, n_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, kernel, stride, padding=kernel // 2, bias=False)


class Block(nn.Module):
    """A residual block; attributes have torchvision's names and order, which decide the random weights.

    The convolutions have the kernels 3 and 3, or 1, 3 and 1 (He et al. 2015, "Deep Residual Learning"). The stride is
    that of the first convolution with kernel 3.

    Args:
        n_in: channels of the input.
        width: channels of the stage.
        stride: of the block.
        bottleneck: whether the block has three convolutions.
    """

    conv3: nn.Conv2d
    bn3: nn.BatchNorm2d

    def __init__(self, n_in: int, width: int, stride: int, *, bottleneck: bool) -> None:
        super().__init__()
        n_out = 4 * width if bottleneck else width
        shortcut = None
        if stride != 1 or n_in != n_out:
            shortcut = nn.Sequential(_conv(n_in, n_out, 1, stride), nn.BatchNorm2d(n_out))
        self.conv1 = _conv(n_in, width, 1) if bottleneck else _conv(n_in, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        if bottleneck:
            self.conv2, self.bn2 = _conv(width, width, 3, stride), nn.BatchNorm2d(width)
            self.conv3, self.bn3 = _conv(width, n_out, 1), nn.BatchNorm2d(n_out)
            self.relu = nn.ReLU(inplace=True)
        else:
            self.relu = nn.ReLU(inplace=True)
            self.conv2, self.bn2 = _conv(width, width, 3), nn.BatchNorm2d(width)
        self.downsample = shortcut
        self.bottleneck = bottleneck

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The normalisation before the sum."""
        return self.bn3 if self.bottleneck else self.bn2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output of the block."""
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        if self.bottleneck:
            out = self.bn3(self.conv3(self.relu(out)))
        out += x if self.downsample is None else self.downsample(x)
        found: torch.Tensor = self.relu(out)
        return found


class ResNet(nn.Module):
    """A residual network with torchvision's parameter names; `build_network` draws torchvision's weights.

    Args:
        depths: number of blocks of each of the four stages.
        bottleneck: whether blocks have three convolutions.
        n_classes: K.
    """

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def __init__(self, depths: Sequence[int], *, bottleneck: bool, n_classes: int) -> None:
        super().__init__()
        self.depths, self.bottleneck = tuple(depths), bottleneck
        self.conv1, self.bn1 = _conv(3, WIDTHS[0], 7, 2), nn.BatchNorm2d(WIDTHS[0])
        self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        n_in = WIDTHS[0]
        for stage, (depth, width) in enumerate(zip(depths, WIDTHS, strict=True), 1):
            blocks = []
            for i in range(depth):
                blocks.append(Block(n_in, width, 2 if stage > 1 and i == 0 else 1, bottleneck=bottleneck))
                n_in = 4 * width if bottleneck else width
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d((1, 1)), nn.Linear(n_in, n_classes)

    def blocks(self) -> list[Block]:
        """Return all blocks in the order of the forward pass."""
        stages = (self.layer1, self.layer2, self.layer3, self.layer4)
        return [block for stage in stages for block in stage if isinstance(block, Block)]

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the logits, (B, K), of normalised images (B, 3, H, W)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(batch))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        found: torch.Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return found


def build_network(arch: str, *, n_classes: int, seed: int, zero_init: bool = False) -> ResNet:
    """Return a network with random weights (those of torchvision for the seed) and `n_classes` outputs.

    `torchvision.models.resnet50(num_classes=K)` loads its weights. With `zero_init` the last norm of each block begins
    at 0 (torchvision's `zero_init_residual`), all else as without.

    Raises:
        UsageError: an unknown architecture.
    """
    if arch not in ARCHITECTURES:
        raise UsageError(f"--arch {arch}: known are {', '.join(ARCHITECTURES)}")
    torch.manual_seed(seed)
    network = _network(arch, n_classes)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    if zero_init:
        for module in network.modules():
            if isinstance(module, Block):
                nn.init.zeros_(module.last_norm.weight)
    return network


def empty_network(arch: str, n_classes: int) -> ResNet:
    """Return a network on the device meta, which `load_state_dict(..., assign=True)` fills: no weights are drawn."""
    with torch.device("meta"):
        return _network(arch, n_classes)


def _network(arch: str, n_classes: int) -> ResNet:
    depths = {"resnet50": (3, 4, 6, 3), "resnet18": (2, 2, 2, 2), "resnet10": (1, 1, 1, 1)}[arch]
    return ResNet(depths, bottleneck=arch == "resnet50", n_classes=n_classes)


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

    Those of convolutions and the last layer are counted by their shapes: a convolution with stride s turns a side of n
    into (n - 1) // s + 1, since it is padded by half of its kernel. torch's FlopCounterMode gives the same number, but
    imports torch's compiler, which takes 2 s.

    Args:
        network: network on any device; it is not run.
        size: side of the tile in px.
    """

    def after(side: int, layer: nn.Conv2d) -> int:
        return (side - 1) // layer.stride[0] + 1

    side = after(size, network.conv1)
    products = network.conv1.weight.numel() * side**2 + network.fc.weight.numel()
    side = (side - 1) // 2 + 1  # maxpool
    for block in network.blocks():
        for layer in (block.conv1, block.conv2, *([block.conv3] if block.bottleneck else [])):
            side = after(side, layer)
            products += layer.weight.numel() * side**2
        if block.downsample is not None:
            products += cast("nn.Conv2d", block.downsample[0]).weight.numel() * side**2
    return 2.0 * products


def as_channels_last(network: nn.Module, device: torch.device) -> None:
    """Move a network to its device in the memory layout that convolutions are fastest in."""
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
