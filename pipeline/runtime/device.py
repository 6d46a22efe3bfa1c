"""What this process may use of the machine: cores, worker processes, the device."""

import os
import re
from typing import TYPE_CHECKING

from pipeline.errors import UsageError
from pipeline.runtime.process import local_rank, n_local_ranks, n_ranks

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


def own_cores() -> int:
    """Return the cores for each process that torchrun started on this machine, all where it started none."""
    return max(1, n_cores() // n_local_ranks())


def n_workers(asked: int | None) -> int:
    """Return the number of decoding workers: as asked, else one per core of this process up to `MOST_WORKERS`."""
    return min(own_cores(), MOST_WORKERS) if asked is None else asked


def use_device(name: str, threads: int | None, *, deterministic: bool = False) -> "torch.device":
    """Return the device for `--device`, set torch's thread count, and for `--deterministic` its choice of kernels.

    Raises:
        UsageError: not a device, or one that this machine does not have.
    """
    import torch

    torch.set_num_threads(threads or own_cores())
    if deterministic:
        # read with the first matrix product on a GPU; https://docs.nvidia.com/cuda/cublas, "Results reproducibility"
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(mode=True)
        torch.backends.cudnn.benchmark = False
    if n_ranks() > 1:
        return _device_of_rank(name)
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


def _device_of_rank(name: str) -> "torch.device":
    """Return the device of one of several processes: the CPU, or the GPU of its number.

    Raises:
        UsageError: a device that is not theirs to share, or fewer GPUs than processes.
    """
    import torch

    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if name not in ("auto", "cuda"):
        raise UsageError(f"--device {name}: under torchrun cpu, or cuda, by which each process takes a GPU of its own")
    if local_rank() >= torch.cuda.device_count():
        raise UsageError(
            f"torchrun started {n_local_ranks()} processes on a machine with {torch.cuda.device_count()} GPU(s): "
            f"pass --nproc-per-node {torch.cuda.device_count() or 1}, or --device cpu"
        )
    return torch.device("cuda", local_rank())


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
