"""Held tiles are streamed tiles; what does not fit is streamed."""

import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.errors import BadInput
from pipeline.network.preprocess import Preprocess
from pipeline.network.tile_files import TileFiles
from pipeline.network.training import pixel_cache
from pipeline.network.training.pixel_cache import CachedTiles, StreamedTiles, decode_all, open_tile_sources, place_for
from pipeline.tiles.decoding import pixel_hash

CPU = torch.device("cpu")


@pytest.fixture
def tiles(tmp_path: Path) -> TileFiles:
    """Ten tiles of 16 px."""
    rng = np.random.default_rng(0)
    names, hashes = [], []
    for i in range(10):
        pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        names.append(f"{i}.png")
        hashes.append(pixel_hash(pixels).hex())
    return TileFiles(tmp_path, names, hashes, Preprocess(16))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("together", [3, 64])
def test_held_is_streamed(tiles: TileFiles, monkeypatch: pytest.MonkeyPatch, workers: int, together: int) -> None:
    monkeypatch.setattr(pixel_cache, "DECODED_TOGETHER", together)
    steps = [np.array(rows) for rows in ([3, 9, 0], [5, 5], [1, 2, 4, 6, 7, 8])]
    came: list[int] = []
    ours = decode_all(tiles, CPU, workers=workers, on_decoded=came.append)
    assert sum(came) == 10
    assert not multiprocessing.active_children()
    both = [list(source.batches(steps)) for source in (ours, StreamedTiles(tiles, workers=workers))]
    for one, other in zip(*both, strict=True):
        assert torch.equal(one, other)
        assert one.dtype == other.dtype == torch.uint8
        assert one.stride() == other.stride()


@pytest.mark.parametrize("damage", ["garbage", "absent", "other"])
def test_both_name_a_tile_that_cannot_be_used(tiles: TileFiles, damage: str) -> None:
    path = tiles.root / "7.png"
    if damage == "garbage":
        path.write_text("no image")
    elif damage == "absent":
        path.unlink()
    else:
        Image.new("RGB", (16, 16)).save(path)
    steps = [np.arange(10)]
    with pytest.raises(BadInput, match=r"7\.png: .*pipeline\.prepare --restart") as one:
        list(StreamedTiles(tiles, workers=0).batches(steps))
    with pytest.raises(BadInput) as other:
        decode_all(tiles, CPU, workers=0, on_decoded=lambda _: None)
    assert str(one.value) == str(other.value)


def test_where_tiles_fit(tiles: TileFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both splits count; the device comes first."""
    free = {"cpu": 0, "cuda": 0}
    monkeypatch.setattr(pixel_cache, "free_bytes", lambda device: free.get(device.type, 0))
    need, gpu, both = 10 * 16 * 16 * 3, torch.device("cuda"), [tiles, tiles]
    assert place_for(both, CPU) is place_for(both, gpu) is None
    free["cpu"] = 4 * need
    assert place_for(both, CPU) == place_for(both, gpu) == CPU
    free["cpu"] -= 1
    assert place_for(both, CPU) is None
    assert place_for([tiles], CPU) == CPU
    free["cuda"] = 8 * need
    assert place_for(both, gpu) == gpu
    free["cuda"] -= 1
    assert place_for(both, gpu) is None
    assert place_for(both, torch.device("mps")) is None


@pytest.mark.parametrize(("free", "kind"), [(10**9, CachedTiles), (1000, StreamedTiles)])
def test_what_does_not_fit_is_streamed(
    tiles: TileFiles, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], free: int, kind: type
) -> None:
    monkeypatch.setattr(pixel_cache, "free_bytes", lambda _: free)
    heeded: list[bool] = []
    sources = open_tile_sources(
        {"train": tiles, "val": tiles}, CPU, workers=0, stop_if_requested=lambda: heeded.append(True)
    )
    assert {name: type(source) for name, source in sources.items()} == {"train": kind, "val": kind}
    said = capsys.readouterr().err
    if kind is CachedTiles:
        assert "20 tiles cached in memory, 0 MB, decoded in" in said
        assert len(heeded) == 2
    else:
        assert "the tiles do not fit into the free memory: they are decoded again in every epoch" in said
