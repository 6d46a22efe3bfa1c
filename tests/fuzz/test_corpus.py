"""The files that fuzzing begins from, and those that once broke a promise, go through the targets without atheris."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "tests" / "fuzz" / "corpus"
FILES = sorted(path.relative_to(CORPUS).as_posix() for path in CORPUS.glob("*/*"))


@pytest.fixture(scope="module")
def targets() -> ModuleType:
    """The module fuzz.targets, wherever pytest was started."""
    spec = importlib.util.spec_from_file_location("fuzz_targets", ROOT / "tests" / "fuzz" / "targets.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz_targets"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_the_corpus(targets: ModuleType, tmp_path: Path, name: str) -> None:
    targets.TARGETS[name.split("/")[0]]((CORPUS / name).read_bytes(), tmp_path)


def test_every_target_has_a_corpus(targets: ModuleType) -> None:
    assert {name.split("/")[0] for name in FILES} | set(targets.GOOD) == set(targets.TARGETS)


def test_good_tiles_are_decoded(targets: ModuleType, tmp_path: Path) -> None:
    for name, content in targets.good_tiles().items():
        (tmp_path / name).write_bytes(content)
        assert targets.decode_tile(tmp_path / name).shape == (8, 8, 3), name
        targets.TARGETS["tile"](content, tmp_path)


def test_good_slides_are_opened(targets: ModuleType, tmp_path: Path) -> None:
    for name, content in targets.good_slides().items():
        (tmp_path / name).write_bytes(content)
        with targets.open_slide(tmp_path / name, mpp=0.5) as opened:
            assert min(opened.dimensions) in (40, 64, 96), name
        targets.TARGETS["slide"](content, tmp_path)


def test_good_hdf5_files_are_read(targets: ModuleType, tmp_path: Path) -> None:
    for name, content in targets.good_hdf5().items():
        (tmp_path / name).write_bytes(content)
        read = targets.read_baselines if name == "baselines.h5" else targets.read_embeddings
        assert list(read(tmp_path / name).tile_id) == ["a", "b", "c"]
        targets.TARGETS["hdf5_raw"](content, tmp_path)


def test_a_target_fails_on_what_is_no_error_of_ours(targets: ModuleType, tmp_path: Path) -> None:
    def read(path: Path) -> None:
        raise ValueError(path)

    with pytest.raises(ValueError, match="x"):
        targets.check(read, tmp_path / "x")


def test_made_up_files_are_read_and_refused(
    targets: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The changes reach the readers' rules: without any, a file is read; with some, it is refused."""
    said = []

    def check(read: object, path: Path) -> None:
        try:
            read(path)  # type: ignore[operator]
            said.append("")
        except targets.PipelineError as error:
            said.append(str(error).split(": ", 1)[1][:30])

    monkeypatch.setattr(targets, "check", check)
    for first in range(4):
        for second in range(0, 256, 5):
            targets.hdf5(bytes([first, 0, second, second // 3, second // 7, 7 * second % 251]) * 3, tmp_path)
    assert "" in said
    assert len(set(said)) > 10
