"""Measure how much more memory this process may take: of the machine, its limits, or a GPU."""

import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.runtime.control_groups import groups

if TYPE_CHECKING:
    import torch

GROUP_FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}
"""Version of the control groups -> file of the limit, file of the used bytes, and the line of memory.stat with the
used bytes that the system gives back when they are needed (the cache of files not in use)."""


def free_bytes(device: "torch.device", *, root: Path = Path("/")) -> int:
    """Return how many bytes this process can still take on a device; 0 where it is not known.

    Args:
        device: cpu for the machine's memory; cuda for that of the GPU, with what torch holds of it unused.
        root: root of the file system.
    """
    if device.type == "cuda":
        import torch

        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    if device.type != "cpu":
        return 0
    left = [limit - kept for limit, kept in _of_groups(root)]
    return max(0, min([_of_machine(root), *left, *_of_limits(root)]))


def total_bytes(*, root: Path = Path("/")) -> int:
    """Return the memory that this process may use of the idle machine: all of it, or the limit of a control group.

    A choice that follows from this number is the same on a busy machine.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    limits = [limit] if limit != resource.RLIM_INFINITY else []
    try:
        limits.append(_fields(root / "proc/meminfo")["MemTotal:"] * 1024)
    except (OSError, KeyError):
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min([*limits, *(limit for limit, _ in _of_groups(root))])


def _of_machine(root: Path) -> int:
    """Return the machine's free memory; where the system does not report it (not Linux), all of its memory."""
    try:
        return _fields(root / "proc/meminfo")["MemAvailable:"] * 1024
    except (OSError, KeyError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _of_groups(root: Path) -> Iterator[tuple[int, int]]:
    """Yield the limit and the used bytes of each control group that this process is in and that has a limit."""
    for version, folder in groups("memory", root=root):
        limit_file, used_file, reclaimable = GROUP_FILES[version]
        try:
            limit, used = ((folder / name).read_text().strip() for name in (limit_file, used_file))
            kept = int(used) - _fields(folder / "memory.stat")[reclaimable]
        except (OSError, KeyError):
            continue
        if limit.isdigit():
            yield int(limit), kept


def _of_limits(root: Path) -> Iterator[int]:
    """Yield what is left of the address space (`ulimit -v`), if that is limited."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        try:
            pages = int((root / "proc/self/statm").read_text().split()[0])
        except OSError:
            pages = 0
        yield limit - pages * os.sysconf("SC_PAGE_SIZE")


def _fields(path: Path) -> dict[str, int]:
    """Return the numbers of a file of lines "name number ..."."""
    words = (line.split() for line in path.read_text().splitlines())
    return {line[0]: int(line[1]) for line in words if len(line) > 1}
