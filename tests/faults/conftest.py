"""A finished run on tiny tiles, and the commands that made it."""

import dataclasses
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.storage import freshness, records
from pipeline.storage.atomic import sha256_file

from .commands import Commands, serve


def plain(run: Path, words: str = "") -> list[str]:
    """The words that most commands share."""
    return ["--run", str(run), "--threads", "1", "--workers", "0", "--device", "cpu", *words.split()]


TRAIN = "--recipe quick --arch resnet10 --tile-px 32 --epochs 2 --batch-size 8 --precision fp32"


WORDS: dict[str, Callable[[Path], list[str]]] = {
    "prepare": lambda run: [*plain(run, "--protocol random"), "--data", str(run.parent / "tiles")],
    "train": lambda run: plain(run, TRAIN),
    "extract": lambda run: plain(run, "--embed-batch 5 --engine torch --embed-precision fp32"),
    "baselines": lambda run: plain(run, "--baseline-px 32"),
    "fit_heads": lambda run: plain(run, "--rounds 6"),
    "robustness": lambda run: plain(run, "--corruptions blur jpeg"),
    "report": lambda run: plain(run, "--draws 100 --map pca"),
}
"""Stage -> its command line, in the order of the work."""

MADE = {
    "prepare": ("manifest.csv",),
    "train": ("model.safetensors", "model.json"),
    "extract": ("embeddings.h5",),
    "baselines": ("baselines.h5",),
    "fit_heads": ("heads/svm.skops", "heads/xgboost.ubj", "predictions.csv"),
    "robustness": ("robustness.csv",),
    "report": (),
}
"""Stage -> its files that repeat to the bit; the others hold times."""


@dataclasses.dataclass(frozen=True)
class Finished:
    """A run that nothing disturbed."""

    base: Path
    """Holds `tiles/` and, for each stage, the run folder as it stood after it."""

    hashes: dict[str, str]
    """File of `MADE` -> its hash."""

    def copy(self, place: Path, *, before: str = "", after: str = "") -> Path:
        """Return the path of a copy of the run folder as it stood before or after a stage; its tiles lie beside it."""
        stages = list(WORDS)
        last = after or stages[stages.index(before) - 1]
        shutil.copytree(self.base / "tiles", place / "tiles")
        return Path(shutil.copytree(self.base / last, place / "run", copy_function=copy_or_link))

    def wrong(self, run: Path, stage: str) -> list[str]:
        """Return the files of a stage that are not there as they should be."""
        names = MADE[stage]
        return [n for n in names if not (run / n).is_file() or sha256_file(run / n) != self.hashes[n]]

    def torn(self, run: Path) -> list[str]:
        """Return files under their final names that are not those of the undisturbed run (P1)."""
        there = [name for name in self.hashes if (run / name).is_file()]
        return [name for name in there if sha256_file(run / name) != self.hashes[name]]


def copy_or_link(source: str, target: str) -> str:
    """Copy a file; large ones, which commands only ever replace, are linked."""
    if source.endswith(".safetensors"):
        os.link(source, target)
        return target
    return str(shutil.copy2(source, target))


def temporaries(run: Path) -> list[Path]:
    """Return what a command left half-written."""
    return [path for path in run.rglob("*") if path.name.endswith(".tmp") or ".partial" in path.name]


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """Commands in processes of their own."""
    if sys.platform != "linux":
        pytest.skip("processes are forked, watched and starved in ways of Linux")
    yield from serve(tmp_path_factory.mktemp("logs"))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, prepared_base: Path, commands: Commands) -> Finished:
    """All stages on 32 tiles of two classes."""
    base = tmp_path_factory.mktemp("finished")
    shutil.copytree(prepared_base / "tiles", base / "tiles")
    hashes = {}
    for stage, words in WORDS.items():
        ended = commands.run(stage, words(base / "run"))
        assert ended.code == 0, ended.said
        hashes |= {name: sha256_file(base / "run" / name) for name in MADE[stage]}
        shutil.copytree(base / "run", base / stage, copy_function=copy_or_link, ignore=shutil.ignore_patterns(".lock"))
    return Finished(base, hashes)


@pytest.fixture(scope="session")
def kills() -> int:
    """How many times each stage is killed: `make faults KILLS=30`."""
    return int(os.environ.get("HISTOHEADS_KILLS", "10"))


def vouched(path: Path) -> bool:
    """Tell whether an artefact and its companions are those that its record speaks of."""
    if not path.is_file() or not records.record_path(path).is_file():
        return False
    record = records.read_record(path)
    return sha256_file(path) == record["sha256"] and not freshness.damaged_outputs(path, record)
