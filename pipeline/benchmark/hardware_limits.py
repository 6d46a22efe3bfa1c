"""What the machine can do at most: matrix products in fp32 and bf16, and copying of memory."""

import time
from collections.abc import Iterator

import torch

from pipeline.benchmark.config import BenchConfig, Contender, interleaved
from pipeline.benchmark.measurement import Measurement
from pipeline.network.precision import Precision
from pipeline.network.throughput import peak_flops

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")

COPY_BYTES = 2**28
"""Far more than any cache holds."""

COPY_S = 0.3


def peak_name(precision: Precision) -> str:
    """Return the name of a ceiling in the table."""
    return f"{precision} matrix product"


def peaks(setting: BenchConfig) -> dict[str, Contender]:
    """Return what measures the machine's matrix products, GFLOP/s, by `peak_name`; for rounds with other work."""

    def rate(precision: Precision) -> float:
        return peak_flops(setting.device, precision, seconds=setting.sized(4, 1) / 10) / 1e9

    return {peak_name(precision): lambda p=precision: rate(p) for precision in PRECISIONS}  # type: ignore[misc]


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


def measure_ceilings(setting: BenchConfig) -> Iterator[Measurement]:
    """Yield the ceilings."""
    contenders = peaks(setting) | {"memory copy": lambda: copy_rate(setting.device)}
    for contender in contenders.values():
        contender()  # the first call of all pays for threads and pages
    for name, values in interleaved(contenders, rounds=setting.rounds, tell=setting.tell).items():
        unit = "GB/s" if name == "memory copy" else "GFLOP/s"
        yield Measurement("ceilings", name, unit, tuple(values))
