"""Small runs that many tests share."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # the workers share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import hashlib
import ipaddress
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.runtime.console import start_logging

from .browser import axe, chromium, open_html  # noqa: F401  (fixtures; no package has the tests)
from .faults.ledger import Ledger, faults_of


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--reliability PAGE`; see tests/faults/ledger.py."""
    parser.addoption("--reliability", help="count the tries of all fault tests and write this page")


def pytest_configure(config: pytest.Config) -> None:
    """Keep the ledger if a page is asked for, in the first of several processes."""
    page = config.getoption("reliability")
    if page and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Ledger(Path(page)), "reliability-ledger")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Send the faults of a test with its report, also from another process."""
    if names := faults_of(item):
        item.user_properties.append(("faults", "\n".join(names)))


def is_here(host: object) -> bool:
    """Tell whether a host is this machine."""
    try:
        return host in ("localhost", "", None) or ipaddress.ip_address(str(host)).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True)
def messages() -> None:
    """Write messages to stderr, as commands do; a test before may have left a command's --quiet."""
    start_logging()


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


@pytest.fixture(scope="session")
def fitted_base(trained_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small trained run after extract and fit_heads; copied, never changed."""
    from pipeline import extract, fit_heads

    base = tmp_path_factory.mktemp("fitted") / "base"
    shutil.copytree(trained_base, base)
    assert extract.main(extract_words(base / "run")) == 0
    assert fit_heads.main(["--run", str(base / "run"), "--threads", "1", "--rounds", "4"]) == 0
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


@pytest.fixture
def fitted_run(fitted_base: Path, tmp_path: Path) -> Path:
    """This test's own copy of a run folder after fit_heads; its tiles lie in `../tiles`."""
    shutil.copytree(fitted_base, tmp_path / "fitted")
    return tmp_path / "fitted" / "run"


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
def publish_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Any]], Path]:
    """`publish_weights(state)`: put resnet18's ImageNet weights at an address of this machine; torch's cache is empty.

    The file's name ends in the beginning of its hash, as of those that torchvision publishes.
    """

    def publish(state: dict[str, Any]) -> Path:
        import torch

        from pipeline.network import pretrained

        file = tmp_path / "weights.pth"
        torch.save(state, file)
        named = file.rename(tmp_path / f"resnet18-{hashlib.sha256(file.read_bytes()).hexdigest()[:8]}.pth")
        monkeypatch.setitem(pretrained.WEIGHTS, "resnet18", pretrained.PublishedWeights("made", named.as_uri()))
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
        return named

    return publish


@pytest.fixture(scope="session")
def encoder_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of torchvision's shufflenet_v2_x0_5, next to a config.json: tiles of 36 px, cropped to 32 px."""
    import json

    import torch
    from safetensors.torch import save_file
    from torchvision.models import shufflenet_v2_x0_5

    folder = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        save_file(shufflenet_v2_x0_5().state_dict(), folder / "own.safetensors")
    config = {"input_size": [3, 32, 32], "crop_pct": 0.875, "interpolation": "bicubic", "license": "CC0"}
    config |= {"mean": [0.5, 0.4, 0.6], "std": [0.2, 0.3, 0.25]}
    (folder / "config.json").write_text(json.dumps({"pretrained_cfg": config}))
    return folder / "own.safetensors"


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


