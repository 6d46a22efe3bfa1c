"""How fast a training goes by what the device could do. Shown only: nothing that is learnt depends on it."""

import functools

import torch
from torchvision.models.resnet import ResNet

from pipeline.network.limits import TRAINING_PASSES, flops_per_tile, peak_flops
from pipeline.network.precision import Precision


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
