"""How much more memory this process may take: of the machine, its control groups and its limits, or of a GPU."""

import dataclasses
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import torch


@dataclasses.dataclass(frozen=True)
class GroupFiles:
    """Where one version of Linux' control groups tells of memory."""

    controllers: str
    """The second field of its line in /proc/self/cgroup."""
    mount: str
    limit: str
    """File with the most bytes that the group may use, or a word for no limit."""
    used: str
    reclaimable: str
    """Line of memory.stat: used bytes that are given back when they are needed (the cache of files not in use)."""


GROUPS = (
    GroupFiles("", "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    GroupFiles(
        "memory",
        "sys/fs/cgroup/memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
)
"""Version 2, version 1; kernel.org, Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst."""


def free_bytes(device: torch.device, *, root: Path = Path("/")) -> int:
    """Return how many bytes this process can still take on a device; 0 where it is not known.

    Args:
        device: cpu for the machine's memory; cuda for that of the GPU, with what torch holds of it unused.
        root: of the file system.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    if device.type != "cpu":
        return 0
    return max(0, min([_of_machine(root), *_of_groups(root), *_of_limits(root)]))


def _of_machine(root: Path) -> int:
    """Return the machine's free memory; where the system does not tell (not Linux), all of its memory."""
    try:
        return _fields(root / "proc/meminfo")["MemAvailable:"] * 1024
    except (OSError, KeyError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _of_groups(root: Path) -> Iterator[int]:
    """Yield what is left to each control group that this process is in and that has a limit."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        for files in GROUPS:
            if files.controllers not in controllers.split(","):
                continue
            inside = root / files.mount / path.lstrip("/")
            # in a container the path can be the host's, of which only the upper end is mounted
            for group in (inside, *inside.parents):
                try:
                    limit, used = ((group / name).read_text().strip() for name in (files.limit, files.used))
                    kept = int(used) - _fields(group / "memory.stat")[files.reclaimable]
                except (OSError, KeyError):
                    continue
                if limit.isdigit():
                    yield int(limit) - kept


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
