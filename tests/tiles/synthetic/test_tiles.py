import json
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import BadInput, DiskFull
from pipeline.tiles.synthetic import tiles
from pipeline.tiles.synthetic.tiles import CLASSES, make_demo, render_tile

KATHER_CLASSES = (
    "01_TUMOR 02_STROMA 03_COMPLEX 04_LYMPHO 05_DEBRIS 06_MUCOSA 07_ADIPOSE 08_EMPTY".split()  # noqa: SIM905
)
NAME = re.compile(r"[0-9A-F]{5}_CRC-Prim-HE-(\d\d)_(\d{3})\.tif_Row_(\d+)_Col_(\d+)\.tif")


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def tile(label: str, *, source: int = 3, tile_px: int = 64, seed: int = 0) -> np.ndarray:
    return render_tile(label, source=source, tile_px=tile_px, rng=np.random.default_rng(seed))


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flat tiles: for tests of names, counts and folders, not of pictures."""

    def flat(label: str, *, source: int, tile_px: int, rng: np.random.Generator) -> np.ndarray:
        del label, source
        return np.full((tile_px, tile_px, 3), rng.integers(256), np.uint8)

    monkeypatch.setattr(tiles, "render_tile", flat)


def sources_by_class(folder: Path) -> dict[str, Counter[int]]:
    found: dict[str, Counter[int]] = defaultdict(Counter)
    for path in folder.glob("*/*.tif"):
        match = NAME.fullmatch(path.name)
        assert match, path.name
        found[path.parent.name][int(match[1])] += 1
    return found


def test_the_classes_are_those_of_kather_2016() -> None:
    assert list(CLASSES) == KATHER_CLASSES


def test_same_arguments_give_the_same_bytes_whatever_the_number_of_threads(tmp_path: Path) -> None:
    make_demo(tmp_path / "a", n_tiles=24, tile_px=32, seed=5)
    code = (
        "from pathlib import Path; from pipeline.tiles.synthetic.tiles import make_demo;"
        f"make_demo(Path({str(tmp_path / 'b')!r}), n_tiles=24, tile_px=32, seed=5)"
    )
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "3")
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, env={**os.environ, **threads})
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


def test_another_seed_gives_other_tiles_and_names(tmp_path: Path) -> None:
    make_demo(tmp_path / "a", n_tiles=16, tile_px=32, seed=5)
    make_demo(tmp_path / "b", n_tiles=16, tile_px=32, seed=6)
    a, b = files_of(tmp_path / "a"), files_of(tmp_path / "b")
    assert not set(a) & set(b) - {"demo.json"}
    assert not set(a.values()) & set(b.values())


@pytest.mark.parametrize("n_tiles", [16, 64, 163, 1000])
@pytest.mark.usefixtures("fast")
def test_classes_are_even_and_sources_as_in_the_real_set(tmp_path: Path, n_tiles: int) -> None:
    make_demo(tmp_path / "set", n_tiles=n_tiles, tile_px=16, seed=0)
    found = sources_by_class(tmp_path / "set")
    sizes = [sum(found[label].values()) for label in CLASSES]
    assert sum(sizes) == n_tiles
    assert max(sizes) - min(sizes) <= 1
    names = [p.name for p in (tmp_path / "set").glob("*/*.tif")]
    assert len(set(names)) == n_tiles
    for label in CLASSES:
        assert len(found[label]) == min(10, sum(found[label].values()))
    if n_tiles >= 1000:
        totals = sum(found.values(), Counter())
        real = {1: 401, 2: 284, 3: 740, 4: 381, 5: 661, 6: 471, 7: 503, 8: 389, 9: 342, 10: 203}  # of tissue
        assert all(abs(totals[s] / n_tiles - n / 4375) < 0.012 for s, n in real.items())


@pytest.mark.usefixtures("fast")
def test_rows_and_columns_lie_on_the_tile_grid_and_tiles_are_plain_rgb_tiff(tmp_path: Path) -> None:
    make_demo(tmp_path / "set", n_tiles=16, tile_px=24, seed=0)
    for path in (tmp_path / "set").glob("*/*.tif"):
        match = NAME.fullmatch(path.name)
        assert match
        assert int(match[3]) % 24 == int(match[4]) % 24 == 1
        with Image.open(path) as picture:
            assert (picture.format, picture.mode, picture.size) == ("TIFF", "RGB", (24, 24))
            assert picture.info["compression"] == "raw"


@pytest.mark.usefixtures("fast")
def test_a_whole_set_is_left_alone_and_other_parameters_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    make_demo(folder, n_tiles=16, tile_px=16, seed=0)
    before = {p: p.stat().st_mtime_ns for p in [folder, *folder.rglob("*")]}
    make_demo(folder, n_tiles=16, tile_px=16, seed=0)
    assert {p: p.stat().st_mtime_ns for p in [folder, *folder.rglob("*")]} == before
    with pytest.raises(BadInput, match=r"'seed': 0.*'seed': 1") as refusal:
        make_demo(folder, n_tiles=16, tile_px=16, seed=1)
    assert "\n" not in str(refusal.value)
    next(folder.glob("*/*.tif")).unlink()
    with pytest.raises(BadInput, match="15 of 16"):
        make_demo(folder, n_tiles=16, tile_px=16, seed=0)


@pytest.mark.usefixtures("fast")
def test_a_folder_with_other_files_is_refused_and_an_empty_one_is_used(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    make_demo(mine, n_tiles=16, tile_px=16, seed=0)
    assert json.loads((mine / "demo.json").read_text())["n_tiles"] == 16
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("keep me")
    with pytest.raises(BadInput, match=r"other.*choose another folder"):
        make_demo(other, n_tiles=16, tile_px=16, seed=0)
    assert [p.name for p in other.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
@pytest.mark.usefixtures("fast")
def test_a_build_that_fails_in_the_middle_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    drawn = []

    def failing(label: str, *, source: int, tile_px: int, rng: np.random.Generator) -> np.ndarray:
        drawn.append((label, source, rng))
        if len(drawn) == 9:
            raise error
        return np.zeros((tile_px, tile_px, 3), np.uint8)

    with monkeypatch.context() as patch:
        patch.setattr(tiles, "render_tile", failing)
        with pytest.raises(DiskFull if isinstance(error, OSError) else KeyboardInterrupt):
            make_demo(tmp_path / "set", n_tiles=16, tile_px=16, seed=0)
    assert list(tmp_path.iterdir()) == []
    make_demo(tmp_path / "set", n_tiles=16, tile_px=16, seed=0)
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


@pytest.mark.usefixtures("fast")
def test_the_rest_of_a_dead_run_is_removed_and_a_live_one_is_not(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead, alive = tmp_path / f".set.partial-{ended.pid}", tmp_path / f".set.partial-{os.getppid()}"
    for folder in (dead, alive):
        (folder / "01_TUMOR").mkdir(parents=True)
    make_demo(tmp_path / "set", n_tiles=16, tile_px=16, seed=0)
    assert not dead.exists()
    assert alive.exists()


@pytest.mark.parametrize("wrong", [{"n_tiles": 15}, {"tile_px": 15}, {"seed": -1}])
def test_parameters_out_of_range_are_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(BadInput, match="out of range"):
        make_demo(tmp_path / "set", **{"n_tiles": 16, "tile_px": 16, "seed": 0, **wrong})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("tile_px", [16, 32, 64, 150])
@pytest.mark.parametrize("label", CLASSES)
def test_a_tile_is_rgb_of_the_size_asked_for(label: str, tile_px: int) -> None:
    picture = tile(label, tile_px=tile_px)
    assert picture.shape == (tile_px, tile_px, 3)
    assert picture.dtype == np.uint8
    assert len(np.unique(picture)) > 5


def test_brightness_and_colour_are_those_of_the_stain() -> None:
    means = {label: np.mean([tile(label, seed=k).mean((0, 1)) for k in range(6)], axis=0) for label in CLASSES}
    assert means["08_EMPTY"].min() > 225
    assert means["08_EMPTY"].mean() > means["07_ADIPOSE"].mean() > means["02_STROMA"].mean()
    assert means["02_STROMA"].mean() > means["04_LYMPHO"].mean()
    red, green, blue = means["02_STROMA"]
    assert red > blue > green  # eosin


def test_sources_differ_more_than_tiles_of_one_source() -> None:
    means = np.array([[tile("02_STROMA", source=s, seed=k).mean((0, 1)) for k in range(4)] for s in range(1, 11)])
    assert means.mean(axis=1).std(axis=0).mean() > means.std(axis=1).mean()
