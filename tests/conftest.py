"""Small runs that many tests share."""

import ipaddress
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--reliability PAGE`; what it does stands in tests/faults/ledger.py."""
    parser.addoption("--reliability", help="count the tries of all tests of the fault matrix and write this page")


def is_here(host: object) -> bool:
    """Tell whether a host is this machine."""
    try:
        return host in ("localhost", "", None) or ipaddress.ip_address(str(host)).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True, scope="session")
def no_network() -> Iterator[None]:
    """Let nothing be asked of another machine: neither tests nor what they test need a network."""
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def connect_here(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not is_here(address[0]):
            raise OSError(f"a test asks for {address[0]}: no network in tests")
        connect(self, address)

    def look_up_here(host: Any, *words: Any, **more: Any) -> Any:
        if not is_here(host):
            raise OSError(f"a test asks for {host}: no network in tests")
        return look_up(host, *words, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect_here)
        patch.setattr(socket, "getaddrinfo", look_up_here)
        yield


def write_tiles(folder: Path, *, per_class: int = 16, px: int = 32) -> Path:
    """Write two learnable classes of PNG tiles: ADI is bright, TUM is dark; the same bytes every time."""
    rng = np.random.default_rng(7)
    for code, name in enumerate(("ADI", "TUM")):
        (folder / name).mkdir(parents=True)
        for i in range(per_class):
            pixels = rng.integers(0, 156, (px, px, 3)) + (100 if code == 0 else 0)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"S{i % 4}_{i:02d}.png")
    return folder


@pytest.fixture(scope="session")
def prepared_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `tiles/` (32 of two classes, 32 px) and `run/` after prepare; copied, never changed."""
    from pipeline import prepare

    base = tmp_path_factory.mktemp("prepared")
    write_tiles(base / "tiles")
    words = ["--run", str(base / "run"), "--data", str(base / "tiles"), "--protocol", "random", "--workers", "1"]
    assert prepare.main(words) == 0
    return base


@pytest.fixture(scope="session")
def trained_base(tmp_path_factory: pytest.TempPathFactory, prepared_base: Path) -> Path:
    """The same after train: a resnet10, two epochs, fp32."""
    from pipeline import train

    base = tmp_path_factory.mktemp("trained") / "base"
    shutil.copytree(prepared_base, base)
    assert train.main(train_words(base / "run")) == 0
    return base


@pytest.fixture
def prepared_run(prepared_base: Path, tmp_path: Path) -> Path:
    """This test's own copy of a run folder after prepare; its tiles lie in `../tiles`."""
    shutil.copytree(prepared_base, tmp_path / "prepared")
    return tmp_path / "prepared" / "run"


@pytest.fixture
def trained_run(trained_base: Path, tmp_path: Path) -> Path:
    """This test's own copy of a run folder after train; its tiles lie in `../tiles`."""
    shutil.copytree(trained_base, tmp_path / "trained")
    return tmp_path / "trained" / "run"


def train_words(run: Path, *more: str) -> list[str]:
    """The command line of the small training."""
    words = "--recipe quick --arch resnet10 --tile-px 32 --epochs 2 --batch-size 8 --precision fp32 --device cpu"
    return ["--run", str(run), *words.split(), "--threads", "1", "--workers", "0", *more]


def extract_words(run: Path, *more: str) -> list[str]:
    """The command line of the small extraction."""
    words = "--embed-batch 5 --embed-precision fp32 --device cpu --threads 1 --workers 0"
    return ["--run", str(run), *words.split(), *more]


@pytest.fixture(scope="session")
def words() -> Callable[..., list[str]]:
    """`words("train" | "extract", run, *more)`: the command line of that stage on small tiles."""
    builders = {"train": train_words, "extract": extract_words}
    return lambda stage, run, *more: builders[stage](run, *more)


@pytest.fixture
def tile_folder(tmp_path: Path) -> Callable[..., Path]:
    """`tile_folder(name, classes=..., n=6, px=16, suffix=".png", groups=3)`: class folders of coloured noise.

    Tile i of a class is called `s<i mod groups>_<i>`: its group stands in its name.
    """

    def make(
        name: str = "tiles",
        *,
        classes: tuple[str, ...] = ("A", "B"),
        n: int = 6,
        px: int = 16,
        suffix: str = ".png",
        groups: int = 3,
    ) -> Path:
        rng = np.random.default_rng(sum(name.encode()))
        for label in classes:
            (tmp_path / name / label).mkdir(parents=True)
            for i in range(n):
                noise = rng.integers(0, 256, (px, px, 3), dtype=np.uint8)
                Image.fromarray(noise).save(tmp_path / name / label / f"s{i % groups}_{i:03d}{suffix}")
        return tmp_path / name

    return make
