"""How fast a network can be on a device: its floating point operations, and the most that the device does a second."""

import functools
import statistics
import time

import torch
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.resnet import ResNet

from pipeline.network.precision import Precision

SIDE = {"cpu": 2048, "cuda": 8192}
"""Rows of the square matrices whose product is timed: large enough for the device's full rate."""

TRAINING_PASSES = 3
"""A training step costs this many forward passes: the backward pass takes the gradient of every product with respect
to both of its factors, two products for one (as counted by Kaplan et al. 2020, arXiv 2001.08361, section 2.1)."""


def flops_per_tile(network: ResNet, size: int) -> float:
    """Return the floating point operations of one tile's forward pass, two per multiplication with its addition.

    Counted by torch's FlopCounterMode (convolutions and matrix products) on a network without data.

    Args:
        network: on any device; not run.
        size: side of the tile in px.
    """
    shape_only = type(network)(type(network.layer1[0]), [len(s) for s in _stages(network)], network.fc.out_features)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        shape_only.to("meta").eval()(torch.empty(1, 3, size, size, device="meta"))
    return float(counter.get_total_flops())


def _stages(network: ResNet) -> list[torch.nn.Sequential]:
    return [network.layer1, network.layer2, network.layer3, network.layer4]


def peak_flops(device: torch.device, precision: Precision, *, seconds: float = 0.5) -> float:
    """Return the operations per second of a square matrix product: the ceiling that rates are compared with.

    Measured, not looked up: what this machine grants this process with torch's number of threads now. A convolution
    written for the chip may exceed it by some per cent.

    Args:
        device: where.
        precision: fp32 or bf16; fp32 by torch's own setting of TF32.
        seconds: how long products are timed.
    """
    side = SIDE.get(device.type, 2048)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(a)
    spent: list[float] = []
    began = time.perf_counter()
    while len(spent) < 3 or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        torch.matmul(a, b, out=out)
        if device.type != "cpu":
            float(out[0, 0])  # waits for the device
        spent.append(time.perf_counter() - start)
    return 2 * side**3 / statistics.median(spent[1:])


@functools.cache
def _measured_peak(device: torch.device, precision: Precision, threads: int) -> float:
    """Return the device's operations per second, measured once in this process for a number of threads."""
    return peak_flops(device, precision)


def share_of_limit(network: ResNet, size: int, precision: Precision) -> float:
    """Return the share of its device's limit that a network takes by training on one tile a second.

    A step costs `limits.TRAINING_PASSES` forward passes per tile (source there); the limit is the rate of a large
    matrix product on this device, in this precision, with torch's number of threads. Updates, normalisation and
    activations count for nothing: the share says how much of the time does what the network is for.

    Args:
        network: on its device.
        size: side of the tile in px.
        precision: that it is trained in.
    """
    device = next(network.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):  # both draw numbers
        flops = TRAINING_PASSES * flops_per_tile(network, size)
        return flops / _measured_peak(device, precision, torch.get_num_threads())
