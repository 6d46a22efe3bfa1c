"""Print what a bug report needs: versions, device, engine and precision, free memory and disk, and extras.

python -m pipeline.doctor
python -m pipeline.doctor --folder reports/mine      the disk that this folder is on
"""

import dataclasses
import platform
import re
import shutil
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli.command import command_without_run
from pipeline.cli.options import DEVICE, check
from pipeline.errors import EXIT_OK

if TYPE_CHECKING:
    import torch

SHOWN_EXTRAS = ("audit", "conformal", "cpu", "slides", "large", "cluster", "anndata")
"""The extras for users, as `pip install 'histoheads[EXTRA]'` names them."""

MODULES = {"openslide-python": "openslide", "openslide-bin": "openslide_bin"}
"""Distribution -> its module, if the names differ."""

GB = 1e9


@dataclasses.dataclass(frozen=True)
class DoctorOptions:
    """The device and the disk to report on."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""

    folder: Path = Path()
    """A folder; the free space of its disk is printed."""

    def __post_init__(self) -> None:
        """Check values."""
        check(DEVICE.fullmatch(self.device), f"--device {self.device}: auto, cpu, cuda, cuda:1 or mps is needed")
        check(self.folder.is_dir(), f"--folder {self.folder}: no such folder")


def run(options: DoctorOptions) -> int:
    """Print the table; return the exit code."""
    from pipeline.runtime.device import use_device

    device = use_device(options.device, threads=None)
    facts = [
        *versions_of_packages(),
        *machine(device),
        *engines(device),
        *free_space(device, options.folder),
        *extras(),
    ]
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        print(f"{name:<{width}}  {value}")
    return EXIT_OK


def versions_of_packages() -> Iterator[tuple[str, str]]:
    """Yield the version of this package, of Python, and of each package that results depend on."""
    from pipeline.storage.environment import git_state, versions

    for name, version in versions().items():
        yield name, version or "not installed under this name"
    if state := git_state():
        yield "git commit", state["commit"][:12] + (", changed since" if state["dirty"] else "")


def machine(device: "torch.device") -> Iterator[tuple[str, str]]:
    """Yield the system, the device, and the default numbers of threads and workers."""
    import torch

    from pipeline.runtime.device import n_cores, n_workers

    yield "system", f"{platform.system()} {platform.release()}, {platform.machine()}"
    yield "device", str(device) if device.type != "cuda" else f"{device}, {torch.cuda.get_device_name(device)}"
    yield "threads", f"{n_cores()}"
    yield "workers", f"{n_workers(None)}"


def engines(device: "torch.device") -> Iterator[tuple[str, str]]:
    """Yield the candidates of `--engine auto` on a device for few and many tiles; the first usable one is taken."""
    from pipeline.network.engines.select import OPENVINO_TILES, EngineRequest

    for label, n_tiles in ((f"below {OPENVINO_TILES} tiles", 1), (f"from {OPENVINO_TILES} tiles", OPENVINO_TILES)):
        candidates = EngineRequest(device, batch=1, n_tiles=n_tiles).candidates()
        usable = [pair for pair in candidates if pair[0] != "openvino" or util.find_spec("openvino") is not None]
        yield f"engine {label}", ", else ".join(f"{engine} {precision}" for engine, precision in usable)


def free_space(device: "torch.device", folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the free memory and disk space."""
    import torch

    from pipeline.runtime.memory import free_bytes

    yield "free memory", f"{free_bytes(torch.device('cpu')) / GB:.1f} GB"
    if device.type == "cuda":
        yield "free GPU memory", f"{free_bytes(device) / GB:.1f} GB"
    yield "free disk", f"{shutil.disk_usage(folder).free / GB:.1f} GB at {folder.resolve()}"


def extras() -> Iterator[tuple[str, str]]:
    """Yield for each extra whether it is installed, or how to install it."""
    needed: dict[str, list[str]] = {extra: [] for extra in SHOWN_EXTRAS}
    try:
        listed = metadata.requires("histoheads") or []
    except metadata.PackageNotFoundError:
        yield "extras", "not known: histoheads is not installed, but run from a folder"
        return
    for requirement in listed:
        found = re.match(r"([A-Za-z0-9_.-]+).*;.*extra == ['\"](\w+)['\"]", requirement)
        if found and found[2] in needed:
            needed[found[2]].append(found[1])
    for extra, names in needed.items():
        missing = [name for name in names if util.find_spec(MODULES.get(name, name).replace("-", "_")) is None]
        state = f"missing ({', '.join(missing)}): pip install 'histoheads[{extra}]'" if missing else "installed"
        yield f"extra {extra}", state


main = command_without_run("pipeline.doctor", __doc__, DoctorOptions, run)
"""Entry point of `python -m pipeline.doctor`."""


if __name__ == "__main__":
    raise SystemExit(main())
