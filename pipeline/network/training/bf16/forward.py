"""Run our networks forward in training on a CPU in bfloat16, with faster gradients than autograd's own.

The modules are left as they are: parameters, statistics, state dict and evaluation are those of the eager network. Only
the operations between them differ. The rule of selection is `applies`; no choice depends on a time.

- `convolution`: output, gradient of the input and gradient of the weight are each computed by torch's convolution or
  as a matrix product, by a fixed rule of the shape.
- `norm`: batch norm, with ReLU or with residual sum and ReLU, in passes compiled by numba (extra `cpu`). Without numba,
  torch's own.

Both compute what torch's autocast to bfloat16 does, except for rounding. Under torchrun the sums of each norm cross
processes (`sync_batchnorm`) and gradients go through DistributedDataParallel: there the eager network trains.
"""

from typing import cast

import torch
from torch import nn

from pipeline.network.precision import Precision
from pipeline.network.resnet import Block, ResNet
from pipeline.network.training.bf16.convolution import NHWC, convolve
from pipeline.network.training.bf16.norm import LINEAR, add_normalised, normalise


def applies(device: torch.device, precision: Precision, *, n_ranks: int) -> bool:
    """Return whether steps of a training use `forward`: on one CPU process in bfloat16."""
    return device.type == "cpu" and precision == "bf16" and n_ranks == 1


def forward(network: ResNet, x: torch.Tensor) -> torch.Tensor:
    """Return the scores (B, K) of normalised images (B, 3, H, W); call it under autocast to bfloat16.

    Raises:
        ValueError: a norm gets one value per channel, as torch's own raises.
    """
    x = x.to(torch.bfloat16, memory_format=NHWC)
    x = skip = network.maxpool(normalise(network.bn1, convolve(network.conv1, x), low=0.0))
    for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
        for block in stage:
            x, skip = _block(cast("Block", block), x, skip)
    scores: torch.Tensor = network.fc(torch.flatten(network.avgpool(x), 1))
    return scores


def _block(block: Block, x: torch.Tensor, skip: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a block's output twice: for the convolution and for the residual sum of the next block."""
    out = normalise(block.bn1, convolve(block.conv1, x), low=0.0)
    if block.bottleneck:
        out = convolve(block.conv3, normalise(block.bn2, convolve(block.conv2, out), low=0.0))
    else:
        out = convolve(block.conv2, out)
    if block.downsample is not None:
        layer, norm = cast("tuple[nn.Conv2d, nn.BatchNorm2d]", tuple(block.downsample))
        skip = normalise(norm, convolve(layer, skip), low=LINEAR)
    return add_normalised(block.last_norm, out, skip)
