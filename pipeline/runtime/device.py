"""Choose what this process uses of the machine: cores, worker processes, the device."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import UsageError
from pipeline.runtime.control_groups import cpu_quotas
from pipeline.runtime.process import local_rank, n_local_ranks, n_ranks

if TYPE_CHECKING:
    import torch

MOST_WORKERS = 4
"""More decoding processes than this do not help one network."""

DEVICE_TYPES = ("cpu", "cuda", "mps")
"""Kinds of device that networks run on; torch also knows some that compute nothing (meta)."""

THREADS_VARIABLE = "OMP_NUM_THREADS"
"""By it users and batch systems limit the threads of a process."""


def n_cores(*, root: Path = Path("/")) -> int:
    """Return the number of cores for this process.

    It is the smallest of the affinity mask, the CPU quota of each control group (at least 1), both shared among the
    processes that torchrun started on this machine, and OMP_NUM_THREADS where it is set.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = max(1, min([allowed, *cpu_quotas(root=root)]) // n_local_ranks())
    requested = os.environ.get(THREADS_VARIABLE, "").partition(",")[0].strip()
    if not requested.isdigit() or requested == "0":
        return share
    if requested == "1" and n_local_ranks() > 1:  # torchrun sets 1 where the user sets nothing
        return share
    return min(share, int(requested))


def limit_threads() -> None:
    """Keep the libraries that are loaded later (BLAS, OpenMP) to the cores for this process."""
    os.environ.setdefault(THREADS_VARIABLE, str(n_cores()))


def n_workers(requested: int | None) -> int:
    """Return the number of decoding workers: as requested, else one for each core up to `MOST_WORKERS`."""
    return min(n_cores(), MOST_WORKERS) if requested is None else requested


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
    return _device_of_rank(name) if n_ranks() > 1 else named_device(name)


def named_device(name: str) -> "torch.device":
    """Return the device for `--device`.

    Raises:
        UsageError: not a device, or one that this machine does not have.
    """
    import torch

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
