"""What this process may use of the machine: cores, worker processes, the device."""

import os
import re
from typing import TYPE_CHECKING

from pipeline.errors import UsageError

if TYPE_CHECKING:
    import torch

MOST_WORKERS = 4
"""More decoding processes than this do not help one network."""

DEVICE_TYPES = ("cpu", "cuda", "mps")
"""Kinds of device that networks run on; torch also knows some that compute nothing (meta)."""


def n_cores() -> int:
    """Return the number of cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def n_workers(asked: int | None) -> int:
    """Return the number of decoding workers: as asked, else one per core up to `MOST_WORKERS`."""
    return min(n_cores(), MOST_WORKERS) if asked is None else asked


def use_device(name: str, threads: int | None, *, deterministic: bool = False) -> "torch.device":
    """Return the device for `--device`, set torch's thread count, and for `--deterministic` its choice of kernels.

    Raises:
        UsageError: not a device, or one that this machine does not have.
    """
    import torch

    torch.set_num_threads(threads or n_cores())
    if deterministic:
        # read with the first matrix product on a GPU; https://docs.nvidia.com/cuda/cublas, "Results reproducibility"
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(mode=True)
        torch.backends.cudnn.benchmark = False
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in DEVICE_TYPES:
            raise UsageError(f"--device {name}: known are auto, {', '.join(DEVICE_TYPES)}")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {name}: not usable here: {str(error).splitlines()[0]}") from None
    return device


def memory_bytes(text: str) -> int:
    """Return the bytes of an amount of memory such as "4GB", "500MB" or "2GiB".

    Raises:
        UsageError: not a number with one of these units.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kKMGT]i?)B", text.strip())
    if found is None:
        raise UsageError(f"--memory {text}: a number with kB, MB, GB, TB, KiB, MiB, GiB or TiB is needed, such as 4GB")
    base = 1024 if found[2].endswith("i") else 1000
    return int(float(found[1]) * base ** (1 + "KMGT".index(found[2][0].upper())))