@pytest.fixture
def embedded_slide() -> Callable[..., Path]:
    """`embedded_slide(run, path, ...)`: embeddings of a made-up slide, its rows drawn from those of the run's tiles.

    Tiles of `patch` px every `stride` px from (100, 200) on, `shape` rows and columns; those in `lost` could not be
    read. The row of the run's tile that each stands for is `(7 * i) % N`. Further words are fields of `SlideInfo`.
    """

    def make(
        run: Path,
        path: Path,
        *,
        shape: tuple[int, int] = (3, 4),
        patch: int = 64,
        stride: int = 64,
        lost: tuple[int, ...] = (),
        saw_source: bool | None = False,
        attrs: dict[str, Any] | None = None,
        details: dict[str, Any] | None = None,
        **facts: Any,
    ) -> Path:
        import dataclasses

        import pandas as pd

        from pipeline.storage import records
        from pipeline.storage.embeddings.partial_rows import PartialRows, row_type
        from pipeline.storage.embeddings.reader import SCHEMA, read_embeddings
        from pipeline.storage.embeddings.slide_info import SlideInfo
        from pipeline.storage.embeddings.writer import write_embeddings

        known = read_embeddings(run / "embeddings.h5")
        n = shape[0] * shape[1]
        chosen = 7 * np.arange(n) % len(known.label)
        info = SlideInfo("slide one.tif", "5" * 64, 1000, 900, 0.5, patch, 0.5, patch, stride)
        info = dataclasses.replace(info, **facts)
        scratch = PartialRows(path, row=row_type(known.features.shape[1], known.logits.shape[1]), identity={}, batch=1)
        scratch.open(restart=True)
        rows = np.zeros(n, scratch.row)
        rows["features"], rows["logits"] = known.features[chosen], known.logits[chosen]
        rows["sha256"] = known.sha256[chosen]
        for row in lost:
            rows[row] = np.zeros((), scratch.row)
            rows["status"][row] = 1
        scratch.append(rows)
        y, x = np.divmod(np.arange(n), shape[1])
        table = pd.DataFrame(
            {"x": 100 + stride * x, "y": 200 + stride * y, "group": "slide one", "label": "", "split": ""}
        )
        table["tile_id"] = table["path"] = [f"slide one_{a}_{b}" for a, b in zip(table["x"], table["y"], strict=True)]
        names = ("classes", "preprocess", "encoder", "layer", "model_sha256", "manifest_sha256")
        write_embeddings(path, scratch, table, attrs={k: known.attrs[k] for k in names} | (attrs or {}), slide=info)
        scratch.remove()
        thumbnail = path.with_name(f"{path.stem}-thumbnail.png")
        Image.fromarray(np.full((90, 100, 3), 200, np.uint8)).save(thumbnail)
        made = records.read_record(run / "embeddings.h5")["details"]
        said = {"thumbnail": thumbnail.name, "thumbnail_downsample": 10.0, "saw_source": saw_source}
        said |= {"skipped": {table["tile_id"][row]: "torn" for row in lost}}
        said |= {name: made[name] for name in ("engine", "precision", "batch")} | (details or {})
        records.write_record(
            records.Artifact(path, SCHEMA, "extract", {"dtype": "float32"}, [run / "model.safetensors"]),
            outputs=[thumbnail],
            details=said,
        )
        return path

    return make


def tissue_on_glass(side: int, *, tissue: tuple[int, int, int, int] | None = None) -> np.ndarray:
    """Return (side, side, 3) uint8: pink noise in (left, top, right, bottom), default the middle half; glass around."""
    rng = np.random.default_rng(side)
    pixels = np.full((side, side, 3), 240, np.uint8)
    left, top, right, bottom = tissue or (side // 4, side // 4, side * 3 // 4, side * 3 // 4)
    shape = bottom - top, right - left, 1
    pixels[top:bottom, left:right] = np.array([200, 110, 170]) + rng.integers(-25, 25, shape)
    return pixels


@pytest.fixture
def slide_file(tmp_path: Path) -> Callable[..., Path]:
    """`slide_file(name, side=512, tissue=None, mpp=0.5)`: a tiled TIFF, a pyramid if wider than 1024 px."""
    pytest.importorskip("openslide")
    pytest.importorskip("imagecodecs")

    def make(
        name: str = "slide.tif",
        *,
        side: int = 512,
        tissue: tuple[int, int, int, int] | None = None,
        mpp: float = 0.5,
    ) -> Path:
        from pipeline.slides.synthetic import write_pyramid

        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        write_pyramid(path, iter([tissue_on_glass(side, tissue=tissue)]), side=side, mpp=mpp)
        return path

    return make


def spoil_block(path: Path, x: int, y: int) -> None:
    """Overwrite the block of a tiled TIFF's first level that holds a pixel."""
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        index = y // page.tilelength * -(-page.imagewidth // page.tilewidth) + x // page.tilewidth
        start, n = page.dataoffsets[index], page.databytecounts[index]
    data = bytearray(path.read_bytes())
    data[start : start + n] = bytes(n)
    path.write_bytes(data)


@pytest.fixture
def spoil() -> Callable[[Path, int, int], None]:
    """`spoil(slide, x, y)`: make the block of 256 px that holds this pixel undecodable."""
    return spoil_block


DYING_EXTRACT = """
import os, signal, sys
from pipeline import extract
from pipeline.storage.embeddings.partial_rows import PartialRows
append, when = PartialRows.append, int(sys.argv.pop(1))
def dying(self, rows):
    global when
    when -= 1
    if when < 0:
        size = len(rows) * self.row.itemsize
        append(self, rows)
        os.truncate(self.path, self.path.stat().st_size - size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    append(self, rows)
PartialRows.append = dying
raise SystemExit(extract.main(sys.argv[1:]))
"""


@pytest.fixture(scope="session")
def dying_extract() -> str:
    """A program: extract, but kill -9 in the midst of a row; its first word says after how many batches."""
    return DYING_EXTRACT
