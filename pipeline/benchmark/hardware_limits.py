"""Measure the limits of the machine: matrix products in fp32 and bf16, and copying of memory."""

import statistics
import time
from collections.abc import Iterator, Sequence

import torch

from pipeline.benchmark.config import BenchConfig, Contender, interleaved
from pipeline.benchmark.measurement import Measurement
from pipeline.network.precision import Precision

SIDE = {"cpu": 2048, "cuda": 8192}
"""Rows of the square matrices whose product is timed: large enough for the device's full rate."""

TRAINING_PASSES = 3
"""A training step costs this many forward passes: the backward pass takes the gradient of every product with respect
to both factors, two products for one (as counted by Kaplan et al. 2020, arXiv 2001.08361, section 2.1)."""

COPY_BYTES = 2**28
"""Bytes of a copy, far more than any cache."""

COPY_S = 0.3
"""Seconds of timing copies."""


def peak_flops(device: torch.device, precision: Precision, *, seconds: float) -> float:
    """Return the operations per second of a square matrix product: the limit that rates are compared with.

    The limit is measured for this process with torch's number of threads. A convolution written for the chip may exceed
    it by some per cent.

    Args:
        device: where.
        precision: fp32 (on a GPU by torch's own setting of TF32) or bf16.
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


def peak_name(precision: Precision) -> str:
    """Return the name of a limit in the table."""
    return f"{precision} matrix product"


def peaks(config: BenchConfig) -> dict[str, Contender]:
    """Return functions that measure matrix products in GFLOP/s, by `peak_name`; for rounds with other work."""

    def rate_in(precision: Precision) -> Contender:
        return lambda: peak_flops(config.device, precision, seconds=config.size(4, 1) / 10) / 1e9

    return {peak_name(precision): rate_in(precision) for precision in config.precisions}


def tiles_per_second(gigaflops: Sequence[float], flops: float) -> list[float]:
    """Return the rates that the values of a limit (GFLOP/s) allow, for `flops` operations a tile."""
    return [1e9 * value / flops for value in gigaflops]


def copy_rate(device: torch.device, *, n_bytes: int = COPY_BYTES) -> float:
    """Return the rate of copying memory to memory on the device in GB/s, each byte counted as read and as written."""
    source = torch.ones(n_bytes // 4, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    n, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < COPY_S or not n:
        target.copy_(source)
        if device.type != "cpu":
            float(target[0])  # waits for the device
        n += 1
    return 2 * n * n_bytes / spent / 1e9


def measure_limits(config: BenchConfig) -> Iterator[Measurement]:
    """Yield the limits of the machine."""
    contenders = peaks(config) | {"memory copy": lambda: copy_rate(config.device)}
    for contender in contenders.values():
        contender()  # the first call starts threads and allocates pages
    for name, values in interleaved(contenders, rounds=config.rounds, part="limits").items():
        yield Measurement("limits", name, "GB/s" if name == "memory copy" else "GFLOP/s", tuple(values))
