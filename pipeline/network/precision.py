"""Choose the precision that a network computes in: bf16 or fp32, by what the hardware has."""

import re
from pathlib import Path
from typing import Literal

import torch

Precision = Literal["fp32", "bf16"]

CPU_INFO = Path("/proc/cpuinfo")
"""Where Linux lists the instructions of the CPU."""

BF16_INSTRUCTIONS = frozenset({"amx_bf16", "avx512_bf16"})
"""Instructions that multiply bf16 numbers, as Linux names them. Other CPUs emulate bf16, which is slower than fp32."""


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Return the context in which the network runs."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def cpu_computes_bf16() -> bool:
    """Return whether the CPU has AMX or AVX512-BF16; False where the system does not list its instructions."""
    try:
        listed = CPU_INFO.read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return False
    flags = re.search(r"^flags\s*:(.*)$", listed, re.MULTILINE)
    return flags is not None and not BF16_INSTRUCTIONS.isdisjoint(flags[1].split())


def default_precision(device: torch.device) -> Precision:
    """Return the precision of a device by its hardware: bf16 on a GPU or CPU that computes in it, else fp32.

    The same machine always gets the same precision.
    """
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device.type == "cpu" and cpu_computes_bf16() else "fp32"


def choose_precision(requested: str, device: torch.device) -> Precision:
    """Return the precision for `--precision auto|fp32|bf16`; `auto` is `default_precision`."""
    if requested == "auto":
        return default_precision(device)
    return "bf16" if requested == "bf16" else "fp32"
