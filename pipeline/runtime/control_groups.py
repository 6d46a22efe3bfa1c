"""Find the Linux control groups that limit this process, as containers and batch systems set them.

Formats: kernel.org, Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

Version = Literal[1, 2]


def groups(controller: str, *, root: Path = Path("/")) -> Iterator[tuple[Version, Path]]:
    """Yield version and folder of each control group that may limit this process, its own first, then those above.

    Args:
        controller: "cpu" or "memory".
        root: root of the file system.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # no control groups: another system
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        version: Version = 1 if controllers else 2
        if version == 1 and controller not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / (controller if version == 1 else "")
        own = Path(name.lstrip("/"))
        # in a container the name can be the host's, of which only the upper end is mounted
        for place in (own, *own.parents):
            yield version, mount / place


def cpu_quotas(*, root: Path = Path("/")) -> Iterator[int]:
    """Yield the whole cores that each control group grants this process, at least 1, where it has a quota."""
    for version, folder in groups("cpu", root=root):
        try:
            if version == 2:
                quota, period = (folder / "cpu.max").read_text().split()
            else:
                quota, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        except OSError:
            continue
        if quota.isdigit():  # "max" or -1: none
            yield max(1, int(quota) // int(period))
