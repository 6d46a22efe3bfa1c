"""bf16 or fp32: which of them this device computes a residual network faster in."""

import statistics
import time
from typing import Literal

import torch
from torch import nn

Precision = Literal["fp32", "bf16"]

GAIN = 1.3
"""bf16 must be this much faster on a CPU: chips that only emulate it lose, those made for it gain 2x and more."""

TRIES = 6
"""Rounds of timing, of which the first warms up."""


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Return the context in which the network runs."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def choose_precision(asked: str, device: torch.device) -> Precision:
    """Return the precision for `--precision auto|fp32|bf16`.

    On a CPU `auto` times one 3x3 convolution forward and backward in both (under a second): having the instructions
    does not mean gaining by them. One thread computes, and its own processor time counts, which other work on the
    machine hardly moves; threads that wait for one another would be timed by their waiting. The ratio asked for is far
    from noise, so that the choice is the same on every run of one machine (P6).
    """
    if asked != "auto":
        return "bf16" if asked == "bf16" else "fp32"
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type != "cpu":
        return "fp32"
    layer = as_timed_layer()
    batch = torch.randn(16, 128, 19, 19).contiguous(memory_format=torch.channels_last)
    seconds: dict[Precision, list[float]] = {"fp32": [], "bf16": []}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for _ in range(TRIES):
        for precision, spent in seconds.items():
            start = time.thread_time()
            with autocast(device, precision):
                loss = layer(batch).float().square().mean()
            loss.backward()
            spent.append(time.thread_time() - start)
    torch.set_num_threads(threads)
    ratio = statistics.median(seconds["fp32"][1:]) / statistics.median(seconds["bf16"][1:])
    return "bf16" if ratio > GAIN else "fp32"


def as_timed_layer() -> nn.Module:
    """Return a layer of ResNet-50's third stage, the bulk of its work."""
    return nn.Conv2d(128, 128, 3, padding=1, bias=False).to(memory_format=torch.channels_last)
